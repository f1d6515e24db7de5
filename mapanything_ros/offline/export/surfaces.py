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

"""Surfaces of keyframes, and how well those of two keyframes meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.map.export import to_open3d
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.export.views import camera_points, moved, projected
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore

# Points of a keyframe, and how many keyframes are in memory.
POINTS, CACHED = 4000, 64
# What a residual must fall to, relative: noise moves surfaces, too.
WORTHWHILE = 0.9


class Surfaces:
    """Thinned points of keyframes in their cameras, with normals; a few are kept."""

    def __init__(self, keyframes: KeyframeStore, ids: Sequence[int], voxel_m: float) -> None:
        self._keyframes = keyframes
        self._ids = ids
        self._voxel_m = voxel_m
        self.get = lru_cache(CACHED)(self._make)
        self.record = lru_cache(CACHED)(self._read)

    def __len__(self) -> int:
        return len(self._ids)

    def _read(self, number: int) -> KeyframeRecord:
        return self._keyframes[self._ids[number]]

    def _make(self, number: int) -> Any:
        from open3d.geometry import KDTreeSearchParamKNN
        points, colours = camera_points(self.record(number))
        cloud = to_open3d(PointCloud(points.astype(np.float32), colours))
        thin = cloud.voxel_down_sample(self._voxel_m)
        if len(thin.points) > POINTS:
            thin = thin.select_by_index(
                np.linspace(0, len(thin.points) - 1, POINTS).astype(int).tolist())
        if len(thin.points):
            thin.estimate_normals(KDTreeSearchParamKNN(12))
            thin.orient_normals_towards_camera_location(np.zeros(3))
        return thin


@dataclass(frozen=True, eq=False)
class Match:
    """For motions (M): squared differences (M,N) of surfaces in depth, and of colours."""

    squares: Array
    colours: Array

    @classmethod
    def joined(cls, parts: Sequence[Match]) -> Match:
        """Join the matches of several pairs."""
        return cls(*(
            np.concatenate([getattr(part, name) for part in parts], axis=1)
            for name in ('squares', 'colours')))

    def residuals(self) -> tuple[float, float]:
        """Return the rms distances of the first motion and the second."""
        if not self.squares.size:
            return 0.0, 0.0
        before, after = np.sqrt(self.squares.mean(axis=1))
        return float(before), float(after)

    def improves(self) -> bool:
        """
        Say whether the second motion is clearly better than the first.

        Walls that slide along themselves meet no worse; then, colours do.
        """
        before, after = self.residuals()
        if after >= WORTHWHILE * before:
            return False
        unlike_before, unlike_after = self.colours.mean(axis=1)
        return bool(unlike_after <= unlike_before)


def match(
    clouds: Surfaces, first: int, second: int, motions: Sequence[Array], reach_m: float,
) -> Match:
    """
    Compare the second's points with what the first sees at their pixels.

    Only points count that it sees at each of the motions, and near at one of them: a nearest
    neighbour instead would reward motions to where the first shows something.
    """
    record, source = clouds.record(first), clouds.get(second)
    compared = [_compared(record, moved(motion, np.asarray(source.points)), np.asarray(
        source.colors)) for motion in motions]
    distances, colours = (np.stack(values) for values in zip(*compared, strict=True))
    counts = np.isfinite(distances).all(axis=0) & (distances < reach_m).any(axis=0)
    return Match(np.minimum(distances[:, counts], reach_m) ** 2, colours[:, counts])


def _compared(record: KeyframeRecord, points: Array, colours: Array) -> tuple[Array, Array]:
    """Return differences (N,) in depth and (N,) in colour, nan where the keyframe sees nothing."""
    pixels = projected(points, record.intrinsics)
    distances, differences = np.full((2, len(points)), np.nan)
    height, width = record.depth_m.shape
    inside = np.flatnonzero(
        ((pixels > -0.5) & (pixels < np.array([width, height]) - 0.5)).all(axis=1))
    column, row = np.rint(pixels[inside]).astype(np.int64).T
    distances[inside] = np.abs(record.depth_m[row, column] - points[inside, 2])
    differences[inside] = np.abs(
        record.rgb[row, column] / 255.0 - colours[inside]).mean(axis=1)
    return distances, differences
