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

"""A stranger's camera, and a node that knows its topics and nothing else."""

from dataclasses import replace

from helpers import BODY_FROM_OPTICAL, camera_on_path, FRAME, header, image, rigid, Seen, transform
import numpy as np
import pytest
from robot import QUICK, Robot
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage
from tf_tree import TfTree

from mapanything_ros.core.config import Config, options

PERIOD_NS = 10**9 // 15
# Depth at every second image, and so much later than its image.
LATE_NS = 3_000_000
LINK_FROM_FRAME = rigid(Rotation.from_euler('z', 1, degrees=True), [0.0, 0.015, 0.0])
# Nothing that the tests set elsewhere to be quick; but the stream stops where the machine is busy.
DEFAULTS = {
    **{name: item.default for name, item in options(Config) if name in QUICK and name != 'device'},
    'tf.timeout_s': 30.0}
DRIVE, SLOW = 60, 8
# 12 s, longer than tf2 remembers; the last image has depth.
STAND = 181


class Driver:
    """Publishes as realsense2_camera does: colour at 15 Hz, depth with every second image."""

    def __init__(self, robot: Robot, with_depth: bool) -> None:
        self._robot = robot
        self._with_depth = with_depth
        robot.tf_static.publish(TFMessage(transforms=[
            transform(LINK_FROM_FRAME, header(1, 'camera_link'), 'camera_color_frame'),
            transform(BODY_FROM_OPTICAL, header(1, 'camera_color_frame'), FRAME)]))
        robot.wait_for(lambda: robot.node._buffer.parent(FRAME), 'the tree of the camera')
        robot.calibrate()
        self.images = 0

    def publish(self, seen: Seen) -> None:
        self._robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))
        if self._with_depth and self.images % 2 == 0:
            self._robot.depths.publish(image(
                np.rint(1000 * seen.depth_m).astype(np.uint16), '16UC1', seen.stamp_ns + LATE_NS))
        self.images += 1
        self._robot.wait_for(lambda: self._robot.node._images == self.images, 'the image')
        # Images come faster here than windows are placed on a busy machine.
        window = self._robot.node._reconstructor._window
        self._robot.wait_for(lambda: not window.ready(), 'a window to be taken')

    def drive(self) -> list[Seen]:
        """Move 4 s along the path."""
        all_seen = []
        for index in range(DRIVE):
            self._robot.index = index / SLOW
            self._robot.next_ns += PERIOD_NS
            all_seen.append(self._robot.look(self._robot.next_ns))
            self.publish(all_seen[-1])
        return all_seen

    def stand(self, last: Seen) -> Seen:
        """Look at the same for 12 s."""
        for _ in range(STAND):
            last = replace(last, stamp_ns=last.stamp_ns + PERIOD_NS)
            self._robot.backend.seen[last.stamp_ns] = last
            self.publish(last)
        return last


@pytest.mark.parametrize('with_depth', [False, True])
def test_a_driver_s_topics_are_enough(start, with_depth):
    robot = start({**DEFAULTS, **({'use_depth': True} if with_depth else {})})
    tree = TfTree(robot)
    driver = Driver(robot, with_depth)
    all_seen = driver.drive()
    last = driver.stand(all_seen[-1])
    taken = robot.keyframes_taken()
    assert taken > 5
    path = robot.path(taken)
    # All that the camera saw is on the map, and the map where it saw it.
    stamps = [pose.header.stamp.sec * 10**9 + pose.header.stamp.nanosec for pose in path.poses]
    first = next(seen for seen in all_seen if seen.stamp_ns == stamps[0])
    world_from_map = first.world_from_camera @ np.linalg.inv(BODY_FROM_OPTICAL)
    assert robot.newest('~/map').width > 1000 and robot.newest('~/points').width > 1000
    # Fresh at the end.
    optical_from_link = np.linalg.inv(LINK_FROM_FRAME @ BODY_FROM_OPTICAL)
    found = world_from_map @ tree.map_from('camera_link', last.stamp_ns)
    truth = camera_on_path((DRIVE - 1) / SLOW) @ optical_from_link
    assert np.linalg.norm((found - truth)[:3, 3]) < 0.06, 'within a step of a keyframe'
    assert tree.parents() == {
        'camera_link': {'map'}, 'camera_color_frame': {'camera_link'},
        FRAME: {'camera_color_frame'}}
    tree.assert_sound()
    if with_depth:
        given = [key for window in robot.backend.windows for key in window]
        assert given and all(key.depth_m is not None for key in given)
    status = robot.status()
    assert not [name for name in status if name.startswith('warnings_')], status
    tree.listener.unregister()
