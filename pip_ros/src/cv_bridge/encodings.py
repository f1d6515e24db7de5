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

"""What the encodings of sensor_msgs/Image mean, and how OpenCV converts between them."""

from dataclasses import dataclass
import re

import cv2
import numpy as np

DTYPE_OF_DEPTH = {
    '8U': 'uint8',
    '8S': 'int8',
    '16U': 'uint16',
    '16S': 'int16',
    '32S': 'int32',
    '32F': 'float32',
    '64F': 'float64',
}
BITS_OF_DEPTH = {'8U': 8, '8S': 8, '16U': 16, '16S': 16, '32S': 32, '32F': 32, '64F': 64}
CHANNELS_OF_COLOR = {'mono': 1, 'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4}
# ROS names a Bayer pattern by its pixels (0, 0) and (0, 1); OpenCV by (1, 1) and (1, 2).
OPENCV_BAYER = {'rggb': 'BG', 'bggr': 'RG', 'gbrg': 'GR', 'grbg': 'GB'}
OPENCV_COLOR = {'mono': 'GRAY', 'rgb': 'RGB', 'bgr': 'BGR', 'rgba': 'RGBA', 'bgra': 'BGRA'}
OPENCV_YUV = {'yuv422': 'UYVY', 'yuv422_yuy2': 'YUY2'}


class CvBridgeError(TypeError):
    """An image that cannot be converted."""


@dataclass(frozen=True)
class Encoding:
    """
    A parsed encoding.

    `layout` is the colour layout ('rgb', 'bayer_rggb', 'yuv422', ...), or None for plain types
    such as 16UC1, which have no colour.
    """

    name: str
    depth: str
    channels: int
    layout: str | None

    @property
    def bits(self) -> int:
        return BITS_OF_DEPTH[self.depth]


def parse(name: str) -> Encoding:
    """Return what an encoding means; raise CvBridgeError for one that is unknown."""
    if name in OPENCV_YUV:
        return Encoding(name, '8U', 2, name)
    if match := re.fullmatch(r'(mono|rgb|bgr|rgba|bgra)(8|16)', name):
        return Encoding(name, f'{match[2]}U', CHANNELS_OF_COLOR[match[1]], match[1])
    if match := re.fullmatch(r'(bayer_(?:rggb|bggr|gbrg|grbg))(8|16)', name):
        return Encoding(name, f'{match[2]}U', 1, match[1])
    if match := re.fullmatch(r'(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?', name):
        return Encoding(name, match[1], int(match[2] or 1), None)
    raise CvBridgeError(f'Unrecognized image encoding [{name}]')


def convert(image: np.ndarray, source_name: str, target_name: str) -> np.ndarray:
    """Return a copy of an image in another encoding; raise CvBridgeError where none is defined."""
    if target_name in ('', source_name):
        return image.copy()
    source, target = parse(source_name), parse(target_name)
    code = _conversion_code(source, target)
    if code is None:
        return _to_depth(image, source, target)
    try:
        converted = cv2.cvtColor(image, code)
    except cv2.error as error:
        raise CvBridgeError(f'[{source_name}] to [{target_name}] failed: {error}') from error
    return converted if source.bits == target.bits else _to_depth(converted, source, target)


def _conversion_code(source: Encoding, target: Encoding) -> int | None:
    """Return OpenCV's code for a change of colour; None where only the depth changes."""
    if source.layout is None or target.layout is None:
        if source.layout is None and target.layout is not None:
            raise CvBridgeError(
                f'[{source.name}] is not a color format. but [{target.name}] is. '
                'The conversion does not make sense'
            )
        if source.channels != target.channels:
            raise CvBridgeError(
                f'[{source.name}] and [{target.name}] do not have the same number of channel'
            )
        return None
    if source.layout == target.layout and not source.layout.startswith('bayer'):
        return None
    kind, _, pattern = source.layout.partition('_')
    if kind == 'bayer' and target.layout in ('mono', 'rgb', 'bgr'):
        name = f'Bayer{OPENCV_BAYER[pattern]}2{OPENCV_COLOR[target.layout]}'
    elif source.layout in OPENCV_YUV and target.layout in OPENCV_COLOR:
        colour, layout = OPENCV_COLOR[target.layout], OPENCV_YUV[source.layout]
        name = f'YUV2{colour}_{layout}'
    elif source.layout in OPENCV_COLOR and target.layout in OPENCV_COLOR:
        name = f'{OPENCV_COLOR[source.layout]}2{OPENCV_COLOR[target.layout]}'
    else:
        raise CvBridgeError(f'Unsupported conversion from [{source.name}] to [{target.name}]')
    return getattr(cv2, f'COLOR_{name}')


def _to_depth(image: np.ndarray, source: Encoding, target: Encoding) -> np.ndarray:
    """Change the type of the channels; between 8 and 16 bits the range is stretched, too."""
    scale = {(8, 16): 65535 / 255, (16, 8): 255 / 65535}.get((source.bits, target.bits), 1.0)
    dtype = np.dtype(DTYPE_OF_DEPTH[target.depth])
    if dtype.kind == 'f':
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    with np.errstate(invalid='ignore'):
        return np.clip(np.rint(image * scale), limits.min, limits.max).astype(dtype)
