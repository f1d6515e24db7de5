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

"""How the images of drivers lie in memory (sensor_msgs/image_encodings.hpp)."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from mapanything_ros.core.errors import InputError


class Encoding(NamedTuple):
    """
    How an image lies in memory.

    ``values`` of a ``dtype`` belong to a pixel, ``rows`` of memory to a row of pixels (more than
    one with a plane of colours below). ``to_rgb`` is OpenCV's conversion, None for what is RGB
    already. ``luma`` says which of a pixel's values is its brightness, where one is. Pixels of a
    ``cell`` (width, height) share a colour, so that sizes are multiples of it.
    """

    dtype: str
    values: int
    to_rgb: int | None = None
    luma: int | None = None
    cell: tuple[int, int] = (1, 1)
    rows: float = 1.0


def _colors(bits: int) -> dict[str, Encoding]:
    """Return the encodings that exist with 8 and with 16 bits."""
    dtype = f'u{bits // 8}'
    return {
        f'rgb{bits}': Encoding(dtype, 3),
        f'bgr{bits}': Encoding(dtype, 3, cv2.COLOR_BGR2RGB),
        f'rgba{bits}': Encoding(dtype, 4, cv2.COLOR_RGBA2RGB),
        f'bgra{bits}': Encoding(dtype, 4, cv2.COLOR_BGRA2RGB),
        f'mono{bits}': Encoding(dtype, 1, cv2.COLOR_GRAY2RGB),
        f'{bits}UC1': Encoding(dtype, 1, cv2.COLOR_GRAY2RGB),
        # ROS names a Bayer pattern by its pixels (0, 0) and (0, 1); OpenCV by (1, 1) and (1, 2).
        f'bayer_rggb{bits}': Encoding(dtype, 1, cv2.COLOR_BayerBG2RGB),
        f'bayer_bggr{bits}': Encoding(dtype, 1, cv2.COLOR_BayerRG2RGB),
        f'bayer_gbrg{bits}': Encoding(dtype, 1, cv2.COLOR_BayerGR2RGB),
        f'bayer_grbg{bits}': Encoding(dtype, 1, cv2.COLOR_BayerGB2RGB),
    }


_UYVY = Encoding('u1', 2, cv2.COLOR_YUV2RGB_UYVY, luma=1, cell=(2, 1))
_YUYV = Encoding('u1', 2, cv2.COLOR_YUV2RGB_YUY2, luma=0, cell=(2, 1))

COLORS = {
    **_colors(8),
    # Drivers that name no colours mean OpenCV's.
    '8UC3': Encoding('u1', 3, cv2.COLOR_BGR2RGB),
    **_colors(16),
    # The second name of each is that of ROS before Iron.
    'uyvy': _UYVY, 'yuv422': _UYVY, 'yuyv': _YUYV, 'yuv422_yuy2': _YUYV,
    'nv12': Encoding('u1', 1, cv2.COLOR_YUV2RGB_NV12, cell=(2, 2), rows=1.5),
    'nv21': Encoding('u1', 1, cv2.COLOR_YUV2RGB_NV21, cell=(2, 2), rows=1.5),
}
DEPTHS = {
    '16UC1': Encoding('u2', 1), 'mono16': Encoding('u2', 1), '32FC1': Encoding('f4', 1)}


def values_of(message: Image, known: dict[str, Encoding]) -> NDArray[Any]:
    """
    Return an image's values, (rows,columns) or (rows,columns,values), in native byte order.

    Padding of rows is left out; otherwise the array shares the message's memory. Raises InputError
    for an encoding that is not known, and where size, step and data contradict each other.
    """
    if message.encoding not in known:
        raise InputError(
            f'encoding {message.encoding!r} is not understood; known are {", ".join(known)}')
    encoding = known[message.encoding]
    height, width, step = message.height, message.width, message.step
    if width == 0 or height == 0:
        raise InputError(f'the image is empty ({width}x{height})')
    if width % encoding.cell[0] or height % encoding.cell[1]:
        raise InputError(
            f'{message.encoding} cannot hold {width}x{height}, as {encoding.cell[0]}x'
            f'{encoding.cell[1]} pixels share a colour: the driver is at fault')
    row_bytes = width * encoding.values * np.dtype(encoding.dtype).itemsize
    if step < row_bytes:
        raise InputError(
            f'step {step} is too small for {width} pixels of {message.encoding} ({row_bytes} '
            'bytes): the driver is at fault')
    rows = int(height * encoding.rows)
    if len(message.data) != step * rows:
        raise InputError(
            f'the image has {len(message.data)} bytes, but its size and step make {step * rows}: '
            'the driver is at fault')
    memory = np.frombuffer(message.data, np.uint8).reshape(rows, step)[:, :row_bytes]
    order = '>' if message.is_bigendian else '<'
    values = np.ascontiguousarray(memory).view(order + encoding.dtype)
    shape = (rows, width) if encoding.values == 1 else (rows, width, encoding.values)
    return values.astype(encoding.dtype, copy=False).reshape(shape)
