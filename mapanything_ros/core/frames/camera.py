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

"""The camera model of a sensor_msgs/CameraInfo, and rectification with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError

# REP-104 names; the last two are how some drivers call the same models.
PINHOLE_MODELS = ('plumb_bob', 'rational_polynomial', '')
FISHEYE_MODELS = ('equidistant', 'fisheye')


@dataclass(frozen=True, eq=False)
class Camera:
    """
    A calibrated camera: size in pixels, ``k`` (3,3), ``d`` (N,), ``p`` (3,4), ``model`` (REP-104).

    The rectified image keeps the size and the optical frame of the original (CameraInfo's R is
    not applied), with the intrinsics of P where P is filled in, else K.
    """

    width: int
    height: int
    k: Array
    d: Array
    p: Array
    model: str = 'plumb_bob'

    def __post_init__(self) -> None:
        numbers = np.concatenate([self.k.ravel(), self.d.ravel(), self.p.ravel()])
        if not np.isfinite(numbers).all():
            raise InputError('camera_info holds numbers that are not finite')
        if not (self.k[0, 0] > 0 and self.k[1, 1] > 0):
            raise InputError(
                'camera_info has no focal length (K is zero): the camera is not calibrated; '
                'calibrate it or set use_camera_info to false')
        if self.rectified_k[2].tolist() != [0, 0, 1]:
            raise InputError('camera_info has a K or P whose last row is not 0 0 1: fill it in')
        if self.width <= 0 or self.height <= 0:
            raise InputError(f'camera_info has the size {self.width}x{self.height}')
        if self.model not in PINHOLE_MODELS + FISHEYE_MODELS:
            raise InputError(
                f'camera_info has the distortion model {self.model!r}; known are plumb_bob, '
                'rational_polynomial and equidistant: rectify the image and set rectified to true')

    @cached_property
    def rectified_k(self) -> Array:
        """Return the (3,3) intrinsics of the rectified image."""
        return self.p[:, :3] if self.p[0, 0] > 0 and self.p[1, 1] > 0 else self.k

    @cached_property
    def _maps(self) -> tuple[Any, Any] | None:
        """Return where each rectified pixel lies in the original, or None where nothing moves."""
        if not self.d.any() and np.allclose(self.rectified_k, self.k):
            return None
        size = (self.width, self.height)
        if self.model in FISHEYE_MODELS:
            return cv2.fisheye.initUndistortRectifyMap(
                self.k, self.d[:4], np.eye(3), self.rectified_k, size, cv2.CV_32FC1)
        return cv2.initUndistortRectifyMap(
            self.k, self.d, np.eye(3), self.rectified_k, size, cv2.CV_32FC1)

    def rectify(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Rectify an (H,W,...) image, black where the original has nothing."""
        return self._remap(image, cv2.INTER_LINEAR)

    def rectify_depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rectify an (H,W) depth image; nearest pixel, so that no edge is averaged."""
        return self._remap(depth_m, cv2.INTER_NEAREST)

    def _remap(self, image: NDArray[Any], interpolation: int) -> NDArray[Any]:
        self._check_size(image)
        return image if self._maps is None else cv2.remap(image, *self._maps, interpolation)

    def _check_size(self, image: NDArray[np.generic]) -> None:
        height, width = image.shape[:2]
        if (width, height) != (self.width, self.height):
            raise InputError(
                f'the image is {width}x{height} but camera_info is for {self.width}x{self.height}')
