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

"""Odometry that comes by topic, in place of TF."""

from __future__ import annotations

from dataclasses import replace

from nav_msgs.msg import Odometry
import numpy as np

from mapanything_ros.core.config import TfConfig
from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.frames.pose_history import PoseHistory
from mapanything_ros.ros.reporter import Warns
from mapanything_ros.ros.transforms import pose_to_matrix, to_ns

# As long as tf2's buffer.
KEEP_NS = 10 * 10**9
# Where robots send odometry, they do so 10 to 100 times a second; a robot can turn in half of one.
MAX_GAP_NS = 500_000_000
# tf2 refuses quaternions whose squared length is farther from 1.
QUATERNION_TOLERANCE = 1e-2


class OdometryTopic:
    """
    Where odometry had the robot, from nav_msgs/Odometry.

    Kept apart from TF: where /tf has the same transform, or the base has another parent there,
    nothing fights. ``tf`` has the frames, by the messages where the configuration leaves them
    empty; ``body_frame`` is the one whose pose is told (child_frame_id).
    """

    def __init__(self, tf: TfConfig, reporter: Warns, keep_ns: int = KEEP_NS) -> None:
        self._reporter = reporter
        self._history = PoseHistory(keep_ns, MAX_GAP_NS)
        self.tf = tf
        self.body_frame = ''

    def clear(self) -> None:
        """Forget all poses: time has gone back."""
        self._history.clear()

    def at(self, stamp_ns: int) -> Array:
        """Return (4,4) ``odom_from_body``, interpolated; raise LookupError, with the reason."""
        return self._history.at(stamp_ns)

    def variance_at(self, stamp_ns: int) -> Array:
        """Return what the messages say of their errors until then; see PoseHistory."""
        return self._history.variance_at(stamp_ns)

    def add(self, message: Odometry) -> None:
        """Take a message; one that cannot be used is reported."""
        problem = self._objection(message)
        if not problem:
            problem = self._history.add(
                to_ns(message.header.stamp), pose_to_matrix(message.pose.pose),
                np.reshape(message.pose.covariance, (6, 6)))
        if problem:
            self._reporter.warn('odometry', f'odometry: {problem}')

    def _objection(self, message: Odometry) -> str:
        """Return why a message is no use, else take its frames."""
        p, q = message.pose.pose.position, message.pose.pose.orientation
        numbers = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        if not np.isfinite(numbers).all():
            return 'a pose is not finite; its source is at fault, it is ignored'
        square = float(numbers[3:] @ numbers[3:])
        if abs(square - 1.0) > QUATERNION_TOLERANCE:
            return (
                f'a quaternion has the length {square ** 0.5:.3f} instead of 1; its source is at '
                'fault, it is ignored')
        frame = message.header.frame_id or self.tf.odom_frame
        body = message.child_frame_id or self.tf.base_frame
        if not (frame and body):
            return (
                'a message names no frames (header.frame_id, child_frame_id): set tf.odom_frame '
                'and tf.base_frame')
        if frame != (self.tf.odom_frame or frame) or body != (self.body_frame or body):
            return (
                f'a message is of {body} in {frame}, but expected is '
                f'{self.body_frame or "the robot"} in {self.tf.odom_frame}: set tf.odom_frame to '
                'match, and let one source alone send on the topic; it is ignored')
        self.body_frame = body
        self.tf = replace(self.tf, odom_frame=frame, base_frame=self.tf.base_frame or body)
        return ''
