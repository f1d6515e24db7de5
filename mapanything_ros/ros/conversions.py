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

"""Between sensor messages and arrays. What cannot be used raises InputError and says why."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
import torch

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.camera import Camera
from mapanything_ros.core.frames.compressed_depth import decode_depth
from mapanything_ros.ros.encodings import COLORS, DEPTHS, values_of

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'

# How many coefficients the distortion models have, and none for no distortion. Many drivers call
# the longer models of OpenCV plumb_bob.
D_LENGTHS = {
    'plumb_bob': (0, 4, 5, 8, 12, 14), 'rational_polynomial': (0, 8, 12, 14),
    '': (0, 4, 5, 8, 12, 14), 'equidistant': (0, 4), 'fisheye': (0, 4),
}

# The selector's pictures are about this wide: enough for blur and flow, and cheap.
GRAY_WIDTH = 320
# Sensors deliver 10, 12, 14 or 16 bits in 16.
MIN_BITS = 10
POINT_BYTES = 16

# uint8, (h,w) or (H,W,3); OpenCV's stubs know no more than that it is an array.
Picture = NDArray[Any]


def rgb_from_image(message: Image) -> Picture:
    """Return the (H,W,3) RGB picture of a colour, grey, Bayer or YUV (BT.601) image."""
    picture = _to_8_bits(values_of(message, COLORS))
    to_rgb = COLORS[message.encoding].to_rgb
    return picture if to_rgb is None else cv2.cvtColor(picture, to_rgb)


def gray_from_image(message: Image) -> Picture:
    """Return a small grey (h,w) picture; fast, and good for blur and motion alone."""
    # Of planes, brightness is the first.
    picture = values_of(message, COLORS)[:message.height]
    luma = COLORS[message.encoding].luma
    if luma is not None:
        picture = cv2.extractChannel(picture, luma)
    shrink = max(1, message.width // GRAY_WIDTH)
    if message.encoding.startswith('bayer'):
        shrink = max(2, shrink)  # whole Bayer cells average to grey
    size = (max(1, message.width // shrink), max(1, message.height // shrink))
    picture = _to_8_bits(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    return picture if picture.ndim == 2 else picture[..., :3].mean(axis=2).astype(np.uint8)


def rgb_from_compressed(message: CompressedImage) -> Picture:
    """Return the (H,W,3) RGB picture of a JPEG or PNG."""
    return cv2.cvtColor(_decode(message, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def gray_from_compressed(message: CompressedImage, width: int) -> Picture:
    """Return a small grey (h,w) picture; ``width`` is that of the whole picture."""
    if width >= 8 * GRAY_WIDTH:
        return _decode(message, cv2.IMREAD_REDUCED_GRAYSCALE_8)
    if width >= 4 * GRAY_WIDTH:
        return _decode(message, cv2.IMREAD_REDUCED_GRAYSCALE_4)
    return _decode(message, cv2.IMREAD_REDUCED_GRAYSCALE_2)


def depth_from_image(message: Image | CompressedImage) -> NDArray[np.float32]:
    """Return (H,W) metres; 0 where the message has 0, a negative number, NaN or infinity."""
    if isinstance(message, CompressedImage):
        depth: NDArray[Any] = decode_depth(message.format, message.data)
    else:
        depth = values_of(message, DEPTHS)
    if depth.dtype == np.uint16:
        return depth.astype(np.float32) * np.float32(0.001)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def camera_from_info(message: CameraInfo, rectified: bool) -> Camera:
    """Return the camera model; of an image that is rectified already, P alone counts."""
    p = np.array(message.p, float).reshape(3, 4)
    if rectified:
        k = p[:, :3] if p[0, 0] > 0 else np.array(message.k, float).reshape(3, 3)
        return Camera(message.width, message.height, k, np.zeros(0), p)
    expected = D_LENGTHS.get(message.distortion_model, ())
    if expected and len(message.d) not in expected:
        raise InputError(
            f'camera_info has {len(message.d)} distortion coefficients (D), but '
            f'{message.distortion_model} has {", ".join(str(n) for n in expected)}')
    return Camera(
        message.width, message.height, np.array(message.k, float).reshape(3, 3),
        np.array(message.d, float), p, message.distortion_model)


def to_image(picture: torch.Tensor, encoding: str, header: Header) -> Image:
    """Return the message of an (H,W) or (H,W,C) tensor on any device; little-endian."""
    height, width = picture.shape[:2]
    data = _to_data(picture)
    return Image(
        header=header, height=height, width=width, encoding=encoding, is_bigendian=0,
        step=len(data) // height, data=data)


def to_camera_info(intrinsics: Array, width: int, height: int, header: Header) -> CameraInfo:
    """Return the calibration of a rectified image."""
    p = np.zeros((3, 4))
    p[:, :3] = intrinsics
    return CameraInfo(
        header=header, height=height, width=width, distortion_model='plumb_bob', d=[0.0] * 5,
        k=intrinsics.ravel(), r=np.eye(3).ravel(), p=p.ravel())


def to_cloud(packed: torch.Tensor, header: Header) -> PointCloud2:
    """Return an unordered cloud, all points valid, of what ``pack_points`` made (N,4)."""
    return PointCloud2(
        header=header, height=1, width=len(packed), is_bigendian=False, is_dense=True,
        point_step=POINT_BYTES, row_step=POINT_BYTES * len(packed), data=_to_data(packed),
        fields=[
            PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
            for name, offset in (('x', 0), ('y', 4), ('z', 8), ('rgb', 12))])


def _to_data(values: torch.Tensor) -> array[int]:
    """Copy a tensor, wherever it lies, into the type that message setters take unchecked."""
    data = array('B', [0]) * (values.numel() * values.element_size())
    if data:
        torch.frombuffer(data, dtype=values.dtype).view(values.shape).copy_(values)
    return data


def _to_8_bits(picture: Picture) -> Picture:
    """Return the upper eight of the bits that the sensor uses, by the brightest pixel."""
    if picture.dtype == np.uint8:
        return picture
    bits = max(MIN_BITS, int(picture.max()).bit_length())
    return (picture >> (bits + bits % 2 - 8)).astype(np.uint8)


def _decode(message: CompressedImage, flags: int) -> Picture:
    data = np.frombuffer(message.data, np.uint8)
    # OpenCV 4.6 makes up the rest of a picture that is cut off. Some cameras pad with zeros.
    if data[:2].tobytes() == JPEG_START and JPEG_END not in data.tobytes().rstrip(b'\0')[-1024:]:
        raise InputError(f'the JPEG ({len(data)} bytes) is cut off: the driver or network is slow')
    try:
        picture = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        picture = None
    if picture is None:
        raise InputError(
            f'the compressed image ({len(data)} bytes, format {message.format!r}) cannot be '
            'decoded; JPEG and PNG are understood')
    return picture
