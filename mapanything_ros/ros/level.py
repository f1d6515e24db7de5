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

"""Which way is up in the camera, from the messages of an IMU."""

from __future__ import annotations

from collections.abc import Callable
import time

import numpy as np
from sensor_msgs.msg import Imu
from tf2_ros import Buffer, TransformException

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.estimation.gravity import REST_NS, RestDetector
from mapanything_ros.ros.reporter import Warns
from mapanything_ros.ros.transforms import lookup, to_ns

# The IMU's messages may come so much later than an image of the same time: they come in batches.
LAG_NS = 100_000_000
# Stamps of camera and IMU that are farther apart are of different clocks.
APART_S = 1.0


class Level:
    """
    Tells of an image which way is up, where an IMU was at rest in the second before.

    What is wrong with the IMU is reported while somebody asks. ``clock`` gives the seconds that
    silence is measured in.
    """

    def __init__(
        self, buffer: Buffer, reporter: Warns, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buffer = buffer
        self._reporter = reporter
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self._detector = RestDetector()
        self._frame_id = ''
        self._asked_s: float | None = None

    def add(self, message: Imu) -> None:
        """Take a message of the IMU."""
        if message.header.frame_id != self._frame_id:
            self._detector = RestDetector()
            self._frame_id = message.header.frame_id
        a, w = message.linear_acceleration, message.angular_velocity
        # sensor_msgs/Imu: -1 where a driver does not know it, as those that send the gyro apart.
        unknown = message.angular_velocity_covariance[0] == -1.0
        self._detector.add(
            to_ns(message.header.stamp), np.array([a.x, a.y, a.z]),
            np.zeros(3) if unknown else np.array([w.x, w.y, w.z]))

    def up(self, frame_id: str, stamp_ns: int) -> Array | None:
        """Return the unit vector (3,) up in a camera's frame at a time, None if not known."""
        if self._asked_s is None:
            self._asked_s = self._clock()
        rest = self._detector.rest
        if rest is None:
            self._complain()
            return None
        if not rest.start_ns <= stamp_ns <= rest.end_ns + LAG_NS:
            apart_s = (stamp_ns - rest.end_ns) * 1e-9
            if abs(apart_s) > APART_S:
                self._reporter.warn(
                    'imu', f'not level yet: an image is stamped {abs(apart_s):.3f} s '
                    f'{"after" if apart_s > 0 else "before"} the newest message of the IMU: '
                    'synchronise the clocks of camera and IMU')
            return None
        if self._frame_id == frame_id:
            return rest.up
        try:
            # The newest: the IMU is fixed to the camera.
            camera_from_imu = lookup(self._buffer, frame_id, self._frame_id, 0)
        except (TransformException, ValueError) as error:
            self._reporter.warn(
                'imu', f'not level yet: TF does not tie the frame of the IMU, '
                f'{self._frame_id!r}, to {frame_id}: {str(error).strip()}')
            return None
        up: Array = camera_from_imu[:3, :3] @ rest.up
        return up

    def _complain(self) -> None:
        """Report why gravity is not known, once there was time enough to measure it."""
        assert self._asked_s is not None
        if self._detector.problem:
            self._reporter.warn('imu', f'not level yet: {self._detector.problem}')
        elif self._clock() - self._asked_s > 2 * REST_NS * 1e-9:
            self._reporter.warn(
                'imu', 'not level yet: no second of messages has come from the IMU: remap imu to '
                'its topic, or set use_imu to false')
