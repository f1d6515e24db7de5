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
from sensor_msgs.msg import PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

FLOAT32, UINT32 = PointField.FLOAT32, PointField.UINT32
XYZ = [
    PointField(name=name, offset=4 * index, datatype=FLOAT32, count=1)
    for index, name in enumerate('xyz')
]
POINTS = np.array([[1, 2, 3], [4, math.nan, 6], [7, 8, 9], [-1, -2, -3]], np.float32)


def test_xyz_points_come_back_as_they_went_in():
    points = np.zeros(4, point_cloud2.dtype_from_fields(XYZ))
    points['x'], points['y'], points['z'] = POINTS.T
    cloud = point_cloud2.create_cloud(Header(frame_id='camera'), XYZ, points)
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (4, 1, 12, 48)
    assert cloud.header.frame_id == 'camera'
    assert bytes(cloud.data) == POINTS.tobytes()
    found = point_cloud2.read_points(cloud)
    assert found.dtype == points.dtype
    for name in 'xyz':
        np.testing.assert_array_equal(found[name], points[name])


def test_points_of_another_type_than_the_fields_say_are_refused():
    with pytest.raises(AssertionError, match='do not match'):
        point_cloud2.create_cloud(Header(), XYZ, np.zeros(3, [('x', np.float32)]))


def test_fields_with_padding_lie_at_their_offsets():
    rgb = PointField(name='rgb', offset=16, datatype=UINT32, count=1)
    data = np.zeros((4, 24), np.uint8)
    data[:, :12] = POINTS.view(np.uint8)
    data[3, 16:20] = 0x56, 0x34, 0x12, 0x00
    found = point_cloud2.read_points(PointCloud2(
        width=2, height=2, fields=[*XYZ, rgb], point_step=24, row_step=48, data=data.tobytes()))
    assert found['rgb'].tolist() == [0, 0, 0, 0x123456]
    np.testing.assert_array_equal(np.stack([found[name] for name in 'xyz'], axis=1), POINTS)
