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

"""The accumulated map: one averaged, coloured point a voxel, bounded in size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.config import MapConfig

# 21 bits an axis: a million voxels each way from the origin.
AXIS_BITS = 21
AXIS_OFFSET = 1 << (AXIS_BITS - 1)

# A point that all other views contradict still counts where nothing better is known.
MIN_WEIGHT = np.float32(1e-3)

VOXEL = np.dtype([
    ('key', np.int64),
    ('xyz', np.float32, 3),
    ('rgb', np.float32, 3),
    ('weight', np.float32),
    ('views', np.int32),
    ('last_seen', np.int64),
])


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points ``xyz`` (N,3) float32 metres with colours ``rgb`` (N,3) uint8."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.xyz)


class VoxelMap:
    """
    Averages the points of all keyframes, weighted by confidence, in voxels sorted by key.

    An insertion is one sort of the new points and one merge; the result does not depend on the
    order of the points within a keyframe. Beyond ``max_points`` the voxels seen least recently go.
    """

    def __init__(self, config: MapConfig) -> None:
        self._config = config
        self._voxels = np.empty(0, VOXEL)

    def __len__(self) -> int:
        return len(self._voxels)

    def clear(self) -> None:
        """Forget everything."""
        self._voxels = np.empty(0, VOXEL)

    def insert(
        self,
        keyframe_id: int,
        cloud: PointCloud,
        weight: NDArray[np.float32],
    ) -> None:
        """Add the points that one keyframe saw, in the map frame, with weights (N,) in [0,1]."""
        if len(cloud) == 0:
            return
        fresh = self._average(keyframe_id, cloud, np.maximum(weight, MIN_WEIGHT))
        index = np.searchsorted(self._voxels['key'], fresh['key'])
        known = np.zeros(len(fresh), bool)
        inside = index < len(self._voxels)
        known[inside] = self._voxels['key'][index[inside]] == fresh['key'][inside]
        self._merge(index[known], fresh[known])
        self._voxels = np.insert(self._voxels, index[~known], fresh[~known])
        self._bound()

    def points(self) -> PointCloud:
        """Return the map: the voxels that at least ``min_views`` keyframes saw."""
        seen = self._voxels[self._voxels['views'] >= self._config.min_views]
        return PointCloud(
            np.ascontiguousarray(seen['xyz']), np.rint(seen['rgb']).astype(np.uint8))

    def _average(
        self, keyframe_id: int, cloud: PointCloud, weight: NDArray[np.float32]
    ) -> NDArray[np.void]:
        """Return one voxel for all points of the keyframe that fall in it."""
        cell = np.floor(cloud.xyz / self._config.voxel_m)
        inside = (np.abs(cell) < AXIS_OFFSET).all(axis=1)  # false for nan, too
        xyz, rgb, weight = cloud.xyz[inside], cloud.rgb[inside], weight[inside]
        cell = cell[inside].astype(np.int64) + AXIS_OFFSET
        key = (cell[:, 0] << 2 * AXIS_BITS) | (cell[:, 1] << AXIS_BITS) | cell[:, 2]
        unique, group = np.unique(key, return_inverse=True)
        total = np.bincount(group, weight)
        voxels = np.empty(len(unique), VOXEL)
        voxels['key'] = unique
        voxels['weight'] = total
        for axis in range(3):
            voxels['xyz'][:, axis] = np.bincount(group, weight * xyz[:, axis]) / total
            voxels['rgb'][:, axis] = np.bincount(group, weight * rgb[:, axis]) / total
        voxels['views'] = 1
        voxels['last_seen'] = keyframe_id
        return voxels

    def _merge(self, index: NDArray[np.int64], fresh: NDArray[np.void]) -> None:
        known = self._voxels[index]
        weight = known['weight'] + fresh['weight']
        share = (fresh['weight'] / weight)[:, None]
        known['xyz'] += share * (fresh['xyz'] - known['xyz'])
        known['rgb'] += share * (fresh['rgb'] - known['rgb'])
        known['weight'] = weight
        known['views'] += 1
        known['last_seen'] = fresh['last_seen']
        self._voxels[index] = known

    def _bound(self) -> None:
        excess = len(self._voxels) - self._config.max_points
        if excess > 0:
            oldest_first = np.lexsort((self._voxels['key'], self._voxels['last_seen']))
            self._voxels = np.delete(self._voxels, oldest_first[:excess])
