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

"""Pictures from files as frames: no larger than they need to be, rectified where that is known."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array, Frame, Keyframe
from mapanything_ros.core.frames.camera import Camera

# More does not help a backend, and costs memory and time.
MAX_SIDE_PX = 1600
# As wide as the selector's pictures of a camera in ROS.
GRAY_WIDTH = 320
FRAME_ID = 'camera_optical'

Rgb = NDArray[np.uint8]


def picture_frame(stamp_ns: int, read: Callable[[], tuple[Rgb, Camera | None]]) -> Frame:
    """Return the frame of a picture (H,W,3); ``read`` gives it, and its camera, when needed."""

    def gray() -> NDArray[np.uint8]:
        rgb, _ = read()
        height, width = rgb.shape[:2]
        shrink = max(1, width // GRAY_WIDTH)
        small = cv2.resize(rgb, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]

    def keyframe(keyframe_id: int) -> Keyframe:
        rgb, camera = read()
        if camera is not None:
            rgb = camera.rectify(rgb)
        rgb, intrinsics = shrunk(rgb, camera.rectified_k if camera else None)
        return Keyframe(keyframe_id, stamp_ns, FRAME_ID, rgb, intrinsics)

    return Frame(stamp_ns, gray, keyframe)


def shrunk(rgb: Rgb, intrinsics: Array | None) -> tuple[Rgb, Array | None]:
    """Return a picture no larger than MAX_SIDE_PX, and intrinsics that fit it."""
    height, width = rgb.shape[:2]
    factor = MAX_SIDE_PX / max(width, height)
    if factor >= 1.0:
        return rgb, intrinsics
    size = round(width * factor), round(height * factor)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    if intrinsics is not None:
        x, y = size[0] / width, size[1] / height
        # Pixel centres have integer coordinates.
        intrinsics = np.array([
            [x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]]) @ intrinsics
    return small, intrinsics  # type: ignore[return-value]
