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

"""A first guess of where a window is, from keyframes whose poses are known or expected."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.estimation.similarity import rigid, scale_of, stretched

# Where a view of several is wrong, and by how much, does not matter much: radians, and a share
# of the depth.
REACH_RAD, REACH_SHARE = 0.05, 0.05
# Baselines shorter than this share of the depth say nothing about scale.
LEAST_BASELINE = 0.02


def register(
    views: Mapping[int, Array], poses: Mapping[int, Array], depth: float, scale: float | None,
    likely: float = 1.0,
) -> Array:
    """
    Return the (4,4) similarity ``map_from_world`` that fits most views (4,4) to poses (4,4).

    The best one that puts some view exactly where its pose is, with the ``scale``; where that is
    None, with that of some distance between two views, or else the ``likely`` one. ``depth`` is
    the window's, in its own unit.
    """
    shared = sorted(views.keys() & poses.keys())
    seen = np.stack([views[number] for number in shared])
    known = np.stack([rigid(poses[number]) for number in shared])
    scales = [scale] if scale is not None else _scales(seen, known, depth) or [likely]
    guesses = [
        stretched(pose @ np.linalg.inv(view), scale) for scale in scales
        for view, pose in zip(_scaled(seen, scale), known, strict=True)]
    return min(guesses, key=lambda guess: _cost(guess, seen, known, depth))


def _scaled(views: Array, scale: float) -> Array:
    """Return rigid poses (N,4,4) with their places multiplied."""
    scaled = views.copy()
    scaled[:, :3, 3] *= scale
    return scaled


def _scales(seen: Array, known: Array, depth: float) -> list[float]:
    """Return the ratios of distances, without those that are too short."""
    distances = [
        [float(np.linalg.norm(poses[j, :3, 3] - poses[i, :3, 3])) for poses in (seen, known)]
        for i, j in combinations(range(len(seen)), 2)]
    return [
        of_poses / of_views for of_views, of_poses in distances
        if of_views > LEAST_BASELINE * depth and of_poses > 0.0]


def _cost(guess: Array, seen: Array, known: Array, depth: float) -> float:
    """Return how badly views fit, a share of their number: those far off count alike."""
    placed, scale = guess @ seen, scale_of(guess)
    turns = Rotation.from_matrix(
        placed[:, :3, :3].transpose(0, 2, 1) / scale @ known[:, :3, :3]).magnitude()
    shifts = np.linalg.norm(placed[:, :3, 3] - known[:, :3, 3], axis=1)
    squares = (turns / REACH_RAD) ** 2 + (shifts / (REACH_SHARE * depth * scale)) ** 2
    return float((squares / (1.0 + squares)).mean())
