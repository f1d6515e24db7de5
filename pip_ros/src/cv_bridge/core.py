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

"""Images between ROS messages and numpy arrays."""

import array
import sys
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from cv_bridge.encodings import convert, CvBridgeError, DEPTH_OF_DTYPE, DTYPE_OF_DEPTH, parse

__all__ = ['CvBridge', 'CvBridgeError']


class CvBridge:
    """Convert images; one channel is (H, W), more are (H, W, C)."""

    def encoding_to_cvtype2(self, encoding: str) -> int:
        """Return OpenCV's type of an encoding, such as cv2.CV_8UC3 for rgb8."""
        return parse(encoding).cv_type

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        parsed = parse(encoding)
        return DTYPE_OF_DEPTH[parsed.depth], parsed.channels

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype, n_channels: int) -> str:
        return f'{DEPTH_OF_DTYPE[dtype.name]}C{n_channels}'

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = 'passthrough') -> np.ndarray:
        """
        Return a message's pixels in the machine's byte order, without the padding of its rows.

        With `passthrough` and unpadded rows the array shares the message's memory. An encoding
        that is unknown or that cannot be converted, rows shorter than the width, and missing data
        raise CvBridgeError.
        """
        encoding = parse(img_msg.encoding)
        height, width, step = img_msg.height, img_msg.width, img_msg.step
        dtype = np.dtype(DTYPE_OF_DEPTH[encoding.depth])
        row_bytes = width * encoding.channels * dtype.itemsize
        if step < row_bytes:
            raise CvBridgeError(
                f'Image is wrongly formed: step {step} is less than the {row_bytes} bytes of '
                f'{width} pixels of {img_msg.encoding}'
            )
        if len(img_msg.data) < height * step:
            raise CvBridgeError(
                f'Image is wrongly formed: {len(img_msg.data)} bytes of data, but {height} rows '
                f'of {step} bytes'
            )
        rows = np.frombuffer(img_msg.data, np.uint8, height * step).reshape(height, step)
        pixels = np.ascontiguousarray(rows[:, :row_bytes])
        shape = (height, width) if encoding.channels == 1 else (height, width, encoding.channels)
        image = pixels.reshape(-1).view(dtype).reshape(shape)
        if bool(img_msg.is_bigendian) != (sys.byteorder == 'big'):
            image = image.byteswap()
        if desired_encoding == 'passthrough':
            return image
        return convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: np.ndarray, encoding: str = 'passthrough', header: Header | None = None
    ) -> Image:
        """Return a message of an image; CvBridgeError where the encoding is of another type."""
        cv_type = self.dtype_with_channels_to_cvtype2(
            _checked(cvim).dtype, 1 if cvim.ndim < 3 else cvim.shape[2]
        )
        if encoding != 'passthrough':
            parsed = parse(encoding)
            if f'{parsed.depth}C{parsed.channels}' != cv_type:
                raise CvBridgeError(
                    f'encoding specified as {encoding}, but image has incompatible type {cv_type}'
                )
        message = Image(
            height=cvim.shape[0],
            width=cvim.shape[1],
            encoding=cv_type if encoding == 'passthrough' else encoding,
            is_bigendian=int(cvim.dtype.byteorder == '>'),
        )
        if header is not None:
            message.header = header
        message.data = array.array('B', cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = 'passthrough'
    ) -> Any:
        """
        Return the pixels of a compressed message, colours as bgr8.

        As in the original, `passthrough` gives None for data that OpenCV cannot decode.
        """
        try:
            image = cv2.imdecode(np.frombuffer(cmprs_img_msg.data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise CvBridgeError(f'The compressed image cannot be decoded: {error}') from error
        if desired_encoding == 'passthrough':
            return image
        if image is None:
            raise CvBridgeError(
                f'The compressed image cannot be decoded: {len(cmprs_img_msg.data)} bytes of '
                f'"{cmprs_img_msg.format}"'
            )
        return convert(image, 'bgr8', desired_encoding)

    def cv2_to_compressed_imgmsg(
        self, cvim: np.ndarray, dst_format: str = 'jpg'
    ) -> CompressedImage:
        """Return a message of an image (bgr8, bgra8 or mono), compressed as jpg, png, ..."""
        try:
            encoded = cv2.imencode(f'.{dst_format}', _checked(cvim))[1]
        except cv2.error as error:
            raise CvBridgeError(f'The image cannot be encoded: {error}') from error
        message = CompressedImage(format=dst_format)
        message.data = array.array('B', encoded.tobytes())
        return message


def _checked(image: np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray | np.generic):
        raise TypeError('Your input type is not a numpy array')
    return image
