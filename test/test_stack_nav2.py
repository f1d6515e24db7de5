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

"""Stamps of clouds and transforms as Nav2's costmaps need them: in the TF cache, told if late."""

from dataclasses import replace
import time

from helpers import FRAME, ODOM_FROM_WORLD, Seen, stamp_of
import numpy as np
import pytest
from rclpy.time import Time
from robot import CAMERA_FROM_BASE, ODOMETRY, Robot
from tf2_ros import TransformException
from tf_tree import SIMULATED, TfTree

SECOND_NS = 10**9
# What a tf2 buffer keeps unless told otherwise.
CACHE_S = 10


def late_window(robot: Robot, tree: TfTree, late_s: int) -> Seen:
    """See, and let the backend take so long, while clock and odometry go on."""
    robot.explore(1)
    robot.backend.free.clear()
    seen = robot.see()
    robot.wait_for(robot.backend.entered.is_set, 'a window')
    for second in range(1, late_s + 1):
        now = replace(seen, stamp_ns=seen.stamp_ns + second * SECOND_NS)
        robot.tick(now.stamp_ns)
        robot.move_to(now)
        found = tree.map_from(FRAME, now.stamp_ns)
        assert np.allclose(found, ODOM_FROM_WORLD @ seen.world_from_camera, atol=1e-6)
    robot.backend.free.set()
    return seen


@pytest.mark.parametrize('late_s', [CACHE_S - 2, CACHE_S + 2], ids=['cached', 'dropped'])
def test_a_cloud_later_than_the_tf_cache_is_dropped_and_its_latency_is_told(
    start_with_tree, late_s,
):
    robot, tree = start_with_tree({**ODOMETRY, **SIMULATED})
    seen = late_window(robot, tree, late_s)
    cloud = robot.keyframe(seen.stamp_ns)['points']
    where = ('map', cloud.header.frame_id, Time.from_msg(cloud.header.stamp))
    if late_s < CACHE_S:
        tree.buffer.lookup_transform(*where)
    else:
        with pytest.raises(TransformException, match='past'):
            tree.buffer.lookup_transform(*where)
    robot.wait_for(
        lambda: robot.status().get('latency_s') == f'{late_s:.3f}', f'a latency of {late_s} s')


@pytest.mark.parametrize('mode', [
    {**ODOMETRY, 'tf.mode': 'map_to_odom'}, {'tf.base_frame': 'base'}],
    ids=['map_to_odom', 'map_to_camera'])
@pytest.mark.parametrize('clock', [SIMULATED, {}], ids=['simulated', 'live'])
def test_each_cloud_has_its_transform_without_a_newer_image(start_with_tree, mode, clock):
    robot, tree = start_with_tree({**mode, **clock})
    if 'tf.odom_frame' in mode:
        # What comes first is valid a little later.
        robot.wait_for(lambda: tree.sent() and (clock or tree.buffer.can_transform(
            'map', 'odom', robot.peer.get_clock().now())), 'map->odom')
    first = None
    for _ in range(5):
        taken = robot.keyframes_taken()
        seen = robot.look() if clock else robot.look(time.time_ns())
        robot.send(seen)
        robot.wait_for(lambda n=taken: robot.keyframes_taken() > n, 'a keyframe')
        if first is None:
            first = seen
            map_from_world = ODOM_FROM_WORLD if 'tf.odom_frame' in mode else np.linalg.inv(
                seen.world_from_camera @ CAMERA_FROM_BASE)
            continue
        cloud = robot.keyframe(seen.stamp_ns)['points']
        found = tree.map_from(cloud.header.frame_id, stamp_of(cloud))
        assert np.allclose(found, map_from_world @ seen.world_from_camera, atol=1e-6)
        window = robot.wait_for(lambda at=seen.stamp_ns: next(
            (m for m in robot.heard['~/points'] if stamp_of(m) == at), None), '~/points')
        # A local costmap has them in odom.
        frame = 'odom' if 'tf.odom_frame' in mode else 'base'
        assert tree.buffer.can_transform(
            frame, window.header.frame_id, Time.from_msg(window.header.stamp))
    tree.map_from(FRAME, first.stamp_ns)
