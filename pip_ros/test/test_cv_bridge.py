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

import array

import cv2
from cv_bridge import CvBridge, CvBridgeError
import numpy as np
import pytest
from sensor_msgs.msg import Image

BRIDGE = CvBridge()
RED_RGB, GREEN_RGB, BLUE_RGB = (200, 30, 20), (10, 180, 40), (25, 35, 220)


def message(
    pixels: np.ndarray, encoding: str, padding: int = 0, is_bigendian: bool = False
) -> Image:
    """Return an image message whose rows end in `padding` bytes of rubbish."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.hstack([rows, np.full((height, padding), 0xAB, np.uint8)])
    result = Image(
        height=height, width=width, encoding=encoding,
        step=rows.shape[1], is_bigendian=int(is_bigendian),
    )  # fmt: skip
    result.data = array.array('B', rows.tobytes())
    return result


def three_stripes() -> np.ndarray:
    """Return an RGB image with a red, a green and a blue stripe, 16 columns each."""
    colours = np.array([RED_RGB, GREEN_RGB, BLUE_RGB], np.uint8)
    return np.broadcast_to(np.repeat(colours, 16, axis=0), (24, 48, 3)).copy()


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """Sample an RGB image as a Bayer sensor: `pattern` names rows 0 and 1, columns 0 and 1."""
    bayer = np.empty(rgb.shape[:2], np.uint8)
    for index, colour in enumerate(pattern):
        row, column = divmod(index, 2)
        bayer[row::2, column::2] = rgb[row::2, column::2, 'rgb'.index(colour)]
    return bayer


def stripe_means(rgb: np.ndarray) -> np.ndarray:
    """Return the mean colour inside each stripe, away from its edges."""
    return np.array([rgb[4:-4, start + 4:start + 12].mean(axis=(0, 1)) for start in (0, 16, 32)])


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_images_get_the_right_colours(pattern):
    bayer = message(mosaic(three_stripes(), pattern), f'bayer_{pattern}8')
    expected = np.array([RED_RGB, GREEN_RGB, BLUE_RGB])
    rgb = BRIDGE.imgmsg_to_cv2(bayer, 'rgb8')
    np.testing.assert_allclose(stripe_means(rgb), expected, atol=1)
    bgr = BRIDGE.imgmsg_to_cv2(bayer, 'bgr8')
    np.testing.assert_array_equal(bgr[..., ::-1], rgb)
    grey = BRIDGE.imgmsg_to_cv2(bayer, 'mono8')
    assert grey[12, 8] == pytest.approx(0.299 * 200 + 0.587 * 30 + 0.114 * 20, abs=1)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'rgb16', 'bgra16'])
@pytest.mark.parametrize('padding', [0, 13])
def test_colour_images_become_rgb8_whatever_order_and_padding(encoding, padding):
    layout, bits = encoding.rstrip('0123456789'), int(encoding.lstrip('rgba'))
    rgb = three_stripes()
    channels = {'r': rgb[..., 0], 'g': rgb[..., 1], 'b': rgb[..., 2]}
    channels['a'] = np.full_like(channels['r'], 255)
    pixels = np.stack([channels[name] for name in layout], axis=-1)
    if bits == 16:
        pixels = pixels.astype(np.uint16) * 257
    found = BRIDGE.imgmsg_to_cv2(message(pixels, encoding, padding), 'rgb8')
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, rgb)


def test_grey_images_become_rgb8_with_equal_channels():
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for pixels, encoding in [(grey, 'mono8'), (grey.astype(np.uint16) * 257, 'mono16')]:
        found = BRIDGE.imgmsg_to_cv2(message(pixels, encoding, padding=2), 'rgb8')
        np.testing.assert_array_equal(found, np.dstack([grey] * 3))


@pytest.mark.parametrize('encoding, order', [('yuv422', 'uyvy'), ('yuv422_yuy2', 'yuyv')])
def test_yuv_images_get_the_right_colours(encoding, order):
    rgb = three_stripes()
    y, v, u = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb), -1, 0)
    # Video range, as YUV over the wire has it: 16..235 for y, 16..240 for u and v.
    y = np.round(y * (219 / 255) + 16).astype(np.uint8)
    u, v = (np.round((part - 128.0) * (224 / 255) + 128).astype(np.uint8) for part in (u, v))
    packed = np.empty((24, 48, 2), np.uint8)
    luma, chroma = order.index('y'), 1 - order.index('y')
    packed[..., luma] = y
    packed[:, 0::2, chroma], packed[:, 1::2, chroma] = u[:, 0::2], v[:, 1::2]
    found = BRIDGE.imgmsg_to_cv2(message(packed, encoding), 'rgb8')
    np.testing.assert_allclose(
        stripe_means(found), [RED_RGB, GREEN_RGB, BLUE_RGB], atol=3
    )


@pytest.mark.parametrize(
    'encoding, dtype',
    [('16UC1', np.uint16), ('mono16', np.uint16), ('32FC1', np.float32), ('64FC1', np.float64)],
)
@pytest.mark.parametrize('is_bigendian', [False, True])
def test_depth_keeps_its_values_in_both_byte_orders(encoding, dtype, is_bigendian):
    depth = (np.arange(35).reshape(5, 7) * 123).astype(dtype)
    wire = depth.astype(depth.dtype.newbyteorder('>' if is_bigendian else '<'))
    # A row of 7 pixels and 5 bytes: a step that is no multiple of the pixel.
    found = BRIDGE.imgmsg_to_cv2(message(wire, encoding, 5, is_bigendian))
    assert found.dtype == dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, depth)


def test_passthrough_shares_the_memory_of_unpadded_rows():
    source = message(np.zeros((4, 6, 3), np.uint8), 'rgb8')
    BRIDGE.imgmsg_to_cv2(source)[2, 3, 1] = 77
    assert source.data[(2 * 6 + 3) * 3 + 1] == 77


@pytest.mark.parametrize('encoding', ['', 'rgb9', 'RGB8', '8UC', 'bayer_rgbg8', 'nv12', '8UC3x'])
def test_an_unknown_encoding_is_refused(encoding):
    source = message(np.zeros((4, 6, 3), np.uint8), 'rgb8')
    source.encoding = encoding
    with pytest.raises(CvBridgeError, match='Unrecognized image encoding'):
        BRIDGE.imgmsg_to_cv2(source, 'rgb8')


def test_rows_shorter_than_the_width_and_missing_data_are_refused():
    source = message(np.zeros((4, 6, 3), np.uint8), 'rgb8')
    source.step = 17
    with pytest.raises(CvBridgeError, match='step 17 is less than the 18 bytes'):
        BRIDGE.imgmsg_to_cv2(source)
    source.step = 18
    source.data = source.data[:-1]
    with pytest.raises(CvBridgeError, match='71 bytes of data'):
        BRIDGE.imgmsg_to_cv2(source)


@pytest.mark.parametrize(
    'source, target',
    [('16UC1', 'rgb8'), ('32FC1', 'mono8'), ('rgb8', '8UC1'), ('16UC1', '32FC3'),
     ('mono8', 'bayer_rggb8'), ('rgb8', 'yuv422'), ('bayer_rggb8', 'rgba8')],
)  # fmt: skip
def test_conversions_that_mean_nothing_are_refused(source, target):
    dtype = {'16UC1': np.uint16, '32FC1': np.float32}.get(source, np.uint8)
    pixels = np.zeros((4, 6, 3) if source == 'rgb8' else (4, 6), dtype)
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(message(pixels, source), target)


def test_an_image_without_pixels_is_no_colour_image():
    empty = Image(encoding='bgr8')
    assert BRIDGE.imgmsg_to_cv2(empty).shape == (0, 0, 3)
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(empty, 'rgb8')


def test_plain_types_change_their_depth_with_saturation():
    depth = np.array([[-5.0, 1.4, 1.6, 1e9]], np.float32)
    found = BRIDGE.imgmsg_to_cv2(message(depth, '32FC1'), '16UC1')
    np.testing.assert_array_equal(found, np.array([[0, 1, 2, 65535]], np.uint16))
