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

"""The path between two keyframes as one edge, with all its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array

# Times that a path is bent until its end fits: what a bend does is linear only when it is small.
BENDS = 3


@dataclass(frozen=True, eq=False)
class Step:
    """How a keyframe's camera stood in that of the keyframe before, and its variances (6,)."""

    previous_from_this: Array
    variance: Array


class Stretch:
    """
    The steps from keyframe ``start`` through all of ``ids`` to the last of them, ``end``.

    ``start_from_end`` (4,4) is what they say together, with ``covariance`` (6,6) at the end:
    rotation first, as in all small motions here. ``factor`` multiplies the steps' variances.
    """

    def __init__(
        self, start: int, ids: Sequence[int], steps: Sequence[Step], factor: float = 1.0,
    ) -> None:
        self.start, self.end = start, ids[-1]
        self._ids = ids
        self._motions = [step.previous_from_this for step in steps]
        chain: Array = np.empty((len(steps), 4, 4))
        pose: Array = np.eye(4)
        for index, motion in enumerate(self._motions):
            pose = chain[index] = pose @ motion
        self.start_from_end = pose
        # An error of a step shows at the end through the lever between them.
        lever = _adjoint(np.linalg.inv(pose) @ chain)
        variance = factor * np.stack([step.variance for step in steps])
        spread = variance[:, :, None] * lever.transpose(0, 2, 1)
        self.covariance: Array = (lever @ spread).sum(axis=0)
        # What each step has to do about an error at the end, (N,6,6).
        self._gains = spread @ np.linalg.inv(self.covariance)

    def bent(self, map_from_start: Array, map_from_end: Array) -> dict[int, Array]:
        """Return the poses of the keyframes after the start where the end is given, too."""
        bends = np.zeros((len(self._ids), 6))
        poses: dict[int, Array] = {}
        for _ in range(BENDS):
            pose = map_from_start
            for number, motion, bend in zip(
                    self._ids, self._motions, _motions(bends), strict=True):
                pose = pose @ motion @ bend
                poses[number] = pose
            bends = bends + self._gains @ vector(np.linalg.inv(pose) @ map_from_end)
        poses[self.end] = map_from_end
        return poses


def vector(motion: Array) -> Array:
    """Return a small motion (4,4) as a rotation vector and metres, (6,)."""
    turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
    return np.concatenate([turn, motion[:3, 3]])


def _motions(vectors: Array) -> Array:
    motions = np.tile(np.eye(4), (len(vectors), 1, 1))
    motions[:, :3, :3] = Rotation.from_rotvec(vectors[:, :3]).as_matrix()
    motions[:, :3, 3] = vectors[:, 3:]
    return motions


def _adjoint(motions: Array) -> Array:
    """Return (N,6,6): what a small motion, rotation first, is on the near side of (N,4,4)."""
    rotation, shift = motions[:, :3, :3], motions[:, :3, 3]
    cross = np.zeros_like(rotation)
    cross[:, [2, 0, 1], [1, 2, 0]] = shift
    cross[:, [1, 2, 0], [2, 0, 1]] = -shift
    result = np.zeros((len(motions), 6, 6))
    result[:, :3, :3] = result[:, 3:, 3:] = rotation
    result[:, 3:, :3] = cross @ rotation
    return result
