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

"""Keyframes as RTAB-Map takes them: exact sets with odometry, of one size and one scale."""

from collections.abc import Sequence

from exact_sync import ExactSync
from geometry_msgs.msg import PoseStamped
from helpers import (
    ExactBackend,
    FRAME,
    halved,
    HEIGHT,
    K,
    matrix_of,
    ODOM_FROM_WORLD,
    pixels_of,
    view_room,
    WIDTH,
)
import numpy as np
import pytest
from rclpy.time import Time
from robot import ODOMETRY
from sensor_msgs.msg import CameraInfo, Image
from tf_tree import SIMULATED

from mapanything_ros.core.datatypes import Keyframe, WindowPrediction
from mapanything_ros.core.estimation.scale import rescaled

TOPICS = {
    '/mapanything/keyframe/image': Image, '/mapanything/keyframe/depth': Image,
    '/mapanything/keyframe/camera_info': CameraInfo, '/mapanything/pose': PoseStamped}
KEYFRAMES = 13


class Wavering(ExactBackend):
    """Gives each window another scale, and calls it metric."""

    SCALES = (1.1, 0.92, 1.04, 0.95)

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        scale = self.SCALES[len(self.windows) % len(self.SCALES)]
        exact = super().infer(keyframes)
        return WindowPrediction(tuple(rescaled(view, scale) for view in exact.views), exact.scale)


@pytest.mark.parametrize('pose_use', ['fixed', 'prior'])
def test_sets_are_exact_of_one_size_and_one_scale(start_with_tree, pose_use):
    robot, tree = start_with_tree({
        **ODOMETRY, **SIMULATED, 'pose_use': pose_use, 'scale.source': 'odometry',
        'window.size': 3, 'window.overlap': 1}, Wavering())
    sync = ExactSync(robot, TOPICS)
    robot.wait_for_connections()
    all_seen = []
    for number in range(1, KEYFRAMES + 1):
        all_seen.append(robot.see())
        robot.wait_for(lambda n=number: robot.keyframes_taken() == n, 'a keyframe')
        if number >= 3 and number % 2:
            robot.keyframe(all_seen[-1].stamp_ns)
    robot.wait_for(lambda: len(sync.sets) == KEYFRAMES, 'a set')
    assert not sync.dropped
    for found, seen in zip(sync.sets, all_seen, strict=True):
        rgb, depth, info, pose = (found[topic] for topic in TOPICS)
        assert {(m.width, m.height) for m in (rgb, depth, info)} == {(WIDTH // 2, HEIGHT // 2)}
        assert {m.header.frame_id for m in (rgb, depth, info)} == {FRAME}
        # Odometry, by the node's topic and by TF, is that of the picture.
        truth = ODOM_FROM_WORLD @ seen.world_from_camera
        odometry = tree.buffer.lookup_transform(
            'odom', FRAME, Time(nanoseconds=seen.stamp_ns)).transform
        for where in ((odometry.translation, odometry.rotation),
                      (pose.pose.position, pose.pose.orientation)):
            assert np.allclose(matrix_of(*where), truth, atol=1e-4)
        true_depth_m = view_room(seen.world_from_camera, halved(K), WIDTH // 2, HEIGHT // 2)[1]
        ratio = pixels_of(depth) / np.where(true_depth_m > 0, true_depth_m, np.nan)
        assert np.nanmax(np.abs(ratio - 1)) < 1e-3
    assert len(robot.backend.windows) == 6, 'each of another scale'
