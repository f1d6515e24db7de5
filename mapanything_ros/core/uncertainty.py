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

"""How far the poses of keyframes in the map may be off."""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array

# What a window errs in the pose of a view before two windows were compared, and the least that is
# believed afterwards: radians, and a share of the depth that it sees.
FIRST_RAD, FIRST_SHARE = math.radians(0.3), 0.005
LEAST = 0.03
# Windows that the errors of windows are averaged over.
MEMORY = 20
# Of the square of three normal errors (chi-square with 3 degrees of freedom).
MEDIAN_OF_SQUARES = 2.366
# Where odometry alone bridges a gap: a share of its length, like the pose graph's, and radians a
# metre, as wheels without a gyroscope.
BRIDGE_SHARE, BRIDGE_RAD_PER_M = 0.1, 0.05


class Uncertainty:
    """
    The errors of a chain of windows, each joined to the one before through shared keyframes.

    Every view of a window has an error of its own, in turn and place, normal and alike in all
    directions. Keyframes that two windows have seen tell how large these are: by that the windows
    differ about them. A join passes on the mean error of the shared views, old and new, and a
    window's scale errs by what its evidence does. All is against the first keyframe's own place.
    """

    def __init__(self) -> None:
        # Of a view's turn, rad^2, and place, m^2; the least of them is not known before depth is.
        self._variances = np.zeros(2)
        self._least = np.zeros(2)
        self._compared = 0
        self.reset()

    def reset(self) -> None:
        """Forget the map, but not how windows err."""
        # Covariances of the small motion of the newest window about the map's origin, rotation
        # first, and of the logarithm of its scale, which moves what is away from the centre: for
        # a view's turn of 1 rad^2, for its place of 1 m^2, and by scale and odometry.
        self._parts = np.zeros((3, 7, 7))
        self._centre: Array = np.zeros(3)

    def expect(self, depth_m: float) -> None:
        """Take the usual depth of a window for a first idea of how it errs."""
        first = np.array([FIRST_RAD, FIRST_SHARE * depth_m])
        self._least = (LEAST * first) ** 2
        if not self._compared:
            self._variances = first ** 2

    def begin(self, pose: Array, scale_sigma: float) -> None:
        """Begin a map with a window whose first camera is at a pose (4,4)."""
        self.reset()
        self._centre = pose[:3, 3]
        self._join(1.0, scale_sigma)

    def follow(
        self, before: Sequence[Array], after: Sequence[Array], scale_sigma: float,
    ) -> None:
        """Add a window that has the poses ``after`` (4,4) of keyframes which had ``before``."""
        self._compare(before, after)
        self._move_centre(np.mean([pose[:3, 3] for pose in after], axis=0))
        self._join(2.0 / len(after), scale_sigma)

    def anchor(
        self, before: Sequence[Array], after: Sequence[Array], poses: Sequence[Array],
        scale_sigma: float,
    ) -> None:
        """Add a window that odometry holds by all its poses (4,4): no error is passed on."""
        self._compare(before, after)
        self.reset()
        self._centre = np.mean([pose[:3, 3] for pose in poses], axis=0)
        self._join(1.0 / len(poses), scale_sigma)

    def bridge(self, last: Array, first: Array, scale_sigma: float) -> None:
        """Add a window that odometry alone ties to the last pose (4,4), by its first."""
        self._move_centre(first[:3, 3])
        length_m = float(np.linalg.norm(first[:3, 3] - last[:3, 3]))
        sigmas = np.repeat([BRIDGE_RAD_PER_M * length_m, BRIDGE_SHARE * length_m], 3)
        lever = _about_origin(self._centre)
        self._parts[2, :6, :6] += lever @ np.diag(sigmas ** 2) @ lever.T
        self._join(1.0, scale_sigma)

    def at(self, pose: Array) -> Array:
        """
        Return the covariance (6,6) of a pose (4,4) of the newest window.

        In the order of geometry_msgs/PoseWithCovariance: metres along the map's axes, then radians
        about them.
        """
        variances = np.append(self._variances, 1.0)
        # What turns and moves the map, and its scale, do to the camera.
        effect = np.zeros((6, 7))
        effect[:, :6] = np.linalg.inv(_about_origin(pose[:3, 3]))
        effect[3:, 6] = pose[:3, 3] - self._centre
        covariance = effect @ np.tensordot(variances, self._parts, 1) @ effect.T
        covariance += np.diag(np.repeat(variances[:2], 3))
        order = [3, 4, 5, 0, 1, 2]
        return (covariance + covariance.T)[np.ix_(order, order)] / 2.0

    def _compare(self, before: Sequence[Array], after: Sequence[Array]) -> None:
        """Learn from what two windows say about the same keyframes; half of them may be wrong."""
        if len(after) < 2:
            return
        differences = [np.linalg.inv(b) @ a for b, a in zip(before, after, strict=True)]
        turned = [Rotation.from_matrix(d[:3, :3]).magnitude() ** 2 for d in differences]
        moved = [float(d[:3, 3] @ d[:3, 3]) for d in differences]
        # Two errors make a difference, and the join has taken away their mean.
        share = 2.0 * (1.0 - 1.0 / len(after)) * MEDIAN_OF_SQUARES
        self._compared = min(self._compared + 1, MEMORY)
        found = np.median([turned, moved], axis=1) / share
        self._variances += (found - self._variances) / self._compared
        self._variances = np.maximum(self._variances, self._least)

    def _move_centre(self, centre: Array) -> None:
        """Take along what an error of scale does on the way."""
        moved = np.eye(7)
        moved[3:6, 6] = centre - self._centre
        self._parts = moved @ self._parts @ moved.T
        self._centre = centre

    def _join(self, share: float, scale_sigma: float) -> None:
        """Add a share of the errors of a view at the centre, and take the scale as it is now."""
        lever = _about_origin(self._centre)
        for part, axes in zip(self._parts, (slice(0, 3), slice(3, 6)), strict=False):
            part[:6, :6] += share * lever[:, axes] @ lever[:, axes].T
        by_scale = self._parts[2]
        known = by_scale[6, 6]
        kept = min(1.0, scale_sigma ** 2 / known) if known > 0.0 else 0.0
        by_scale[6] *= kept
        by_scale[:, 6] *= kept
        by_scale[6, 6] = scale_sigma ** 2


def _about_origin(place: Array) -> Array:
    """Return (6,6): a small motion about a place, rotation first, as one about the origin."""
    x, y, z = place
    moved = np.eye(6)
    # To turn about the place is to turn about the origin and to move by place x turn.
    moved[3:, :3] = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]
    return moved
