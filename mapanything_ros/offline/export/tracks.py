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

"""Points that several keyframes see, each measured in the pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.offline.export.views import back_projected, inverse, moved, projected, visible
from mapanything_ros.offline.keyframe_store import KeyframeRecord

# Corners that a keyframe may add, and how far apart they are.
CORNERS = 400
SPACING_PX = 7
# Later keyframes in which a corner is looked for.
REACH = 12
# Relative difference of depth that is the same surface, and what a corner's surroundings may span.
SAME_DEPTH = 0.05
FLAT_DEPTH = 0.02
# How far from where geometry has it a corner may be found.
MAX_SHIFT_PX = 4.0
MAX_DIFFERENCE = 12.0
PATCH_PX = 21


@dataclass(eq=False)
class Track:
    """
    A point (3,) of the map, its colour, and where keyframes saw it.

    ``pixels`` are (keyframe id, (2,) pixel with centres at integers).
    """

    rgb: NDArray[np.uint8]
    pixels: list[tuple[int, Array]] = field(default_factory=list)
    points: list[Array] = field(default_factory=list)

    @property
    def point(self) -> Array:
        """Return the mean of what the depth of all keyframes says of it."""
        return np.mean(self.points, axis=0)


@dataclass(frozen=True, eq=False)
class _Source:
    """A keyframe whose corners are looked for in those that follow."""

    gray: NDArray[np.uint8]
    tracks: list[Track]

    def pixels(self) -> Array:
        return np.array([track.pixels[0][1] for track in self.tracks])

    def points(self) -> Array:
        return np.array([track.points[0] for track in self.tracks])


def find_tracks(records: Iterable[KeyframeRecord]) -> list[Track]:
    """
    Return the corners of the pictures that at least two keyframes see.

    A corner starts where its picture has depth that is no edge. Poses and depth say where it must
    be in the keyframes after that; there, optical flow measures it.
    """
    tracks: list[Track] = []
    recent: list[_Source] = []
    for record in records:
        gray = np.asarray(cv2.cvtColor(record.rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        # Optical flow knows no change of scale.
        taken = [_follow(source, record, gray) for source in recent
                 if source.gray.shape == gray.shape]
        source = _Source(gray, _start(record, gray, np.concatenate([np.zeros((0, 2)), *taken])))
        tracks += source.tracks
        if source.tracks:
            recent = [*recent[1 - REACH:], source]
    return [track for track in tracks if len(track.pixels) > 1]


def _follow(source: _Source, record: KeyframeRecord, gray: NDArray[np.uint8]) -> Array:
    """Find a source's corners in a keyframe, add that to their tracks, return the (N,2) pixels."""
    points = moved(inverse(record.map_from_camera), source.points())
    expected = projected(points, record.intrinsics)
    seen = np.flatnonzero(visible(record, points, expected, SAME_DEPTH))
    if not len(seen):
        return np.zeros((0, 2))
    guess = expected[seen].astype(np.float32)
    found, good, difference = cv2.calcOpticalFlowPyrLK(
        source.gray, gray, source.pixels()[seen].astype(np.float32), guess.copy(),
        winSize=(PATCH_PX, PATCH_PX), maxLevel=0, flags=cv2.OPTFLOW_USE_INITIAL_FLOW)
    kept = (
        (good.ravel() > 0) & (difference.ravel() < MAX_DIFFERENCE)
        & (np.linalg.norm(found - guess, axis=1) < MAX_SHIFT_PX))
    pixels, seen = found[kept].astype(np.float64), seen[kept]
    depth_m = _depth_at(record, pixels)
    here = moved(
        record.map_from_camera, back_projected(pixels, depth_m, record.intrinsics))
    for index, pixel, point in zip(seen, pixels, here, strict=True):
        if np.isfinite(point).all():
            source.tracks[index].pixels.append((record.id, pixel))
            source.tracks[index].points.append(point)
    return pixels


def _start(record: KeyframeRecord, gray: NDArray[np.uint8], taken: Array) -> list[Track]:
    """Return tracks that start at a keyframe's corners, apart from the (N,2) pixels taken."""
    free = _flat(record.depth_m)
    for x, y in np.rint(taken).astype(int):
        cv2.circle(free, (int(x), int(y)), SPACING_PX, 0, cv2.FILLED)
    corners = cv2.goodFeaturesToTrack(gray, CORNERS, 0.01, SPACING_PX, mask=free)
    if corners is None:
        return []
    pixels = corners.reshape(-1, 2).astype(np.float64)
    points = moved(record.map_from_camera, back_projected(
        pixels, _depth_at(record, pixels), record.intrinsics))
    column, row = np.rint(pixels).astype(int).T
    return [
        Track(rgb, [(record.id, pixel)], [point])
        for rgb, pixel, point in zip(record.rgb[row, column], pixels, points, strict=True)]


def _depth_at(record: KeyframeRecord, pixels: Array) -> Array:
    """Return the depth (N,) at the nearest pixels, nan outside of the picture."""
    height, width = record.depth_m.shape
    column, row = np.rint(pixels).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    depth_m = np.full(len(pixels), np.nan)
    depth_m[inside] = record.depth_m[row[inside], column[inside]]
    return depth_m


def _flat(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 255 where the 5x5 pixels around have depth of one surface, 0 elsewhere."""
    known = np.nan_to_num(depth_m, nan=0.0)
    square = np.ones((5, 5), np.uint8)
    nearest, farthest = cv2.erode(known, square), cv2.dilate(known, square)
    flat = (nearest > 0) & (farthest - nearest < FLAT_DEPTH * farthest)
    return np.where(flat, 255, 0).astype(np.uint8)
