# Copyright 2026 The mapanything_ros Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What every reconstruction backend offers, and how one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe, WindowPrediction
from mapanything_ros.core.device import forget, require_gpu, torch_device


class Backend(Protocol):
    """Turns a window of keyframes into geometry."""

    name: str

    def prepare(self, keyframe: Keyframe) -> Keyframe:
        """
        Return the keyframe with what can be made of it alone, while its window fills.

        May be called while another thread is in ``infer``. Whoever inherits need not prepare
        anything; nothing that is wrong with the keyframe is said before its window is inferred.
        """
        return keyframe

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """
        Reconstruct a window, in the camera frame of its first view.

        Views that could not be reconstructed are left out; they are found by id. Raises
        ReconstructionError, with the reason, where the window as a whole failed, and
        WindowTooLargeError where fewer keyframes at once would work.
        """
        ...

    def statistics(self) -> dict[str, object]:
        """Return what the diagnostics should say about the backend, by name."""
        ...


def create_backend(config: Config) -> Backend:
    """
    Load the backend that the configuration names.

    Raises BackendUnavailableError or MissingLibraryError if it cannot run here, GpuLostError if
    the GPU broke. Whatever is raised, the GPU's memory is given back before.
    """
    device = torch_device(config.device)
    try:
        return _load(config, device)
    except Exception as error:
        forget(error)
        require_gpu(device)
        raise


def _load(config: Config, device: torch.device) -> Backend:
    # Imported here: each backend loads heavy libraries.
    if config.backend == 'colmap':
        from mapanything_ros.core.backends.colmap.backend import ColmapBackend

        return ColmapBackend(config.colmap, device)
    from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend

    return MapAnythingBackend(config, device)
