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

"""Between a keyframe's pixels and points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.offline.keyframe_store import KeyframeRecord


def camera_points(
    record: KeyframeRecord, at_most: int | None = None,
) -> tuple[Array, NDArray[np.uint8]]:
    """
    Return (N,3) points in the camera and (N,3) colours of the pixels that have depth.

    ``at_most`` takes evenly spread ones of them.
    """
    row, column = np.nonzero(np.isfinite(record.depth_m))
    if at_most is not None and len(row) > at_most:
        chosen = np.linspace(0, len(row) - 1, at_most).astype(np.int64)
        row, column = row[chosen], column[chosen]
    pixels = np.stack([column, row], axis=1).astype(np.float64)
    depth_m = record.depth_m[row, column].astype(np.float64)
    return back_projected(pixels, depth_m, record.intrinsics), record.rgb[row, column]


def back_projected(pixels: Array, depth_m: Array, intrinsics: Array) -> Array:
    """Return the (N,3) points in the camera of (N,2) pixels, centres at integers."""
    k = intrinsics
    rays = (pixels - (k[0, 2], k[1, 2])) / (k[0, 0], k[1, 1])
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth_m[:, None]


def projected(points: Array, intrinsics: Array) -> Array:
    """Return the (N,2) pixels of (N,3) points in the camera; those behind it are meaningless."""
    z = np.where(points[:, 2] > 0, points[:, 2], np.nan)
    k = intrinsics
    return points[:, :2] / z[:, None] * (k[0, 0], k[1, 1]) + (k[0, 2], k[1, 2])


def moved(target_from_source: Array, points: Array) -> Array:
    """Return (N,3) points in the target frame."""
    return points @ target_from_source[:3, :3].T + target_from_source[:3, 3]


def inverse(target_from_source: Array) -> Array:
    """Return ``source_from_target`` of a rigid (4,4) transform."""
    rotation = target_from_source[:3, :3].T
    result = np.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] = -rotation @ target_from_source[:3, 3]
    return result


def visible(
    record: KeyframeRecord, points: Array, pixels: Array, tolerance: float,
) -> NDArray[np.bool_]:
    """
    Say which (N,3) points in the camera are what the keyframe sees at their (N,2) pixels.

    ``tolerance`` is the relative difference of depth that is still the same surface.
    """
    height, width = record.depth_m.shape
    nearest = np.rint(np.nan_to_num(pixels, nan=-1.0, posinf=-1.0, neginf=-1.0))
    inside = ((nearest >= 0) & (nearest < (width, height))).all(axis=1)
    found = np.zeros(len(points), np.bool_)
    column, row = nearest[inside].astype(np.int64).T
    difference = np.abs(record.depth_m[row, column] - points[inside, 2])
    found[inside] = difference < tolerance * points[inside, 2]
    return found
