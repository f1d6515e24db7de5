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

"""Messages to arrays and back; what cannot be used raises InputError with a clear sentence."""

import cv2
from helpers import (
    camera_info,
    camera_on_path,
    compressed,
    FRAME,
    header,
    image,
    K,
    pixels_of,
    points_of,
    stamp_of,
    view_room,
)
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage
import torch

from mapanything_ros.core.errors import InputError
from mapanything_ros.core.map.packing import pack_cloud
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.ros.conversions import (
    camera_from_info,
    depth_from_image,
    gray_from_compressed,
    gray_from_image,
    rgb_from_compressed,
    rgb_from_image,
    to_camera_info,
    to_cloud,
    to_image,
)
from mapanything_ros.ros.encodings import COLORS, DEPTHS

RED = np.array([200, 30, 60], np.uint8)


@pytest.fixture(scope='module')
def rgb() -> np.ndarray:
    return view_room(camera_on_path(2.0))[0]


@pytest.mark.parametrize(('encoding', 'pixel'), [
    ('rgb8', RED), ('bgr8', RED[::-1]), ('rgba8', [*RED, 9]), ('bgra8', [*RED[::-1], 9]),
    ('8UC3', RED[::-1])])
def test_colours_are_told_apart(encoding, pixel):
    picture = np.tile(np.array(pixel, np.uint8), (4, 6, 1))
    assert np.array_equal(rgb_from_image(image(picture, encoding)), np.tile(RED, (4, 6, 1)))


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_is_the_same_in_all_channels(encoding):
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert np.array_equal(rgb_from_image(image(picture, encoding)), np.dstack([picture] * 3))


