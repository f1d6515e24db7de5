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

"""Poses in between are those of tf2; what nobody knows is said, not made up."""

from helpers import header, rigid, transform
import numpy as np
import pytest
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from tf2_ros import Buffer

from mapanything_ros.core.frames.pose_history import PoseHistory
from mapanything_ros.ros.transforms import to_matrix

START_NS = 1_700_000_000_123_456_789
STEP_NS = 100_000_001


def poses(count):
    return [
        rigid(Rotation.from_euler('zyx', [0.2 * i, 0.05 * i, -0.1 * i]), [0.1 * i, 0.02 * i**2, 0])
        for i in range(count)]


def history(all_poses, step_ns=STEP_NS, keep_ns=10**12):
    made = PoseHistory(keep_ns, 5 * 10**8)
    for index, pose in enumerate(all_poses):
        assert made.add(START_NS + index * step_ns, pose) == ''
    return made


def test_between_two_poses_it_is_where_tf2_is():
    made, buffer = history(poses(8)), Buffer()
    for index, pose in enumerate(poses(8)):
        stamp = header(START_NS + index * STEP_NS, 'odom')
        buffer.set_transform(transform(pose, stamp, 'base'), 'test')
    for share in np.linspace(0, 7, 40):
        stamp_ns = START_NS + int(share * STEP_NS)
        told = buffer.lookup_transform('odom', 'base', Time(nanoseconds=stamp_ns)).transform
        np.testing.assert_allclose(made.at(stamp_ns), to_matrix(told), atol=1e-9)


def test_before_after_and_without_any_it_says_so():
    made = history(poses(3))
    with pytest.raises(LookupError, match=r'the newest is 0\.001 s older'):
        made.at(START_NS + 2 * STEP_NS + 10**6)
    with pytest.raises(LookupError, match=r'the oldest is 0\.001 s newer'):
        made.at(START_NS - 10**6)
    made.clear()
    with pytest.raises(LookupError, match='none yet'):
        made.at(START_NS)


def test_nothing_is_made_up_in_a_gap():
    made = history(poses(2))
    problem = made.add(START_NS + STEP_NS + 6 * 10**8, poses(3)[2])
    assert 'a gap of 0.600 s' in problem
    with pytest.raises(LookupError, match='gap'):
        made.at(START_NS + STEP_NS + 3 * 10**8)
    np.testing.assert_allclose(made.at(START_NS + STEP_NS + 6 * 10**8), poses(3)[2])


def test_nothing_is_made_up_while_it_is_reset():
    made = history([rigid(Rotation.identity(), [0.05 * i, 0, 0]) for i in range(50)], 10**7)
    problem = made.add(START_NS + 50 * 10**7, np.eye(4))
    assert 'jumps by' in problem and 'reset' in problem
    with pytest.raises(LookupError, match='jumps'):
        made.at(START_NS + 49 * 10**7 + 5 * 10**6)


def test_a_stamp_that_does_not_rise_is_not_taken():
    made = history(poses(3))
    for stamp_ns in (START_NS + 2 * STEP_NS, START_NS):
        assert 'ignored' in made.add(stamp_ns, np.eye(4))
    np.testing.assert_allclose(made.at(START_NS), poses(1)[0])


def test_it_forgets_what_is_old_and_keeps_what_it_must():
    made = history(poses(1) * 1000, 10**7, keep_ns=10**9)
    assert 100 <= len(made) <= 201
    np.testing.assert_allclose(made.at(START_NS + 9 * 10**9), np.eye(4))


def wheels(count, turn, place, lift):
    """
    Give poses of a drive in bends and, to first order, their covariances, as a filter has them.

    Each step adds ``turn`` rad^2 and ``place`` m^2; of heights nothing is known, a large ``lift``.
    """
    pose, covariance = np.eye(4), np.diag([0.0, 0.0, lift, lift, lift, 0.0])
    for index in range(count):
        yield pose, covariance
        after = pose @ rigid(Rotation.from_euler('z', 0.1 * np.sin(index)), [0.2, 0.05, 0])
        lever = np.eye(6)
        lever[:2, 5] = [-(after[1, 3] - pose[1, 3]), after[0, 3] - pose[0, 3]]
        covariance = lever @ covariance @ lever.T + np.diag([place, place, 0, 0, 0, turn])
        pose = after


@pytest.mark.parametrize('lift', [0.0, 1e6])
def test_covariances_that_grow_tell_how_uncertain_each_step_is(lift):
    made = PoseHistory(10**12, 5 * 10**8)
    for index, (pose, covariance) in enumerate(wheels(60, 1e-5, 4e-4, lift)):
        assert made.add(START_NS + index * STEP_NS, pose, covariance) == ''
    # By then a third of the place's variance is there because the heading's is.
    assert covariance[0, 0] + covariance[1, 1] > 1.5 * 59 * 2 * 4e-4
    for start, end in ((0, 1), (3, 40), (20, 59)):
        told = made.variance_at(START_NS + end * STEP_NS) - made.variance_at(
            START_NS + start * STEP_NS)
        np.testing.assert_allclose(told, (end - start) * np.array([1e-5, 4e-4]), rtol=1e-6)
    between = made.variance_at(START_NS + 10 * STEP_NS + STEP_NS // 4)
    np.testing.assert_allclose(between, 10.25 * np.array([1e-5, 4e-4]), rtol=1e-6)


@pytest.mark.parametrize('constant', [
    None, np.zeros((6, 6)), np.diag([1e-5, 1e-5, 1e12, 1e12, 1e12, 1e-3]), np.full((6, 6), np.nan),
    np.diag([np.inf] * 6)], ids=['none', 'zero', 'gazebo', 'nan', 'inf'])
def test_covariances_that_say_nothing_do_not_make_a_step_uncertain(constant):
    made = PoseHistory(10**12, 5 * 10**8)
    for index, (pose, _) in enumerate(wheels(20, 0, 0, 0)):
        made.add(START_NS + index * STEP_NS, pose, constant)
    told = made.variance_at(START_NS + 19 * STEP_NS)
    assert np.isfinite(told).all() and (told <= 0).all()
