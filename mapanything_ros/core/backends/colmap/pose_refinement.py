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

"""Fits trusted poses to what the images show, without moving the window as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array

# What odometry's error inside a window is taken for: a turn, and a share of the window's extent.
TURN_RAD = np.radians(0.1)
POSITION_SHARE = 0.005
# The matches of two images share the errors of the lens model: they never count as more than this.
INDEPENDENT_MATCHES = 100
# A match with more pixels of error than this is doubted.
DOUBTFUL_PX = 1.0


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Matched rays (N,3), with z = 1, of two images, given by their place in the window."""

    first: int
    second: int
    first_rays: Array
    second_rays: Array
    focal_px: float


def refine_poses(poses: Sequence[Array], pairs: Sequence[ImagePair]) -> list[Array]:
    """
    Return the poses (4,4) ``world_from_camera`` that fit matches and given poses best.

    Minimises the matches' distances to their epipolar lines, robustly, with the given poses as a
    prior for each turn and position; thus scale and placement stay those of the given poses.
    """
    extent_m = _extent(poses)
    if not pairs or extent_m == 0.0:
        return list(poses)
    turns = Rotation.from_matrix(np.array([pose[:3, :3] for pose in poses]))
    centres = np.array([pose[:3, 3] for pose in poses])
    sigmas = np.array([TURN_RAD] * 3 + [POSITION_SHARE * extent_m] * 3)
    errors = _EpipolarErrors(pairs)

    def moved(steps: Array) -> tuple[Array, Array]:
        steps = steps.reshape(-1, 6) * sigmas
        return (turns * Rotation.from_rotvec(steps[:, :3])).as_matrix(), centres + steps[:, 3:]

    def residuals(steps: Array) -> Array:
        return np.concatenate([errors(*moved(steps)), steps])

    fit = least_squares(residuals, np.zeros(6 * len(poses)), max_nfev=20, xtol=1e-4, ftol=1e-5)
    refined = []
    for turn, centre in zip(*moved(fit.x), strict=True):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, centre
        refined.append(pose)
    return refined


class _EpipolarErrors:
    """The Sampson distances of all matches, in pixels, weighted and made robust."""

    def __init__(self, pairs: Sequence[ImagePair]) -> None:
        counts = [len(pair.first_rays) for pair in pairs]
        self._pair = np.repeat(np.arange(len(pairs)), counts)
        self._first = np.array([pair.first for pair in pairs])
        self._second = np.array([pair.second for pair in pairs])
        self._first_rays = np.concatenate([pair.first_rays for pair in pairs])
        self._second_rays = np.concatenate([pair.second_rays for pair in pairs])
        self._focal_px = np.repeat([pair.focal_px for pair in pairs], counts)
        weights = [min(1.0, INDEPENDENT_MATCHES / count) ** 0.5 for count in counts]
        self._weight = np.repeat(weights, counts)

    def __call__(self, turns: Array, centres: Array) -> Array:
        to_second = turns[self._second].transpose(0, 2, 1)
        turn = to_second @ turns[self._first]
        shift = to_second @ (centres[self._first] - centres[self._second])[..., None]
        essential = np.cross(shift.transpose(0, 2, 1), turn.transpose(0, 2, 1)).transpose(0, 2, 1)
        essential = essential[self._pair]
        second_line = np.einsum('nij,nj->ni', essential, self._first_rays)
        first_line = np.einsum('nji,nj->ni', essential, self._second_rays)
        distance = np.sum(second_line * self._second_rays, axis=1)
        slope = (second_line[:, :2] ** 2).sum(axis=1) + (first_line[:, :2] ** 2).sum(axis=1)
        error_px = self._focal_px * distance / np.sqrt(slope + 1e-18)
        # Squared, this is Cauchy's loss.
        robust = np.sqrt(np.log1p((error_px / DOUBTFUL_PX) ** 2)) * np.sign(error_px)
        return DOUBTFUL_PX * self._weight * robust


def _extent(poses: Sequence[Array]) -> float:
    centres = np.array([pose[:3, 3] for pose in poses])
    return float(np.linalg.norm(centres[:, None] - centres[None], axis=-1).max())
