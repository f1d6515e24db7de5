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
from mapanything_ros.core.packing import pack_cloud
from mapanything_ros.core.voxel_map import PointCloud
from mapanything_ros.ros.conversions import (
    camera_from_info,
    COLOR_BYTES,
    depth_from_image,
    gray_from_compressed,
    gray_from_image,
    rgb_from_compressed,
    rgb_from_image,
    to_camera_info,
    to_cloud,
    to_image,
)

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


@pytest.mark.parametrize('encoding', ['rgb8', 'mono8', 'bayer_rggb8'])
def test_odd_sizes_work(encoding):
    shape = (5, 7, 3) if encoding == 'rgb8' else (5, 7)
    message = image(np.full(shape, 77, np.uint8), encoding)
    assert rgb_from_image(message).shape == (5, 7, 3)
    assert (rgb_from_image(message) == 77).all()


@pytest.mark.parametrize('encoding', sorted(COLOR_BYTES))
def test_the_small_grey_picture_shows_the_same(encoding):
    width, height = 1280, 960
    ramp = np.tile(np.linspace(10, 240, width).astype(np.uint8), (height, 1))
    channels = COLOR_BYTES[encoding]
    picture = ramp if channels == 1 else np.dstack([ramp] * channels)
    gray = gray_from_image(image(picture, encoding))
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


@pytest.mark.parametrize('error', [
    AttributeError('`newbyteorder` was removed from the ndarray class in NumPy 2.0'),
    ValueError('buffer size must be a multiple of element size'),
    TypeError('buffer is too small for requested array')])
def test_what_the_distributions_cv_bridge_raises(monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr('mapanything_ros.ros.conversions._bridge.imgmsg_to_cv2', fail)
    message = image(np.array([[1000]], '>u2'), '16UC1')
    with pytest.raises(InputError, match='the image cannot be decoded: '):
        depth_from_image(message)


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
    ({'encoding': 'yuv422_yuy2'}, 'yuv422_yuy2.*rgb8'),
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
    with pytest.raises(InputError, match='16UC1'):
        rgb_from_image(image(np.zeros((4, 6), np.uint16), '16UC1'))
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
