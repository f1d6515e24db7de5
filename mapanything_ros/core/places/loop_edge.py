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

"""A place that was recognised, as the pose graph takes it."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.estimation.similarity import difference

# A loop must hold to so many standard deviations, but never closer than this.
GATE_SIGMAS, GATE_M, GATE_RAD = 4.0, 0.02, math.radians(0.5)


@dataclass(frozen=True, eq=False)
class LoopEdge:
    """
    Two keyframes of the same place: ``older_from_newer`` (4,4), rigid, camera to camera.

    Lengths are in the unit of the older keyframe's depth, as its view was when LoopClosure got it,
    whatever its scale is by now; ``scale`` is the newer view's depth of a thing over the older
    one's, each in its own unit. ``sigma_m`` and ``sigma_rad`` are standard deviations by axis,
    ``sigma_scale`` that of the scale's logarithm.
    """

    older: int
    newer: int
    older_from_newer: Array
    sigma_m: float
    sigma_rad: float
    scale: float
    sigma_scale: float

    @property
    def similarity(self) -> Array:
        """Return (4,4): points of the newer view, in its unit, in the older one and its unit."""
        return self.older_from_newer @ np.diag([1 / self.scale] * 3 + [1.0])

    def error(self, map_from_older: Array, map_from_newer: Array) -> Array:
        """
        Return what poses leave of the loop, (6,): a rotation vector and lengths.

        Poses (4,4) may be similarities; the scale between them is left out.
        """
        motion = np.linalg.inv(map_from_older) @ map_from_newer
        return difference(self.older_from_newer, motion)[:6]

    def fits(self, map_from_older: Array, map_from_newer: Array) -> bool:
        """Say whether poses satisfy the loop, within its gate."""
        error = self.error(map_from_older, map_from_newer)
        return bool(
            np.linalg.norm(error[:3]) <= max(GATE_SIGMAS * self.sigma_rad, GATE_RAD)
            and np.linalg.norm(error[3:]) <= max(GATE_SIGMAS * self.sigma_m, GATE_M))
