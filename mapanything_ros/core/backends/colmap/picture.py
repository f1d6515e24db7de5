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

"""A keyframe's image at the size that a backend works at."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array


@dataclass(frozen=True, eq=False)
class Picture:
    """An image (H,W,3) uint8 with intrinsics (3,3) that fit."""

    rgb: NDArray[np.uint8]
    intrinsics: Array

    def gray(self) -> NDArray[np.float32]:
        """Return the brightness (H,W) in [0,1]."""
        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0


def shrink(rgb: NDArray[np.uint8], intrinsics: Array, width_px: int) -> Picture:
    """Shrink an image to a width, never enlarging it; each pixel is the mean of what it covers."""
    height, width = rgb.shape[:2]
    new_width = min(width_px, width)
    new_height = max(1, round(height * new_width / width))
    x, y = new_width / width, new_height / height
    # Pixel centres are integers, so the image's corner is at -0.5.
    new_from_old = np.array([
        [x, 0.0, 0.5 * x - 0.5],
        [0.0, y, 0.5 * y - 0.5],
        [0.0, 0.0, 1.0]])
    small = cv2.resize(rgb, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return Picture(small.astype(np.uint8, copy=False), new_from_old @ intrinsics)
