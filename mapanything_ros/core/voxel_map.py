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

"""The accumulated map: kept per keyframe, shown as one averaged, coloured point a voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
import torch

from mapanything_ros.core.config import MapConfig
from mapanything_ros.core.datatypes import Array, Prediction
from mapanything_ros.core.keyframe_points import KeyframePoints, reduce_view
from mapanything_ros.core.voxel_blocks import VoxelBlocks
from mapanything_ros.core.voxels import voxel_means

# Points of keyframes that are kept for each voxel that the map may have.
POINTS_PER_VOXEL = 8


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points ``xyz`` (N,3) float32 metres with colours ``rgb`` (N,3) uint8."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True, eq=False)
class _Placed:
    points: KeyframePoints
    map_from_camera: Array

    @property
    def camera(self) -> Array:
        return self.map_from_camera[:3, 3]


class VoxelMap:
    """
    Averages the points of all keyframes, weighted by confidence, in voxels.

    The voxels follow from the keyframes and their poses alone, to the bit, whatever the way there.
    At most ``max_points`` voxels, and 8 times as many points of keyframes, are kept: beyond that
    the oldest keyframes go. With ``radius_m`` keyframes go that show nothing within it from the
    newest camera. ``len`` is the number of voxels.
    """

    def __init__(self, config: MapConfig) -> None:
        self._config = config
        self._keyframes: dict[int, _Placed] = {}  # oldest first
        self._blocks = VoxelBlocks()
        self._points = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def clear(self) -> None:
        """Forget everything."""
        self._keyframes.clear()
        self._blocks.clear()
        self._points = 0

    def insert(self, view: Prediction, map_from_camera: Array) -> None:
        """Add what a keyframe shows, in place of what it showed before."""
        if view.keyframe_id in self._keyframes:
            self._drop(view.keyframe_id)
        config = self._config
        points = reduce_view(view, config.voxel_m, config.radius_m, config.max_points)
        placed = _Placed(points, map_from_camera)
        self._keyframes[view.keyframe_id] = placed
        self._points += len(points)
        self._blocks.add(*self._sums(placed))
        self._bound()

    def repose(self, poses: Mapping[int, Array]) -> None:
        """
        Move keyframes, by id, to where ``map_from_camera`` (4,4) says; others stay.

        The map is then the one that its keyframes would have made at these poses. Keyframes that
        it does not hold (any more) are passed over.
        """
        moved = {
            number: _Placed(self._keyframes[number].points, pose)
            for number, pose in poses.items() if number in self._keyframes
            and not np.array_equal(pose, self._keyframes[number].map_from_camera)}
        if 2 * sum(len(placed.points) for placed in moved.values()) > self._points:
            # Quicker than to remove the most of it.
            self._keyframes.update(moved)
            self._blocks.clear()
            for placed in self._keyframes.values():
                self._blocks.add(*self._sums(placed))
        else:
            for number, placed in moved.items():
                self._blocks.remove(*self._sums(self._keyframes[number]))
                self._keyframes[number] = placed
                self._blocks.add(*self._sums(placed))
        self._bound()

    def points(self) -> PointCloud:
        """Return the map: the voxels that at least ``min_views`` keyframes saw."""
        return self._shown(self._blocks.voxels())

    def updates(self) -> PointCloud:
        """Return what came or changed in the map since the last call; what went is not told."""
        return self._shown(self._blocks.take_changed())

    def _shown(self, voxels: NDArray[np.void]) -> PointCloud:
        seen = voxels[voxels['views'] >= self._config.min_views]
        xyz, rgb = (tensor.numpy() for tensor in voxel_means(
            torch.from_numpy(seen['key'].copy()), torch.from_numpy(seen['sums'].copy()),
            self._config.voxel_m))
        if self._config.radius_m and len(xyz):
            near = np.linalg.norm(xyz - self._newest().camera, axis=1) <= self._config.radius_m
            xyz, rgb = xyz[near], rgb[near]
        return PointCloud(xyz, rgb)

    def _sums(self, placed: _Placed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return placed.points.voxel_sums(placed.map_from_camera, self._config.voxel_m)

    def _newest(self) -> _Placed:
        return self._keyframes[next(reversed(self._keyframes))]

    def _drop(self, number: int) -> None:
        placed = self._keyframes.pop(number)
        self._points -= len(placed.points)
        self._blocks.remove(*self._sums(placed))

    def _bound(self) -> None:
        for number in self._out_of_reach():
            self._drop(number)
        limit = self._config.max_points
        while len(self._blocks) > limit or self._points > POINTS_PER_VOXEL * limit:
            self._drop(next(iter(self._keyframes)))

    def _out_of_reach(self) -> list[int]:
        radius_m = self._config.radius_m
        if not radius_m or not self._keyframes:
            return []
        kept = self._keyframes.values()
        cameras = np.array([placed.camera for placed in kept])
        nearest_m = np.linalg.norm(cameras - self._newest().camera, axis=1) - [
            placed.points.reach_m for placed in kept]
        return [
            number for number, near_m in zip(self._keyframes, nearest_m, strict=True)
            if near_m > radius_m]