def in_yuv(rgb: np.ndarray) -> np.ndarray:
    """Return BT.601 in video range, (H,W,3) uint8: Y 16 to 235, Cb and Cr 16 to 240."""
    red, green, blue = np.moveaxis(rgb / 255.0, 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.rint(np.stack([
        16 + 219 * luma, 128 + 112 * (blue - luma) / 0.886,
        128 + 112 * (red - luma) / 0.701], axis=2)).astype(np.uint8)


def in_cells(rgb: np.ndarray) -> np.ndarray:
    """Return a picture whose pixels share colours two by two, so that no encoding loses any."""
    return np.kron(rgb[::2, ::2], np.ones((2, 2, 1), np.uint8))


def packed(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """Return the memory (rows,bytes) of a picture in a YUV encoding."""
    y, u, v = np.moveaxis(in_yuv(rgb), 2, 0)
    if encoding in ('nv12', 'nv21'):
        first, second = (u, v) if encoding == 'nv12' else (v, u)
        colours = np.dstack([first[::2, ::2], second[::2, ::2]])
        return np.vstack([y, colours.reshape(len(colours), -1)])
    colours = np.where(np.arange(y.shape[1]) % 2 == 0, u, v)
    pair = (colours, y) if encoding in ('uyvy', 'yuv422') else (y, colours)
    return np.dstack(pair).reshape(len(y), -1)


YUV = ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv12', 'nv21']


@pytest.mark.parametrize('padding', [0, 32])
@pytest.mark.parametrize('encoding', YUV)
def test_yuv_has_the_colours_that_were_put_in_to_two_levels(encoding, padding):
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    rgb = in_cells(rgb)
    message = image(np.pad(packed(rgb, encoding), ((0, 0), (0, padding))), encoding)
    message.width, message.height = 80, 60
    error = np.abs(rgb_from_image(message).astype(int) - rgb)
    assert error.max() <= 2
    assert error.mean() < 0.6
    luma = rgb @ [0.299, 0.587, 0.114]
    gray = gray_from_image(message)
    assert np.abs(gray - (16 + luma * 219 / 255)).max() <= 0.51


@pytest.mark.parametrize(('encoding', 'width', 'height', 'cell'), [
    ('uyvy', 7, 4, '2x1'), ('yuyv', 5, 5, '2x1'), ('nv12', 7, 4, '2x2'), ('nv21', 6, 5, '2x2')])
def test_sizes_that_a_yuv_encoding_cannot_hold(encoding, width, height, cell):
    message = image(np.zeros((height, 2 * width), np.uint8), encoding)
    message.width = width
    for convert in (rgb_from_image, gray_from_image):
        with pytest.raises(InputError, match=f'{encoding} cannot hold {width}x{height}.*{cell}'):
            convert(message)


@pytest.mark.parametrize('encoding', ['uyvy', 'yuyv'])
def test_yuv_422_of_an_odd_height(encoding):
    rgb = np.full((5, 6, 3), 99, np.uint8)
    message = image(packed(rgb, encoding), encoding)
    message.width = 6
    assert np.abs(rgb_from_image(message).astype(int) - rgb).max() <= 1


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('bits', [10, 12, 14, 16])
@pytest.mark.parametrize(('encoding', 'channels'), [
    ('mono16', [0]), ('16UC1', [0]), ('rgb16', [0, 1, 2]), ('bgr16', [2, 1, 0]),
    ('rgba16', [0, 1, 2]), ('bgra16', [2, 1, 0])])
def test_of_16_bits_the_upper_eight_that_the_sensor_uses_are_kept(encoding, channels, bits, order):
    values = COLORS[encoding].values
    picture = np.random.default_rng(bits).integers(0, 2**bits, (6, 8, values), np.uint16)
    picture[0, 0] = 2**bits - 1
    message = image(picture.astype(f'{order}u2'), encoding)
    message.is_bigendian = int(order == '>')
    found = rgb_from_image(message)
    expected = picture[..., channels] // 2**(bits - 8)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.broadcast_to(expected, found.shape))
    gray = gray_from_image(message).astype(float)
    assert np.abs(gray - expected.mean(axis=2)).max() <= 1


def test_noise_in_the_dark_is_not_taken_for_a_picture():
    picture = np.random.default_rng(0).integers(0, 8, (6, 8), np.uint16)
    assert rgb_from_image(image(picture, 'mono16')).max() <= 1


@pytest.mark.parametrize('encoding', [
    'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8',
    'bayer_grbg8', 'yuv422', 'yuv422_yuy2', '16UC1', '32FC1'])
def test_what_cv_bridge_knows_has_the_values_that_cv_bridge_gives(encoding):
    """The node has no need of it: an extension that NumPy and OpenCV of pip break."""
    cv_bridge = pytest.importorskip(
        'cv_bridge', reason='comes with a ROS 2 from apt, or make test-ros')
    rng = np.random.default_rng(3)
    if encoding == '32FC1':
        pixels = rng.random((12, 16)).astype(np.float32)
    else:
        channels = COLORS[encoding].values
        dtype = np.uint16 if encoding == '16UC1' else np.uint8
        pixels = rng.integers(1, 256, (12, 16, channels)[:2 + (channels > 1)]).astype(dtype)
    message = image(pixels, encoding)
    if encoding in DEPTHS:
        known = cv_bridge.CvBridge().imgmsg_to_cv2(message)
        scale = np.float32(0.001) if encoding == '16UC1' else 1
        assert np.array_equal(depth_from_image(message), known * scale)
    else:
        known = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8')
        assert np.array_equal(rgb_from_image(message), known)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_mosaic_of_one_colour_has_that_colour(pattern, bits):
    colours = dict(zip('rgb', RED, strict=True))
    cell = np.array([colours[letter] for letter in pattern], f'u{bits // 8}').reshape(2, 2)
    mosaic = np.tile(cell << (bits - 8), (6, 8))
    found = rgb_from_image(image(mosaic, f'bayer_{pattern}{bits}'))
    assert np.array_equal(found, np.broadcast_to(RED, (12, 16, 3)))


@pytest.mark.parametrize('encoding', ['rgb8', 'mono8', 'bayer_rggb8'])
def test_odd_sizes_work(encoding):
    shape = (5, 7, 3) if encoding == 'rgb8' else (5, 7)
    message = image(np.full(shape, 77, np.uint8), encoding)
    assert rgb_from_image(message).shape == (5, 7, 3)
    assert (rgb_from_image(message) == 77).all()


@pytest.mark.parametrize('encoding', sorted(COLORS))
def test_the_small_grey_picture_shows_the_same(encoding):
    width, height = 1280, 960
    ramp = np.tile(np.linspace(10, 240, width).astype(np.uint8), (height, 1))
    layout = COLORS[encoding]
    picture = ramp if layout.values == 1 else np.dstack([ramp] * layout.values)
    if layout.rows > 1:
        picture = np.vstack([ramp, np.full((height // 2, width), 128, np.uint8)])
    if layout.dtype == 'u2':
        picture = picture.astype(np.uint16) << 8
    message = image(picture, encoding)
    message.height = height
    gray = gray_from_image(message)
    assert gray.dtype == np.uint8
    assert gray.shape == (240, 320)
    expected = cv2.resize(ramp, (320, 240), interpolation=cv2.INTER_AREA)
    assert np.abs(gray.astype(int) - expected).max() <= 1


def test_the_small_grey_picture_of_a_mosaic_has_no_pattern():
    mosaic = np.zeros((120, 160), np.uint8)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200, 100
    gray = gray_from_image(image(mosaic, 'bayer_rggb8'))
    assert gray.std() == 0


@pytest.mark.parametrize(('form', 'tolerance'), [('png', 0), ('jpg', 12)])
def test_compressed_pictures(rgb, form, tolerance):
    message = compressed(rgb, form)
    assert np.abs(rgb_from_compressed(message).astype(int) - rgb).max() <= tolerance
    gray = gray_from_compressed(message, rgb.shape[1])
    assert gray.shape == (60, 80)
    whole = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    half = cv2.resize(whole, (80, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(gray.astype(int) - half).mean() < 3


@pytest.mark.parametrize('width', [320, 640, 1280, 1920, 2560, 3840])
def test_the_small_grey_picture_is_never_smaller_than_flow_needs(width):
    plain = np.full((width // 2, width, 3), 120, np.uint8)
    gray = gray_from_compressed(compressed(plain, 'jpg'), width)
    assert min(320, width // 2) <= gray.shape[1] <= max(640, width // 2)


@pytest.mark.parametrize('data', [b'', b'no picture', b'\x89PNG\r\n\x1a\n'])
def test_a_picture_that_cannot_be_decoded(data):
    message = CompressedImage(header=header(1), format='png', data=data)
    with pytest.raises(InputError, match=f'{len(data)} bytes'):
        rgb_from_compressed(message)
    with pytest.raises(InputError, match=f'{len(data)} bytes'):
        gray_from_compressed(message, 640)


def test_a_jpeg_that_is_cut_off_even_by_its_end_mark(rgb):
    message = compressed(rgb, 'jpg')
    message.data = message.data[:-2]
    with pytest.raises(InputError, match='cut off'):
        rgb_from_compressed(message)
    with pytest.raises(InputError, match='cut off'):
        gray_from_compressed(message, 640)


def test_depth_in_millimetres():
    depth = image(np.array([[0, 1], [1500, 65535]], np.uint16), '16UC1')
    found = depth_from_image(depth)
    assert found.dtype == np.float32
    assert np.allclose(found, [[0, 0.001], [1.5, 65.535]])


def test_depth_in_millimetres_from_a_big_endian_machine():
    depth = image(np.array([[0, 1], [1500, 65535]], '>u2'), '16UC1')
    depth.is_bigendian = 1
    assert np.allclose(depth_from_image(depth), [[0, 0.001], [1.5, 65.535]])


def test_depth_in_metres_is_0_where_it_is_no_depth():
    values = np.array([[1.25, np.nan, np.inf], [-np.inf, -1.0, 0.0]], np.float32)
    found = depth_from_image(image(values, '32FC1'))
    assert np.array_equal(found, np.array([[1.25, 0, 0], [0, 0, 0]], np.float32))


def test_padded_rows_of_depth():
    padded = np.zeros((2, 5), np.uint16)
    padded[:, :3] = [[1, 2, 3], [4, 5, 6]]
    message = image(padded, '16UC1')
    message.width = 3
    assert np.allclose(depth_from_image(message) * 1000, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(('changes', 'words'), [
    ({'encoding': 'nv24'}, 'nv24.*rgb8'),
    ({'width': 0}, 'empty'),
    ({'height': 0}, 'empty'),
    ({'step': 17}, 'step 17 is too small for 6 pixels of rgb8 .18 bytes'),
    ({'step': 19}, 'has 72 bytes.*76'),
    ({'data': b'1234'}, 'has 4 bytes.*72'),
])
def test_an_image_that_contradicts_itself(changes, words):
    message = image(np.zeros((4, 6, 3), np.uint8), 'rgb8')
    for name, value in changes.items():
        setattr(message, name, value)
    for convert in (rgb_from_image, gray_from_image):
        with pytest.raises(InputError, match=words):
            convert(message)


def test_depth_is_no_picture_and_a_picture_no_depth():
    with pytest.raises(InputError, match='32FC1'):
        rgb_from_image(image(np.zeros((4, 6), np.float32), '32FC1'))
    with pytest.raises(InputError, match='rgb8'):
        depth_from_image(image(np.zeros((4, 6, 3), np.uint8), 'rgb8'))


def test_the_camera_of_a_raw_image_has_k_and_d_and_rectifies_to_p():
    projection = K * [[0.9], [0.9], [1]]
    camera = camera_from_info(
        camera_info(distortion=[0.1, 0.2, 0.3, 0.4, 0.5], projection=projection), False)
    assert (camera.width, camera.height) == (160, 120)
    assert np.array_equal(camera.k, K)
    assert np.array_equal(camera.d, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert np.array_equal(camera.rectified_k, projection)


def test_the_camera_of_a_rectified_image_has_p_alone():
    projection = K * [[0.9], [0.9], [1]]
    camera = camera_from_info(camera_info(distortion=[0.1] * 5, projection=projection), True)
    assert np.array_equal(camera.rectified_k, projection)
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    assert np.array_equal(camera.rectify(picture), picture)


def test_without_p_k_is_the_camera_of_a_rectified_image():
    info = camera_info(projection=np.zeros((3, 3)))
    assert np.array_equal(camera_from_info(info, True).rectified_k, K)


@pytest.mark.parametrize(('model', 'count'), [
    ('plumb_bob', 3), ('rational_polynomial', 5), ('equidistant', 2), ('', 7)])
def test_distortion_of_the_wrong_length(model, count):
    info = camera_info(distortion=[0.01] * count)
    info.distortion_model = model
    with pytest.raises(InputError, match=f'{count} distortion coefficients'):
        camera_from_info(info, False)
    camera_from_info(info, True)


def test_an_image_there_and_back(rgb):
    head = header(1_700_000_000_000_000_001)
    message = to_image(torch.from_numpy(rgb), 'rgb8', head)
    assert np.array_equal(pixels_of(message), rgb)
    assert (stamp_of(message), message.header.frame_id) == (1_700_000_000_000_000_001, FRAME)
    assert np.array_equal(rgb_from_image(message), rgb)
    depth = torch.tensor([[1.5, torch.nan]])
    assert np.array_equal(
        pixels_of(to_image(depth, '32FC1', head)), depth[0].numpy(), equal_nan=True)


def test_a_tensor_that_is_not_contiguous_is_written_in_order(rgb):
    message = to_image(torch.from_numpy(rgb)[:, ::2], 'rgb8', header(1))
    assert np.array_equal(pixels_of(message), rgb[:, ::2])


def test_a_calibration_there_and_back():
    info = to_camera_info(K, 160, 120, header(7))
    camera = camera_from_info(info, False)
    assert np.array_equal(camera.rectified_k, K)
    assert (camera.width, camera.height) == (160, 120)
    assert not camera.d.any()


@pytest.mark.parametrize('count', [0, 1, 1000])
def test_a_cloud_is_what_viewers_read(count):
    random = np.random.default_rng(count)
    xyz = random.normal(size=(count, 3)).astype(np.float32)
    colours = random.integers(0, 256, (count, 3)).astype(np.uint8)
    message = to_cloud(pack_cloud(PointCloud(xyz, colours)), header(1, 'map'))
    found_xyz, found_rgb = points_of(message)
    assert np.array_equal(found_xyz, xyz)
    assert np.array_equal(found_rgb, colours)
    assert (message.width, message.height, message.is_dense) == (count, 1, True)
    assert len(message.data) == message.row_step == count * message.point_step
    assert [field.name for field in message.fields] == ['x', 'y', 'z', 'rgb']
