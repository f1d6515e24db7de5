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

"""Cleans a finished cloud: outliers, voxel size, normals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import to_open3d
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.export.views import camera_points, moved
from mapanything_ros.offline.keyframe_store import KeyframeStore

NEIGHBOURS = 20
# Points of keyframes that say from where a surface was seen.
MAX_SIGHTS = 1_000_000


def without_outliers(cloud: PointCloud, deviations: float = 2.0) -> PointCloud:
    """
    Return the cloud without points that lie apart from their neighbours.

    A point goes when its mean distance to its 20 nearest neighbours is more than ``deviations``
    standard deviations above the mean of all points (Open3D's statistical outlier removal).
    """
    if len(cloud) <= NEIGHBOURS:
        return cloud
    _, kept = to_open3d(cloud).remove_statistical_outlier(NEIGHBOURS, deviations)
    index = np.asarray(kept, dtype=np.int64)
    return PointCloud(cloud.xyz[index], cloud.rgb[index])


def at_voxel_size(cloud: PointCloud, voxel_m: float) -> PointCloud:
    """Return one point, the mean, for each voxel of this size that has any."""
    thinned = to_open3d(cloud).voxel_down_sample(voxel_m)
    return PointCloud(
        np.asarray(thinned.points).astype(np.float32),
        np.rint(np.asarray(thinned.colors) * 255).astype(np.uint8))


def oriented_normals(cloud: PointCloud, keyframes: KeyframeStore) -> Array:
    """
    Return unit normals (N,3) that point to where the surface was seen from.

    The direction is that of the plane through a point's 20 nearest neighbours; its side is that
    of the camera which saw the nearest pixel of all keyframes.
    """
    if not len(cloud):
        return np.zeros((0, 3))
    points = to_open3d(cloud)
    from open3d.geometry import KDTreeSearchParamKNN
    points.estimate_normals(KDTreeSearchParamKNN(NEIGHBOURS))
    normals = np.asarray(points.normals)
    away = np.einsum('ni,ni->n', normals, _cameras(cloud, keyframes) - cloud.xyz) < 0
    normals[away] *= -1
    return normals


def _cameras(cloud: PointCloud, keyframes: KeyframeStore) -> Array:
    """Return for each point the (N,3) position of the camera that saw what is nearest to it."""
    seen: list[NDArray[np.float32]] = []
    owners: list[NDArray[np.int64]] = []
    positions: list[Array] = []
    share = MAX_SIGHTS // max(1, len(keyframes))
    for record in keyframes:
        points = camera_points(record, at_most=max(1, share))[0]
        seen.append(moved(record.map_from_camera, points).astype(np.float32))
        owners.append(np.full(len(points), len(positions)))
        positions.append(record.map_from_camera[:3, 3])
    sights = np.concatenate(seen) if seen else np.zeros((0, 3), np.float32)
    if not len(sights):
        raise ExportError('no keyframe has depth, so nothing tells which way the normals point')
    nearest = cKDTree(sights).query(cloud.xyz, workers=-1)[1]
    return np.array(positions)[np.concatenate(owners)[nearest]]
