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

"""How far a world's own truth contradicts itself: its depth, and points seen from its poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math

import cv2
import numpy as np

from benchmarks.evaluate.worlds import World
from mapanything_ros.core.datatypes import Array

# Every so many images one is compared with the next that is this share of the median depth away.
EVERY = 3
BASELINE_SHARE = 0.1
# Lowe's ratio; how near its epipolar line a point must be; and rays that meet more flatly than
# this tell no depth.
RATIO = 0.8
EPIPOLAR_PX = 1.0
MIN_ANGLE_DEG = 2.0
# Depth differs by less than this among a pixel's neighbours where it is compared.
FLAT = 0.05


@dataclass(frozen=True)
class TruthError:
    """
    The median of a world's depth over that of points seen from its true poses, less 1.

    ``spread`` is the median deviation from that, of so many ``points``; both nan without any.
    """

    share: float
    spread: float
    points: int

    def __str__(self) -> str:
        return (f'depth is {self.share:+.1%} off from its own poses (median of {self.points} '
                f'triangulated points, deviation {self.spread:.1%})')


def truth_error(place: World) -> TruthError:
    """Triangulate SIFT features between true poses, and compare with the depth there."""
    ratios = np.concatenate([np.empty(0), *_ratios(place)])
    if not len(ratios):
        return TruthError(math.nan, math.nan, 0)
    share = float(np.median(ratios)) - 1
    return TruthError(share, float(np.median(np.abs(ratios - 1 - share))), len(ratios))


def _ratios(place: World) -> Iterator[Array]:
    """Give, for each pair of images, depth over triangulated depth (N,) of points in the first."""
    sift = cv2.SIFT_create()
    matcher = cv2.BFMatcher()
    for first in range(0, len(place), EVERY):
        rgb, depth_m = place.render(first)
        away_m = np.linalg.norm(
            place.world_from_camera[first:, :3, 3] - place.world_from_camera[first, :3, 3], axis=1)
        far = np.flatnonzero(away_m >= BASELINE_SHARE * np.median(depth_m[depth_m > 0]))
        if not len(far):
            continue
        second = first + int(far[0])
        found = [sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
                 for image in (rgb, place.render(second)[0])]
        if any(descriptors is None or len(descriptors) < 2 for _, descriptors in found):
            continue
        good = [best for best, next_best in matcher.knnMatch(found[0][1], found[1][1], k=2)
                if best.distance < RATIO * next_best.distance]
        if not good:
            continue
        here_px = np.array([found[0][0][match.queryIdx].pt for match in good])
        there_px = np.array([found[1][0][match.trainIdx].pt for match in good])
        yield _compared(place, depth_m, here_px, there_px, first, second)


def _compared(
    place: World, depth_m: Array, here_px: Array, there_px: Array, first: int, second: int,
) -> Array:
    k = place.intrinsics
    there_from_here = np.linalg.inv(
        place.world_from_camera[second]) @ place.world_from_camera[first]
    homogeneous = cv2.triangulatePoints(
        k @ np.eye(3, 4), k @ there_from_here[:3], here_px.T, there_px.T)
    points = (homogeneous[:3] / homogeneous[3]).T
    seen = points @ there_from_here[:3, :3].T + there_from_here[:3, 3]
    # From the second camera to the point, and from the first, in the first one's axes.
    other = points - np.linalg.inv(there_from_here)[:3, 3]
    cosine = (points * other).sum(axis=1) / (
        np.linalg.norm(points, axis=1) * np.linalg.norm(other, axis=1))
    off_px = np.maximum(_distances_px(points, here_px, k), _distances_px(seen, there_px, k))
    column, row = np.round(here_px).astype(int).T
    flat = cv2.dilate(depth_m, np.ones((3, 3))) - cv2.erode(depth_m, np.ones((3, 3)))
    depth = depth_m[row, column]
    kept = (
        (points[:, 2] > 0) & (seen[:, 2] > 0) & (off_px < EPIPOLAR_PX)
        & (cosine < np.cos(np.radians(MIN_ANGLE_DEG)))
        & (depth > 0) & (flat[row, column] < FLAT * depth))
    return np.asarray(depth[kept] / points[kept, 2], float)


def _distances_px(points: Array, pixels: Array, k: Array) -> Array:
    projected = points @ k.T
    return np.asarray(
        np.linalg.norm(projected[:, :2] / projected[:, 2:] - pixels, axis=1))
