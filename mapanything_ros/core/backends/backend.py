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

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe, WindowPrediction


class Backend(Protocol):
    """Turns a window of keyframes into geometry."""

    name: str

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """
        Reconstruct a window, in the camera frame of its first view.

        Views that could not be reconstructed are left out; they are found by id. Raises
        ReconstructionError, with the reason, where the window as a whole failed.
        """
        ...


def create_backend(config: Config) -> Backend:
    """Load the backend that the configuration names; raise BackendUnavailableError if it can't."""
    # Imported here: each backend loads heavy libraries.
    from mapanything_ros.core.backends.colmap import ColmapBackend

    return ColmapBackend(config.colmap, config.device)
