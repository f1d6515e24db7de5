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

"""Keyframes of rendered rooms on disk, with exact depth and poses."""

from __future__ import annotations

from pathlib import Path

from helpers import camera_on_path, K, ROOM_M, transformed, view_room
import numpy as np
import scenes

from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore

FIRST_STAMP_NS = 1_700_000_000_000_000_001
STEP_NS = 123_456_789


def box_record(index: int) -> KeyframeRecord:
    """Return what the camera on the path in the box room sees; the map is the world."""
    rgb, depth_m = view_room(camera_on_path(index))
    depth_m[depth_m == 0] = np.nan
    return record(index, rgb, depth_m, K, camera_on_path(index))


def room_record(index: int) -> KeyframeRecord:
    """Return what the camera sees that goes sideways in the furnished room."""
    truth = scenes.look('sideways', index)
    return record(index, truth.rgb, truth.depth_m, scenes.INTRINSICS, truth.world_from_camera)


def record(
    index: int, rgb: np.ndarray, depth_m: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray,
) -> KeyframeRecord:
    depth_m = np.where(depth_m > 0, depth_m, np.nan).astype(np.float32)
    confidence = np.where(np.isfinite(depth_m), 0.9, 0.1).astype(np.float32)
    return KeyframeRecord(
        id=index, stamp_ns=FIRST_STAMP_NS + index * STEP_NS, name=f'{index}.jpg', rgb=rgb,
        intrinsics=intrinsics, depth_m=depth_m, confidence=confidence, map_from_camera=pose)


def store_of(folder: Path, records: list[KeyframeRecord]) -> KeyframeStore:
    store = KeyframeStore(folder)
    for one in records:
        store.add(one)
    return store


def points_of(one: KeyframeRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return the points (N,3) in the map and their colours, pixel by pixel."""
    height, width = one.depth_m.shape
    v, u = np.mgrid[:height, :width]
    k, z = one.intrinsics, one.depth_m
    local = np.stack([(u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z], axis=-1)
    known = np.isfinite(z)
    return transformed(one.map_from_camera, local[known]), one.rgb[known]


def cloud_of(records: list[KeyframeRecord], step: int = 1) -> PointCloud:
    points, colours = zip(*(points_of(one) for one in records), strict=True)
    return PointCloud(
        np.concatenate(points)[::step].astype(np.float32), np.concatenate(colours)[::step])


def inward(points: np.ndarray) -> np.ndarray:
    """Return the normal (N,3), into the box room, of the wall or floor nearest to each point."""
    distance = np.abs(np.concatenate([points, points - ROOM_M], axis=1))
    nearest = distance.argmin(axis=1)
    normals = np.zeros((len(points), 3))
    normals[np.arange(len(points)), nearest % 3] = np.where(nearest < 3, 1.0, -1.0)
    return normals
