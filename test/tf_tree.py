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

"""The TF tree as other nodes know it, and what makes one unsound."""

from __future__ import annotations

from geometry_msgs.msg import TransformStamped
from helpers import matrix_of, stamp_of
import numpy as np
from rclpy.time import Time
from robot import Robot
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformListener

from benchmarks.evaluate.tf_faults import faults_of, parents_of

# Each tick of the robot is soon a stamp of map->odom.
SIMULATED = {'use_sim_time': True, 'tf.rate_hz': 100.0, 'tf.tolerance_s': 0.0}


class TfTree:
    """Hears all transforms, those of the node under test and the robot's own."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self.buffer = Buffer()
        self.listener = TransformListener(self.buffer, robot.peer)
        for topic in ('/tf', '/tf_static'):
            robot.peer.create_subscription(
                TFMessage, topic, robot.heard[topic].append,
                self.listener.tf_static_sub.qos_profile if topic == '/tf_static' else 100)

    def heard(self, topic: str = '/tf') -> list[TransformStamped]:
        return [item for message in self._robot.heard[topic] for item in message.transforms]

    def sent(self) -> list[TransformStamped]:
        """Return what the node sent; the robot itself never sends a child of map."""
        return [item for item in self.heard() if item.header.frame_id == 'map']

    def parents(self) -> dict[str, set[str]]:
        return parents_of([*self.heard(), *self.heard('/tf_static')])

    def map_from(self, frame: str, stamp_ns: int) -> np.ndarray:
        """Wait for the transform at exactly this time."""
        at = Time(nanoseconds=stamp_ns)
        self._robot.wait_for(lambda: self.buffer.can_transform('map', frame, at), 'a transform')
        found = self.buffer.lookup_transform('map', frame, at)
        assert stamp_of(found) == stamp_ns
        return matrix_of(found.transform.translation, found.transform.rotation)

    def assert_sound(self) -> None:
        """Fail with all that is wrong with what was heard since the start."""
        faults = list(faults_of(self.heard(), self.heard('/tf_static')))
        assert not faults, faults
