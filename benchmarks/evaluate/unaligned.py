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

"""What to compare with: windows that nothing joins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Array, Keyframe, Submap, WindowPrediction
from mapanything_ros.core.reconstructor import Reconstructor


class AtOdometry:
    """Puts each window where odometry has its first keyframe, whatever its size."""

    segments = 1
    map_from_odom: Array = np.eye(4)

    def __init__(self) -> None:
        self._placed: set[int] = set()

    def place(self, window: WindowPrediction, keyframes: Sequence[Keyframe]) -> Submap:
        """Return the window in the map frame, which is odometry's."""
        first = window.views[0]
        odom_from_camera = next(
            keyframe.odom_from_camera for keyframe in keyframes
            if keyframe.id == first.keyframe_id)
        new = frozenset(view.keyframe_id for view in window.views) - self._placed
        self._placed |= new
        return Submap(
            window.views, window.scale, odom_from_camera @ np.linalg.inv(first.world_from_camera),
            new_ids=new)


class Unaligned(Reconstructor):
    """A reconstructor without alignment."""

    def __init__(self, config: Config, backend: Backend) -> None:
        super().__init__(config, backend)
        self._alignment = AtOdometry()  # type: ignore[assignment]
