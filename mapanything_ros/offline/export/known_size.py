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

"""The true size of a map, from two picked points or a tag of known size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array, Scale
from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.export.views import back_projected
from mapanything_ros.offline.keyframe_store import KeyframeRecord

TAG_FAMILIES = {
    'tag16h5': cv2.aruco.DICT_APRILTAG_16h5, 'tag25h9': cv2.aruco.DICT_APRILTAG_25h9,
    'tag36h10': cv2.aruco.DICT_APRILTAG_36h10, 'tag36h11': cv2.aruco.DICT_APRILTAG_36h11,
    'aruco4x4': cv2.aruco.DICT_4X4_1000, 'aruco5x5': cv2.aruco.DICT_5X5_1000,
    'aruco6x6': cv2.aruco.DICT_6X6_1000, 'aruco7x7': cv2.aruco.DICT_7X7_1000,
    'aruco': cv2.aruco.DICT_ARUCO_ORIGINAL,
}
USAGE = (
    'x,y,z,x,y,z=LENGTH (two points of the map and their distance in metres) or FAMILY:ID=SIZE '
    f'(a tag, the side of its black square in metres; families: {", ".join(TAG_FAMILIES)})')
# A tag that is smaller, or has less depth, measures nothing; nor one whose sides differ more.
MIN_SIDE_PX = 12.0
MIN_DEPTHS = 20
MAX_UNEVEN = 0.15
# Depth of the tag that is off its plane by more than this, relative, does not count.
OFF_PLANE = 0.02


@dataclass(frozen=True)
class PointsReference:
    """Two points (x, y, z) of the map and how far apart they truly are."""

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    length_m: float


@dataclass(frozen=True)
class TagReference:
    """A square tag, ``size_m`` along the sides of its black square."""

    family: str
    id: int
    size_m: float


def parse_reference(text: str) -> PointsReference | TagReference:
    """Read what --scale-reference takes; raise InputError with the usage where it is wrong."""
    what, _, size = text.rpartition('=')
    family, _, number = what.partition(':')
    try:
        size_m = float(size)
        if not 0 < size_m < np.inf:
            raise ValueError
        if family in TAG_FAMILIES:
            return TagReference(family, int(number), size_m)
        x, y, z, u, v, w = (float(part) for part in what.split(','))
        if not np.isfinite([x, y, z, u, v, w]).all():
            raise ValueError
    except ValueError:
        raise InputError(f'{text!r} is no scale reference: give {USAGE}') from None
    return PointsReference((x, y, z), (u, v, w), size_m)


def measure_scale(
    reference: PointsReference | TagReference, keyframes: Iterable[KeyframeRecord],
) -> Scale:
    """
    Return by which factor all lengths of the map must be multiplied.

    A tag is measured in each keyframe that shows it, by the depth on its square; the factor is
    the median, the residual their relative spread. Raises InputError where nothing is measured.
    """
    if isinstance(reference, PointsReference):
        length = float(np.linalg.norm(np.subtract(reference.second, reference.first)))
        if length == 0:
            raise InputError('the two points of the scale reference are the same')
        return Scale('points', reference.length_m / length)
    detector = _Detector(reference)
    seen = [size for record in keyframes for size in detector.sizes(record)]
    if not seen:
        raise InputError(
            f'no keyframe shows the tag {reference.family}:{reference.id} large, whole and with '
            'depth: check family and id, or bring the camera nearer')
    factors = reference.size_m / np.array(seen)
    factor = float(np.median(factors))
    return Scale('tag', factor, float(np.median(np.abs(factors - factor))) / factor)


class _Detector:
    """Measures a tag in keyframes, with the OpenCV that there is."""

    def __init__(self, reference: TagReference) -> None:
        self._id = reference.id
        kind = TAG_FAMILIES[reference.family]
        aruco: Any = cv2.aruco
        self._detect: Any
        if hasattr(aruco, 'ArucoDetector'):  # OpenCV 4.7 and later
            parameters = aruco.DetectorParameters()
            parameters.cornerRefinementMethod = aruco.CORNER_REFINE_SUBPIX
            self._detect = aruco.ArucoDetector(
                aruco.getPredefinedDictionary(kind), parameters).detectMarkers
        else:
            parameters = aruco.DetectorParameters_create()
            parameters.cornerRefinementMethod = aruco.CORNER_REFINE_SUBPIX
            self._detect = partial(
                aruco.detectMarkers, dictionary=aruco.Dictionary_get(kind), parameters=parameters)

    def sizes(self, record: KeyframeRecord) -> list[float]:
        """Return the lengths of the tag's sides, a mean for each time that it is seen whole."""
        corners, ids, _ = self._detect(cv2.cvtColor(record.rgb, cv2.COLOR_RGB2GRAY))
        if ids is None:
            return []
        found = [
            _size(record, square.reshape(4, 2).astype(np.float64))
            for square, number in zip(corners, ids.ravel(), strict=True) if number == self._id]
        return [size for size in found if size is not None]


def _size(record: KeyframeRecord, corners: Array) -> float | None:
    """Return the mean side of the square with these (4,2) corners, None where that is no good."""
    sides_px = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    if sides_px.min() < MIN_SIDE_PX:
        return None
    inside = np.zeros(record.depth_m.shape, np.uint8)
    cv2.fillConvexPoly(inside, np.rint(corners).astype(np.int32), 1)
    plane = _plane(record, inside > 0)
    if plane is None:
        return None
    rays = back_projected(corners, np.ones(4), record.intrinsics)
    square = rays / (rays @ plane)[:, None]
    sides = np.linalg.norm(square - np.roll(square, 1, axis=0), axis=1)
    return float(sides.mean()) if np.ptp(sides) < MAX_UNEVEN * sides.mean() else None


def _plane(record: KeyframeRecord, where: NDArray[np.bool_]) -> Array | None:
    """
    Return (3,) p of the plane p . x = 1 through the depth there, None where there is too little.

    Inverse depth is linear in the pixels of a plane; what is far from it is left out.
    """
    row, column = np.nonzero(where & np.isfinite(record.depth_m))
    depth_m = record.depth_m[row, column].astype(np.float64)
    pixels = np.stack([column, row], axis=1).astype(np.float64)
    rays = back_projected(pixels, np.ones(len(pixels)), record.intrinsics)
    kept = np.ones(len(rays), np.bool_)
    plane: Any = None
    for _ in range(5):
        if kept.sum() < MIN_DEPTHS:
            return None
        plane = np.linalg.lstsq(rays[kept], 1 / depth_m[kept], rcond=None)[0]
        error = np.abs(rays @ plane * depth_m - 1)
        kept = error < max(OFF_PLANE, 2 * float(np.median(error)))
    return plane
