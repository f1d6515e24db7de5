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

"""A cheap IMU on the camera, and cameras that are not level."""

from __future__ import annotations

from dataclasses import dataclass

from geometry_msgs.msg import TransformStamped
import helpers
from helpers import camera_on_path, header, rigid, transform
import numpy as np
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Imu

G = 9.81
UP = np.array([0.0, 0.0, 1.0])
FRAME = 'imu_link'
CAMERA_FROM_IMU = rigid(
    Rotation.from_euler('xyz', [-80, 5, 100], degrees=True), [0.01, -0.02, 0.03])
# MPU-6050: 400 ug/sqrt(Hz) and 0.005 deg/s/sqrt(Hz) at 260 Hz, off by 50, 50 and 80 mg.
NOISE, RATE_NOISE = 0.063, 0.0014
OFFSET = G * np.array([0.05, -0.05, 0.08])
# The same after its offset was calibrated: a tenth is left.
CALIBRATED = 0.1 * OFFSET
HZ = 200


@dataclass
class CheapImu:
    """Makes messages of an IMU that is fixed to a camera."""

    rng: np.random.Generator
    offset: np.ndarray
    unit: float = 1.0
    shaking: float = 0.0

    def message(self, stamp_ns: int, world_from_camera: np.ndarray) -> Imu:
        world_from_imu = world_from_camera @ CAMERA_FROM_IMU
        force = G * world_from_imu[:3, :3].T @ UP + self.offset
        force = force + (NOISE + self.shaking) * self.rng.standard_normal(3)
        return message(stamp_ns, force * self.unit, RATE_NOISE * self.rng.standard_normal(3))

    def second(
        self, end_ns: int, world_from_camera: np.ndarray, seconds: float = 1.2,
    ) -> list[Imu]:
        """Return the messages of a second and a little more, up to a time."""
        count = int(seconds * HZ)
        return [
            self.message(end_ns - (count - 1 - i) * 10**9 // HZ, world_from_camera)
            for i in range(count)]


def message(stamp_ns: int, force: np.ndarray, rate: np.ndarray | None = None) -> Imu:
    made = Imu(header=header(stamp_ns, FRAME))
    a, w = made.linear_acceleration, made.angular_velocity
    a.x, a.y, a.z = force.tolist()
    w.x, w.y, w.z = (np.zeros(3) if rate is None else rate).tolist()
    # It has no orientation.
    made.orientation_covariance[0] = -1.0
    return made


def mounted() -> TransformStamped:
    """Return where the IMU is on the camera."""
    return transform(CAMERA_FROM_IMU, header(1, helpers.FRAME), FRAME)


def tilted_camera_on_path(index: float) -> np.ndarray:
    """Return ``world_from_camera`` on the path, pitched down by 20 and rolled by 10 degrees."""
    tilt = Rotation.from_euler('XZ', [-20, 10], degrees=True)
    return camera_on_path(index) @ rigid(tilt, [0, 0, 0])


def angle_deg(direction: np.ndarray, wanted: np.ndarray = UP) -> float:
    return float(np.degrees(np.arccos(np.clip(direction @ wanted, -1, 1))))


def tilt_of_map_deg(map_from_camera: np.ndarray, world_from_camera: np.ndarray) -> float:
    """Return how far the map's z axis is from true up."""
    return angle_deg(map_from_camera[:3, :3] @ world_from_camera[:3, :3].T @ UP)
