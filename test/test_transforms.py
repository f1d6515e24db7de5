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

"""Stamps, matrices and their messages, there and back."""

from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import Transform
from helpers import FRAME, header, matrix_of, rigid, transform
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tf2_ros import Buffer, ExtrapolationException, LookupException

from mapanything_ros.ros.transforms import (
    lookup,
    to_header,
    to_matrix,
    to_ns,
    to_pose,
    to_transform,
)

SECOND_NS = 10**9
angles = st.floats(-np.pi, np.pi)
lengths = st.floats(-1e3, 1e3)
rigid_matrices = st.builds(
    lambda euler, t: rigid(Rotation.from_euler('xyz', euler), t),
    st.tuples(angles, angles, angles), st.tuples(lengths, lengths, lengths))


@given(st.integers(0, (2**31 - 1) * SECOND_NS + SECOND_NS - 1))
def test_stamps_keep_every_nanosecond(stamp_ns):
    made = to_header(stamp_ns, 'map')
    assert to_ns(made.stamp) == stamp_ns
    assert made.frame_id == 'map'
    assert 0 <= made.stamp.nanosec < SECOND_NS


def test_a_stamp_is_split_into_seconds_and_the_rest():
    assert to_header(1_700_000_000_000_000_001, 'x').stamp == TimeMsg(sec=1_700_000_000, nanosec=1)


@given(rigid_matrices)
def test_a_transform_keeps_its_matrix(matrix):
    message = to_transform(matrix, to_header(5, 'map'), 'odom')
    assert (message.header.frame_id, message.child_frame_id) == ('map', 'odom')
    assert np.allclose(to_matrix(message.transform), matrix, atol=1e-9)
    found = matrix_of(message.transform.translation, message.transform.rotation)
    assert np.allclose(found, matrix, atol=1e-9)


@given(rigid_matrices)
def test_a_pose_is_where_the_source_frame_is(matrix):
    message = to_pose(matrix, to_header(5, 'map'))
    found = matrix_of(message.pose.position, message.pose.orientation)
    assert np.allclose(found, matrix, atol=1e-9)


def test_a_quaternion_that_is_not_quite_of_unit_length_is_a_rotation():
    message = Transform()
    message.rotation.z = message.rotation.w = 0.7072
    rotation = to_matrix(message)[:3, :3]
    assert np.allclose(rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-9)


@pytest.fixture
def buffer() -> Buffer:
    """Know odom -> base at 10 s and 12 s, two metres apart, and where the camera is."""
    buffer = Buffer()
    for sec, x in ((10, 0.0), (12, 2.0)):
        base = rigid(Rotation.identity(), [x, 0, 0])
        buffer.set_transform(transform(base, header(sec * SECOND_NS, 'odom'), 'base'), 'test')
    camera = rigid(Rotation.from_euler('z', 90, degrees=True), [0, 0, 0.5])
    buffer.set_transform_static(transform(camera, header(1, 'base'), FRAME), 'test')
    return buffer


def test_lookup_gives_target_from_source_at_exactly_the_time(buffer):
    found = lookup(buffer, 'odom', FRAME, 10_500_000_000)
    assert np.allclose(found[:3, 3], [0.5, 0, 0.5])
    assert np.allclose(found @ [1, 0, 0, 1], [0.5, 1, 0.5, 1])


def test_lookup_never_extrapolates(buffer):
    with pytest.raises(ExtrapolationException):
        lookup(buffer, 'odom', FRAME, 12 * SECOND_NS + 1)


def test_lookup_of_a_frame_that_nobody_knows(buffer):
    with pytest.raises(LookupException):
        lookup(buffer, 'odom', 'nowhere', 11 * SECOND_NS)
