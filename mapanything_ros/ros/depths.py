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

"""Depth images, each for the image that was taken at nearly the same time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.camera import Camera
from mapanything_ros.core.frames.reprojection import reproject_depth
from mapanything_ros.ros.conversions import depth_from_image
from mapanything_ros.ros.transforms import to_ns

# Depth images that are kept: a second at 30 Hz.
MAX_KEPT = 30
# Depth this much older than the newest starts a new recording, or the newest had a wrong stamp.
SET_BACK_NS = 2 * 10**9


class Depths:
    """
    The newest depth images.

    ``find`` gives the one nearest in time to an image, within the slop, as soon as none that is
    still to come can be nearer.
    """

    def __init__(self, slop_s: float) -> None:
        self._slop_ns = round(slop_s * 1e9)
        self._known: dict[int, Image | CompressedImage] = {}

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def add(self, message: Image | CompressedImage) -> None:
        """Take a depth image."""
        stamp_ns = to_ns(message.header.stamp)
        if self._known and stamp_ns < max(self._known) - SET_BACK_NS:
            self.clear()
        self._known[stamp_ns] = message
        while len(self._known) > MAX_KEPT:
            del self._known[next(iter(self._known))]

    def settled(self, stamp_ns: int) -> bool:
        """Say whether the nearest depth is known: stamps rise, and one is not older."""
        return bool(self._known) and max(self._known) >= stamp_ns

    def find(self, stamp_ns: int) -> Image | CompressedImage | None:
        """Return the nearest depth image that is known; None where it is beyond the slop."""
        nearest_ns = min(self._known, key=lambda known_ns: abs(known_ns - stamp_ns), default=None)
        if nearest_ns is None or abs(nearest_ns - stamp_ns) > self._slop_ns:
            return None
        return self._known[nearest_ns]

    def gap_s(self, stamp_ns: int) -> float:
        """Return how far from a stamp the nearest depth image is; inf without any."""
        return min((abs(known_ns - stamp_ns) for known_ns in self._known), default=np.inf) * 1e-9


@dataclass(frozen=True, eq=False)
class SensedDepth:
    """
    A depth image, not decoded yet.

    ``image_from_depth`` (4,4) ties its camera to that of the image, None where both have one
    frame. ``camera`` is its own calibration, where that is known.
    """

    message: Image | CompressedImage
    camera: Camera | None
    image_from_depth: Array | None

    def seen_by(self, camera: Camera) -> NDArray[np.float32]:
        """
        Return the depth (H,W) that the rectified image of a camera has.

        Depth of the image's frame and size is registered to it already; other depth is
        reprojected. Raises InputError where neither works.
        """
        depth_m = depth_from_image(self.message)
        height, width = depth_m.shape
        if self.image_from_depth is None and (width, height) == (camera.width, camera.height):
            return camera.rectify_depth(depth_m)
        own = self.camera
        if own is None or (width, height) != (own.width, own.height):
            raise InputError(
                f'it is {width}x{height}, but the image is {camera.width}x{camera.height}, and '
                f'no camera_info for {width}x{height} comes: remap depth/camera_info to it')
        return reproject_depth(
            own.rectify_depth(depth_m), own.rectified_k,
            np.eye(4) if self.image_from_depth is None else self.image_from_depth,
            camera.rectified_k, (camera.height, camera.width))
