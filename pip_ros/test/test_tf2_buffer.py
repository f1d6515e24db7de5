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
import threading

from geometry_msgs.msg import TransformStamped
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)
from tf_transformations import quaternion_from_matrix, quaternion_matrix

LATEST = Time()


def seconds(value: float) -> Time:
    return Time(nanoseconds=round(value * 1e9))


def stamped(parent, child, time_s=1.0, translation=(0.0, 0.0, 0.0), quat_xyzw=(0, 0, 0, 1)):
    """Return parent_from_child as a message."""
    message = TransformStamped()
    message.header.frame_id = parent
    message.child_frame_id = child
    message.header.stamp = seconds(time_s).to_msg()
    vector, rotation = message.transform.translation, message.transform.rotation
    vector.x, vector.y, vector.z = map(float, translation)
    rotation.x, rotation.y, rotation.z, rotation.w = map(float, quat_xyzw)
    return message


def matrix_of(message: TransformStamped) -> np.ndarray:
    vector, rotation = message.transform.translation, message.transform.rotation
    matrix = quaternion_matrix((rotation.x, rotation.y, rotation.z, rotation.w))
    matrix[:3, 3] = vector.x, vector.y, vector.z
    return matrix


def from_matrix(parent, child, matrix, time_s=1.0):
    return stamped(parent, child, time_s, matrix[:3, 3], quaternion_from_matrix(matrix))


def about_z(angle: float) -> np.ndarray:
    """Return the quaternion of a turn to the left."""
    return np.array([0, 0, math.sin(angle / 2), math.cos(angle / 2)])


def random_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=4)
    pose = quaternion_matrix(quat / np.linalg.norm(quat))
    pose[:3, 3] = rng.normal(size=3)
    return pose


def buffer_with(*messages: TransformStamped) -> Buffer:
    buffer = Buffer()
    for message in messages:
        buffer.set_transform(message, 'test')
    return buffer


