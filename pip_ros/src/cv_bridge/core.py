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

import sys

import numpy as np
from sensor_msgs.msg import Image

from cv_bridge.encodings import convert, CvBridgeError, DTYPE_OF_DEPTH, parse

__all__ = ['CvBridge', 'CvBridgeError']


class CvBridge:
    """Convert images; one channel is (H, W), more are (H, W, C)."""

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
