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

"""Checks by geometry that two pictures show the same place, and says how the cameras stood."""

from __future__ import annotations

from dataclasses import dataclass
import math

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mapanything_ros.core.backends.colmap.features import match
from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.places.local_features import LocalFeatures

# A point fits where it reprojects this close, as a share of the picture's width.
MAX_REPROJECTION = 0.008
# Fitting points must lie in so many of the 4 x 4 tiles of both pictures.
GRID, MIN_TILES = 4, 5
# Poses from either picture's depth must agree to this, and to this share of the depth.
MAX_TURN_DEG, MAX_SHIFT = 5.0, 0.15
# How much the ratio of the two depths may vary from point to point.
MAX_SPREAD = 0.1
# The standard deviation of a median over that of normal samples, from their median deviation.
MEDIAN_SIGMA = math.sqrt(math.pi / 2) / 0.6745
# What no match is surer of, as a share of the depth and in radians.
SHIFT_FLOOR, TURN_FLOOR = 0.01, 0.005


class LoopRefusedError(Exception):
    """Two pictures do not show the same place, for the ``reason`` given in one word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Match:
    """
    How the camera of the newer picture stood in that of the older one, and how sure that is.

    ``older_from_newer`` (4,4) is rigid, in the unit of the older depth; ``scale`` is the newer
    depth over the older. ``sigma_m`` and ``sigma_rad`` are standard deviations by axis,
    ``sigma_scale`` that of the scale's logarithm; ``inliers`` points of both pictures fit.
    """

    older_from_newer: Array
    sigma_m: float
    sigma_rad: float
    scale: float
    sigma_scale: float
    inliers: int


def verify(older: LocalFeatures, newer: LocalFeatures, min_inliers: int) -> Match:
    """
    Return the relative pose of two pictures of the same place.

    The older picture's points are seen by the newer camera (PnP), and the other way round; both
    must say the same, whatever the scale between them. Raises LoopRefusedError otherwise.
    """
    pairs = match(older.unit_descriptors(), newer.unit_descriptors())
    a, b = pairs.T
    newer_from_older, _, fit = _pose(older.points_m[a], newer, b, min_inliers)
    a, b = a[fit], b[fit]
    older_from_newer, sigmas, fit = _pose(newer.points_m[b], older, a, min_inliers)
    a, b = a[fit], b[fit]
    tiles = min(_tiles(older.pixels[a], older.size), _tiles(newer.pixels[b], newer.size))
    if tiles < MIN_TILES:
        raise LoopRefusedError('spread')
    scale, spread = _scale(newer_from_older, older.points_m[a], newer.points_m[b])
    if spread > MAX_SPREAD:
        raise LoopRefusedError('scale')
    forward = np.linalg.inv(newer_from_older)
    # The newer depth's unit gives way to the older one's.
    backward = older_from_newer[:3, 3] / scale
    turn = Rotation.from_matrix(forward[:3, :3].T @ older_from_newer[:3, :3])
    shift_m = float(np.linalg.norm(forward[:3, 3] - backward))
    depth_m = float(np.median(older.points_m[a, 2]))
    if turn.magnitude() > math.radians(MAX_TURN_DEG) or shift_m > MAX_SHIFT * depth_m:
        raise LoopRefusedError('directions')
    between = np.eye(4)
    half = Rotation.from_rotvec(turn.as_rotvec() / 2)
    between[:3, :3] = forward[:3, :3] @ half.as_matrix()
    between[:3, 3] = (forward[:3, 3] + backward) / 2
    return Match(
        between,
        sigma_m=max(sigmas[1] / scale, shift_m / 2, SHIFT_FLOOR * depth_m),
        sigma_rad=max(sigmas[0], float(turn.magnitude()) / 2, TURN_FLOOR),
        scale=scale,
        # Depths that are near each other err together: a tile counts as one.
        sigma_scale=max(MEDIAN_SIGMA * spread / math.sqrt(tiles), SHIFT_FLOOR),
        inliers=len(a))


def _pose(
    points_m: NDArray[np.float32], seen: LocalFeatures, index: NDArray[np.uint32],
    min_inliers: int,
) -> tuple[Array, tuple[float, float], NDArray[np.int64]]:
    """
    Return where the picture that sees the points was taken: ``camera_from_points`` (4,4).

    With it come its standard deviations by axis (radians, metres), and which points fit (K,).
    """
    if len(index) < min_inliers:
        raise LoopRefusedError('matches')
    pixels = seen.pixels[index].astype(float)
    points = points_m.astype(float)
    found, turn, shift, fit = cv2.solvePnPRansac(
        points, pixels, seen.intrinsics, None, flags=cv2.SOLVEPNP_AP3P, iterationsCount=300,
        reprojectionError=MAX_REPROJECTION * seen.size[0], confidence=0.999)
    if not found or len(fit) < min_inliers:
        raise LoopRefusedError('geometry')
    kept: NDArray[np.int64] = fit[:, 0].astype(np.int64)
    turn, shift = cv2.solvePnPRefineLM(
        points[kept], pixels[kept], seen.intrinsics, None, turn, shift)
    camera_from_points = np.eye(4)
    camera_from_points[:3, :3] = Rotation.from_rotvec(turn[:, 0]).as_matrix()
    camera_from_points[:3, 3] = shift[:, 0]
    expected, slopes = cv2.projectPoints(points[kept], turn, shift, seen.intrinsics, None)
    errors = expected[:, 0] - pixels[kept]
    freedom = max(errors.size - 6, 1)
    covariance = np.linalg.pinv(slopes[:, :6].T @ slopes[:, :6]) * (errors ** 2).sum() / freedom
    # One figure for all axes has to cover the worst.
    turn_variance, shift_variance = (
        np.linalg.eigvalsh(block)[-1] for block in (covariance[:3, :3], covariance[3:, 3:]))
    return camera_from_points, (math.sqrt(turn_variance), math.sqrt(shift_variance)), kept


def _tiles(pixels: NDArray[np.float32], size: tuple[int, int]) -> int:
    """Return how many tiles of the picture have points."""
    column, row = np.clip(pixels * (GRID / np.array(size)), 0, GRID - 1).astype(int).T
    return len(np.unique(row * GRID + column))


def _scale(
    newer_from_older: Array, older_m: NDArray[np.float32], newer_m: NDArray[np.float32],
) -> tuple[float, float]:
    """Return the newer depth of points over the older, and its logarithm's median deviation."""
    expected = older_m @ newer_from_older[2, :3] + newer_from_older[2, 3]
    ratios = np.log(np.maximum(newer_m[:, 2] / np.maximum(expected, 1e-6), 1e-6))
    middle = float(np.median(ratios))
    return math.exp(middle), float(np.median(np.abs(ratios - middle)))
