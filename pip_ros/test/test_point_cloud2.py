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

import math

import numpy as np
import pytest
from sensor_msgs.msg import PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

HEADER = Header(frame_id='camera')
FLOAT32, UINT32 = PointField.FLOAT32, PointField.UINT32
XYZ_RGB = [
    PointField(name='x', offset=0, datatype=FLOAT32, count=1),
    PointField(name='y', offset=4, datatype=FLOAT32, count=1),
    PointField(name='z', offset=8, datatype=FLOAT32, count=1),
    PointField(name='rgb', offset=16, datatype=UINT32, count=1),
]
POINTS = np.array([[1, 2, 3], [4, math.nan, 6], [7, 8, 9], [-1, -2, -3]], np.float32)


def coloured_cloud():
    points = np.zeros(4, point_cloud2.dtype_from_fields(XYZ_RGB, point_step=24))
    points['x'], points['y'], points['z'] = POINTS.T
    points['rgb'] = [0xFF0000, 0x00FF00, 0x0000FF, 0x123456]
    return point_cloud2.create_cloud(HEADER, XYZ_RGB, points, point_step=24)


def test_xyz_points_come_back_as_they_went_in():
    for points in (POINTS, POINTS.tolist()):
        cloud = point_cloud2.create_cloud_xyz32(HEADER, points)
        assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (4, 1, 12, 48)
        assert cloud.header.frame_id == 'camera'
        found = point_cloud2.read_points_numpy(cloud)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, POINTS)


def test_fields_with_padding_lie_at_their_offsets():
    cloud = coloured_cloud()
    assert len(cloud.data) == 4 * 24
    assert bytes(cloud.data[24 * 3 + 16:24 * 3 + 20]) == b'\x56\x34\x12\x00'
    found = point_cloud2.read_points(cloud, ['rgb', 'x'])
    assert found.dtype.names == ('rgb', 'x')
    assert found['rgb'].tolist() == [0xFF0000, 0x00FF00, 0x0000FF, 0x123456]
    np.testing.assert_array_equal(
        point_cloud2.read_points_numpy(cloud, ['x', 'y', 'z']), POINTS
    )


def test_points_with_a_nan_are_skipped_on_request_unless_the_cloud_is_dense():
    cloud = coloured_cloud()
    kept = point_cloud2.read_points_numpy(cloud, ['x', 'y', 'z'], skip_nans=True)
    np.testing.assert_array_equal(kept, POINTS[[0, 2, 3]])
    cloud.is_dense = True
    assert len(point_cloud2.read_points(cloud, skip_nans=True)) == 4


def test_single_points_are_picked_by_index():
    cloud = coloured_cloud()
    picked = point_cloud2.read_points_list(cloud, ['z', 'x'], uvs=[3, 0])
    assert [(point.x, point.z) for point in picked] == [(-1.0, -3.0), (1.0, 3.0)]


def test_big_endian_clouds_are_swapped_without_touching_the_message():
    cloud = point_cloud2.create_cloud_xyz32(HEADER, POINTS.byteswap())
    cloud.is_bigendian = True
    for _ in range(2):
        np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), POINTS)


def test_an_organized_cloud_is_read_as_width_by_height():
    grid = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)
    cloud = point_cloud2.create_cloud_xyz32(HEADER, grid)
    assert (cloud.width, cloud.height) == (2, 3)
    found = point_cloud2.read_points_numpy(cloud, reshape_organized_cloud=True)
    np.testing.assert_array_equal(found, grid)


def test_fields_with_a_count_or_without_a_name_get_names_of_their_own():
    fields = [
        PointField(name='normal', offset=0, datatype=FLOAT32, count=3),
        PointField(name='', offset=12, datatype=UINT32, count=1),
    ]
    names = point_cloud2.dtype_from_fields(fields).names
    assert names == ('normal_0', 'normal_1', 'normal_2', f'{point_cloud2.DUMMY_FIELD_PREFIX}_1')


def test_wrong_requests_are_refused():
    cloud = coloured_cloud()
    with pytest.raises(AssertionError, match='not in the fields'):
        point_cloud2.read_points(cloud, ['intensity'])
    with pytest.raises(AssertionError, match='same datatype'):
        point_cloud2.read_points_numpy(cloud)
    with pytest.raises(AssertionError, match='do not match'):
        point_cloud2.create_cloud(HEADER, XYZ_RGB, np.zeros(3, [('x', np.float32)]))
    with pytest.raises(ValueError):
        point_cloud2.create_cloud_xyz32(HEADER, np.zeros((5, 4), np.float32))
