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

"""Where the robot was at any time, from poses at some."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from mapanything_ros.core.datatypes import Array

# Faster than any robot that maps, m/s and rad/s: what changes so fast was set anew. Poses that
# are closer in time count as this far apart.
MAX_SPEED, MIN_STEP_S = 50.0, 0.01


class PoseHistory:
    """
    Poses ``frame_from_body`` (4,4) at rising stamps, the newest ``keep_ns`` of them.

    Between two of them, at most ``max_gap_ns`` apart, the pose is interpolated as tf2 does:
    positions linearly, turns at constant speed.
    """

    def __init__(self, keep_ns: int, max_gap_ns: int) -> None:
        self._keep_ns = keep_ns
        self._max_gap_ns = max_gap_ns
        self.clear()

    def __len__(self) -> int:
        return len(self._stamps_ns)

    def clear(self) -> None:
        """Forget all poses."""
        self._stamps_ns: list[int] = []
        self._poses: list[Array] = []
        # Of the newest.
        self._covariance = np.zeros((6, 6))
        self._variances: list[Array] = []

    def add(self, stamp_ns: int, pose: Array, covariance: Array | None = None) -> str:
        """
        Add a pose; return what is strange about it, a sentence, or nothing.

        One that is not newer than all before is not taken. ``covariance`` (6,6) is its own, as
        geometry_msgs has it: place and turn along the axes of ``frame``.
        """
        problem = ''
        if covariance is None or not np.isfinite(covariance).all():
            covariance = np.zeros((6, 6))
        variance = np.zeros(2)
        if self._stamps_ns:
            newest_ns = self._stamps_ns[-1]
            if stamp_ns <= newest_ns:
                return (
                    f'it is {(newest_ns - stamp_ns) * 1e-9:.3f} s older than one before, or '
                    'stamped alike: it is ignored')
            problem = self._break(newest_ns, stamp_ns, self._poses[-1], pose)
            variance = self._variances[-1] + _variance_of_step(
                self._poses[-1], self._covariance, pose, covariance)
        self._stamps_ns.append(stamp_ns)
        self._poses.append(pose)
        self._covariance = covariance
        self._variances.append(variance)
        # In pieces: each time would move all the rest.
        if self._stamps_ns[0] < stamp_ns - 2 * self._keep_ns:
            first = bisect_left(self._stamps_ns, stamp_ns - self._keep_ns)
            for kept in (self._stamps_ns, self._poses, self._variances):
                del kept[:first]
        return problem

    def at(self, stamp_ns: int) -> Array:
        """Return the pose (4,4) at a time; raise LookupError, with the reason, if unknown."""
        before, after, share = self._between(stamp_ns)
        start, end = self._poses[before], self._poses[after]
        if share == 1.0:
            return end
        pose = np.eye(4)
        turns = Rotation.from_matrix(np.stack([start[:3, :3], end[:3, :3]]))
        pose[:3, :3] = Slerp([0.0, 1.0], turns)(share).as_matrix()
        pose[:3, 3] = (1.0 - share) * start[:3, 3] + share * end[:3, 3]
        return pose

    def variance_at(self, stamp_ns: int) -> Array:
        """
        Return how much all steps until then may be off together, by their covariances.

        (2,): the variance of the heading, rad^2, and of a horizontal direction, m^2, since the
        first pose. Raises LookupError as ``at`` does.
        """
        before, after, share = self._between(stamp_ns)
        return (1.0 - share) * self._variances[before] + share * self._variances[after]

    def _between(self, stamp_ns: int) -> tuple[int, int, float]:
        """Return the indices of the poses around a time, and how far it is from one to other."""
        if not self._stamps_ns:
            raise LookupError('there is none yet')
        after = bisect_left(self._stamps_ns, stamp_ns)
        if after == len(self._stamps_ns):
            late_s = (stamp_ns - self._stamps_ns[-1]) * 1e-9
            raise LookupError(f'the newest is {late_s:.3f} s older')
        if self._stamps_ns[after] == stamp_ns:
            return after, after, 1.0
        if after == 0:
            early_s = (self._stamps_ns[0] - stamp_ns) * 1e-9
            raise LookupError(f'the oldest is {early_s:.3f} s newer')
        before = after - 1
        start_ns, end_ns = self._stamps_ns[before], self._stamps_ns[after]
        if problem := self._break(
                start_ns, end_ns, self._poses[before], self._poses[after]):
            raise LookupError(problem)
        return before, after, (stamp_ns - start_ns) / (end_ns - start_ns)

    def _break(self, start_ns: int, end_ns: int, start: Array, end: Array) -> str:
        """Return why nothing is known between two poses, or nothing."""
        gap_s = (end_ns - start_ns) * 1e-9
        if end_ns - start_ns > self._max_gap_ns:
            return f'it has a gap of {gap_s:.3f} s, in which nothing is known'
        moved_m = float(np.linalg.norm(end[:3, 3] - start[:3, 3]))
        turned = Rotation.from_matrix(start[:3, :3].T @ end[:3, :3]).magnitude()
        if max(moved_m, turned) > MAX_SPEED * max(gap_s, MIN_STEP_S):
            return (
                f'it jumps by {moved_m:.3f} m and {np.degrees(turned):.1f} degrees in '
                f'{gap_s:.3f} s, as if it had been reset; nothing is known in between')
        return ''


def _variance_of_step(before: Array, old: Array, after: Array, new: Array) -> Array:
    """
    Return what the covariance (6,6) of a pose has that is not from that of the one before, (2,).

    The variance of the heading, and of a horizontal direction: other axes are often made up. What
    the old heading's error does to the new place is no error of the step. Less than nothing is
    returned as it is: such as that of a covariance that never changes.
    """
    x, y = after[:2, 3] - before[:2, 3]
    grown = new - old
    turn = grown[5, 5]
    place = grown[0, 0] + grown[1, 1] - (x * x + y * y) * old[5, 5] - 2.0 * (
        x * old[1, 5] - y * old[0, 5])
    return np.array([turn, 0.5 * place])