def test_a_point_of_the_child_lands_where_the_transform_says():
    buffer = buffer_with(stamped('map', 'robot', 1.0, (10, 0, 0), about_z(math.pi / 2)))
    map_from_robot = matrix_of(buffer.lookup_transform('map', 'robot', seconds(1.0)))
    one_metre_ahead = np.array([1.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(map_from_robot @ one_metre_ahead, [10, 1, 0, 1], atol=1e-12)


@given(st.integers(0, 10_000))
def test_lookups_chain_through_the_common_ancestor_both_ways(seed):
    poses = {
        name: random_pose(seed + index)
        for index, name in enumerate(['base', 'arm', 'hand', 'camera'])
    }
    buffer = buffer_with(
        from_matrix('root', 'base', poses['base']),
        from_matrix('base', 'arm', poses['arm']),
        from_matrix('arm', 'hand', poses['hand']),
        from_matrix('base', 'camera', poses['camera']),
    )
    camera_from_hand = np.linalg.inv(poses['camera']) @ poses['arm'] @ poses['hand']
    found = matrix_of(buffer.lookup_transform('camera', 'hand', seconds(1.0)))
    np.testing.assert_allclose(found, camera_from_hand, atol=1e-9)
    back = matrix_of(buffer.lookup_transform('hand', 'camera', seconds(1.0)))
    np.testing.assert_allclose(back @ found, np.eye(4), atol=1e-9)


def test_between_samples_position_is_linear_and_rotation_takes_the_shorter_arc():
    negated = -about_z(math.radians(-160))
    buffer = buffer_with(
        stamped('map', 'robot', 1.0, (0, 0, 0)),
        stamped('map', 'robot', 3.0, (4, 8, -2), negated),
    )
    found = matrix_of(buffer.lookup_transform('map', 'robot', seconds(1.5)))
    np.testing.assert_allclose(found[:3, 3], [1, 2, -0.5], atol=1e-12)
    expected = quaternion_matrix(about_z(math.radians(-40)))
    np.testing.assert_allclose(found[:3, :3], expected[:3, :3], atol=1e-12)


def test_zero_time_means_the_latest_time_that_all_dynamic_transforms_share():
    buffer = buffer_with(
        stamped('map', 'odom', 1.0), stamped('map', 'odom', 3.0, (2, 0, 0)),
        stamped('odom', 'base', 1.0), stamped('odom', 'base', 2.0, (0, 5, 0)),
    )  # fmt: skip
    buffer.set_transform_static(stamped('base', 'camera', 99.0, (0, 0, 1)), 'test')
    found = buffer.lookup_transform('map', 'camera', LATEST)
    assert Time.from_msg(found.header.stamp).nanoseconds == 2_000_000_000
    np.testing.assert_allclose(matrix_of(found)[:3, 3], [1, 5, 1], atol=1e-12)


def test_stamps_keep_their_nanoseconds():
    stamp_ns = 1_795_220_872_123_456_789
    message = stamped('map', 'robot')
    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
    found = buffer_with(message).lookup_transform('map', 'robot', Time(nanoseconds=stamp_ns))
    assert Time.from_msg(found.header.stamp).nanoseconds == stamp_ns
    with pytest.raises(ExtrapolationException):
        buffer_with(message).lookup_transform('map', 'robot', Time(nanoseconds=stamp_ns + 1))


def test_a_static_transform_is_valid_at_all_times_and_outlives_clear():
    buffer = Buffer()
    buffer.set_transform_static(stamped('base', 'camera', 5.0, (1, 2, 3)), 'test')
    buffer.clear()
    for time_s in (0.0, 1.0, 1e6):
        found = buffer.lookup_transform('base', 'camera', seconds(time_s))
        np.testing.assert_allclose(matrix_of(found)[:3, 3], [1, 2, 3])


@pytest.mark.parametrize(
    'time_s, direction, known', [(0.5, 'past', '1.000000'), (2.5, 'future', '2.000000')]
)
def test_extrapolation_is_refused_and_says_where_to(time_s, direction, known):
    buffer = buffer_with(stamped('map', 'robot', 1.0), stamped('map', 'robot', 2.0))
    with pytest.raises(ExtrapolationException) as error:
        buffer.lookup_transform('map', 'robot', seconds(time_s))
    text = str(error.value)
    assert f'extrapolation into the {direction}' in text
    assert f'{time_s:.6f}' in text and known in text
    assert 'from frame [robot] to frame [map]' in text


@pytest.mark.parametrize(
    'target, source, error',
    [
        ('map', 'nowhere', LookupException),
        ('map', 'island', ConnectivityException),
        ('', 'robot', InvalidArgumentException),
        ('/map', 'robot', InvalidArgumentException),
    ],
)
def test_each_failure_has_its_exception(target, source, error):
    buffer = buffer_with(stamped('map', 'robot'), stamped('sea', 'island'))
    with pytest.raises(error):
        buffer.lookup_transform(target, source, LATEST)
    assert issubclass(error, TransformException)
    assert not buffer.can_transform(target, source, LATEST)


def test_a_loop_in_the_tree_is_found():
    buffer = buffer_with(stamped('a', 'b'), stamped('b', 'a'), stamped('x', 'y'))
    with pytest.raises(LookupException, match='contains a loop'):
        buffer.lookup_transform('x', 'a', LATEST)


@pytest.mark.parametrize(
    'parent, child, translation, quat_xyzw',
    [
        ('robot', 'robot', (0, 0, 0), (0, 0, 0, 1)),
        ('', 'robot', (0, 0, 0), (0, 0, 0, 1)),
        ('map', '', (0, 0, 0), (0, 0, 0, 1)),
        ('map', 'robot', (math.nan, 0, 0), (0, 0, 0, 1)),
        ('map', 'robot', (0, 0, 0), (0, math.nan, 0, 1)),
        ('map', 'robot', (0, 0, 0), (0, 0, 0, 0)),
    ],
)
def test_a_transform_that_makes_no_sense_is_ignored(parent, child, translation, quat_xyzw):
    buffer = buffer_with(stamped('map', 'other'))
    buffer.set_transform(stamped(parent, child, 1.0, translation, quat_xyzw), 'test')
    assert not buffer.can_transform('map', 'robot', LATEST)
    assert buffer.can_transform('map', 'other', LATEST)


def test_rotations_are_normalised_and_leading_slashes_dropped_on_the_way_in():
    buffer = buffer_with(stamped('/map', '/robot', 1.0, (0, 0, 0), (0, 0, -2, -2)))
    rotation = buffer.lookup_transform('map', 'robot', LATEST).transform.rotation
    assert (rotation.z, rotation.w) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))


def test_the_cache_forgets_and_refuses_what_is_too_old():
    buffer = Buffer(cache_time=Duration(seconds=2))
    for time_s in (1.0, 2.0, 5.0, 5.5):
        buffer.set_transform(stamped('map', 'robot', time_s, (time_s, 0, 0)), 'test')
    assert not buffer.can_transform('map', 'robot', seconds(2.0))
    buffer.set_transform(stamped('map', 'robot', 3.0, (-1, 0, 0)), 'test')
    assert not buffer.can_transform('map', 'robot', seconds(3.0))
    late_but_in_time = stamped('map', 'robot', 4.0, (40, 0, 0))
    buffer.set_transform(late_but_in_time, 'test')
    found = matrix_of(buffer.lookup_transform('map', 'robot', seconds(4.5)))
    assert found[0, 3] == pytest.approx((40 + 5) / 2)


def test_readers_and_writers_do_not_disturb_each_other():
    buffer = buffer_with(stamped('map', 'robot', 1.0, (1, 0, 0)))
    failures: list[BaseException] = []

    def write():
        for step in range(1, 2000):
            buffer.set_transform(stamped('map', 'robot', step * 0.01, (step, 0, 0)), 'test')

    def read():
        try:
            for _ in range(2000):
                found = buffer.lookup_transform('map', 'robot', LATEST)
                assert found.transform.translation.x >= 1.0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=task) for task in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
