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

"""Poses with covariance, for filters and for RTAB-Map, as they go over DDS."""

from geometry_msgs.msg import PoseWithCovarianceStamped
from helpers import BASE_FROM_CAMERA, FRAME, matrix_of, ODOM_FROM_WORLD, rigid, stamp_of
from nav_msgs.msg import Odometry
import numpy as np
from robot import ODOMETRY
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.ros.messages import odometry_message

CAMERA_FROM_BASE = np.linalg.inv(BASE_FROM_CAMERA)


def covariance_of(message):
    return np.array(message.pose.covariance).reshape(6, 6)


def pose_of(message):
    pose = message.pose.pose
    return matrix_of(pose.position, pose.orientation)


def listened(robot):
    robot.listen(Odometry, '~/odometry')
    robot.listen(PoseWithCovarianceStamped, '~/pose_with_covariance')
    robot.wait_for_connections()


def test_each_keyframe_s_pose_goes_out_with_its_covariance(start):
    robot = start({**ODOMETRY, 'pose_use': 'prior'})
    robot.mount()
    robot.calibrate()
    listened(robot)
    all_seen = robot.explore(4)
    for topic in ('~/odometry', '~/pose_with_covariance'):
        robot.wait_for(lambda t=topic: len(robot.heard[t]) == 4, topic)
        for message, seen in zip(robot.heard[topic], all_seen, strict=True):
            assert stamp_of(message) == seen.stamp_ns and message.header.frame_id == 'map'
            truth = ODOM_FROM_WORLD @ seen.world_from_camera @ CAMERA_FROM_BASE
            np.testing.assert_allclose(pose_of(message), truth, atol=1e-6)
            covariance = covariance_of(message)
            np.testing.assert_allclose(covariance, covariance.T, atol=1e-15)
            assert np.linalg.eigvalsh(covariance).min() > 0
            # The backend is exact, and what is not known of that yet is small.
            assert 1e-5 < np.sqrt(np.diag(covariance)).max() < 0.1
    for message in robot.heard['~/odometry']:
        assert message.child_frame_id == 'base'
        # RTAB-Map takes the covariance of the pose where that of the velocity is this.
        assert message.twist.covariance[0] == 9999.0
    first, last = (np.trace(covariance_of(robot.heard['~/odometry'][i])) for i in (0, -1))
    assert first != last


def test_without_a_base_it_is_the_camera_s_pose(start):
    robot = start()
    robot.calibrate()
    listened(robot)
    all_seen = robot.explore(2)
    robot.wait_for(lambda: len(robot.heard['~/odometry']) == 2, '~/odometry')
    poses = {stamp_of(pose): pose.pose for pose in robot.path(2).poses}
    for message, seen in zip(robot.heard['~/odometry'], all_seen, strict=True):
        assert message.child_frame_id == FRAME
        pose = poses[seen.stamp_ns]
        np.testing.assert_allclose(
            pose_of(message), matrix_of(pose.position, pose.orientation), atol=1e-9)


def test_nothing_is_made_that_nobody_listens_to(start, monkeypatch):
    made = []

    def count(*arguments):
        made.append(odometry_message(*arguments))
        return made[-1]

    monkeypatch.setattr('mapanything_ros.ros.publishers.odometry_message', count)
    robot = start()
    robot.calibrate()
    robot.explore(3)
    robot.path(3)
    assert not made
    robot.listen(PoseWithCovarianceStamped, '~/pose_with_covariance')
    robot.wait_for_connections()
    robot.explore(1, anew=True)
    robot.wait_for(lambda: robot.heard['~/pose_with_covariance'], 'a pose')
    assert len(made) == 1


def test_the_base_errs_as_the_camera_does_and_by_its_lever():
    rng = np.random.default_rng(0)
    spread = np.diag([0.02, 0.01, 0.03, 0.01, 0.03, 0.02]) @ rng.standard_normal((6, 6)) / 2
    covariance = spread @ spread.T
    map_from_camera = rigid(Rotation.random(random_state=1), [3.0, -2.0, 1.0])
    camera_from_base = rigid(Rotation.random(random_state=2), [0.5, 1.0, -2.0])
    keyframe = Keyframe(
        0, 1, FRAME, np.zeros((1, 1, 3), np.uint8),
        base_from_camera=np.linalg.inv(camera_from_base))
    message = odometry_message(map_from_camera, covariance, keyframe, 'map', 'base')
    truth = pose_of(message)
    errors = []
    for draw in rng.multivariate_normal(np.zeros(6), covariance, 20000):
        wrong = map_from_camera.copy()
        wrong[:3, :3] = Rotation.from_rotvec(draw[3:]).as_matrix() @ wrong[:3, :3]
        wrong[:3, 3] += draw[:3]
        base = wrong @ camera_from_base
        errors.append(np.concatenate([
            base[:3, 3] - truth[:3, 3],
            Rotation.from_matrix(base[:3, :3] @ truth[:3, :3].T).as_rotvec()]))
    size = np.sqrt(np.diag(covariance_of(message)))
    relative = np.cov(np.array(errors).T) / np.outer(size, size)
    np.testing.assert_allclose(
        relative, covariance_of(message) / np.outer(size, size), atol=0.05)
    assert size[:3].max() > 1.2 * np.sqrt(np.diag(covariance)[:3]).max(), 'the lever counts'
