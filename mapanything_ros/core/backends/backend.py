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
from mapanything_ros.core.errors import BackendUnavailableError
from mapanything_ros.core.out_of_memory import is_out_of_memory


class Backend(Protocol):
    """Turns a window of keyframes into geometry."""

    name: str

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
    """Load the backend that the configuration names; raise BackendUnavailableError if it can't."""
    device = torch_device(config.device)
    # Imported here: each backend loads heavy libraries.
    if config.backend == 'colmap':
        from mapanything_ros.core.backends.colmap.backend import ColmapBackend

        return ColmapBackend(config.colmap, device)
    from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend

    return MapAnythingBackend(config, device)


def torch_device(name: str) -> torch.device:
    """Return the device; raise BackendUnavailableError, with what to do, if it isn't there."""
    if name == 'cuda' and not torch.cuda.is_available():
        build = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'a CPU build'
        raise BackendUnavailableError(
            f"device is 'cuda', but torch {torch.__version__} ({build}) finds no GPU here: "
            "install the GPU's driver and a CUDA build of torch, or set device to 'cpu' (with "
            "backend 'mapanything' minutes a window; 'colmap' takes seconds and no weights)")
    device = torch.device(name)
    if device.type == 'cuda':
        _require_kernels(device)
    return device


def _require_kernels(device: torch.device) -> None:
    """Raise BackendUnavailableError where the GPU is there, but does not compute."""
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        remedy = (
            'end what else uses it' if is_out_of_memory(error) else
            'install the build that fits the GPU and its driver')
        reason = str(error).partition('\n')[0]
        raise BackendUnavailableError(
            f'{torch.cuda.get_device_name(device)} does not compute with torch '
            f'{torch.__version__} ({reason}): {remedy}') from error
