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

"""Walk a hand-held camera through the sample room, and let its odometry drift."""
from dataclasses import dataclass
import itertools

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.sample.textures import Rng

START_NS = 1_700_000_000_123_456_789
_JITTER_NS = 400_000
_CENTRE_M = np.array([2.45, 1.97, 1.42])
_RADII_M = np.array([1.42, 0.98])
_TURN_RATE = 0.275
_DRIFT_PER_ROOT_M = 0.024
_YAW_DRIFT_DEG_PER_ROOT_M = 0.16
# Odometry that slips and is calibrated a little wrong errs much the same way for metres.
_DRIFT_SMOOTHING_S = 8.0
_BODY_FROM_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


@dataclass(frozen=True)
class HandHeldPath:
    """
    The true and the measured motion of a camera carried through the room.

    `image_stamps_ns` are N exact stamps and `world_from_camera` (N, 4, 4) the true poses of the
    optical frame. `odom_stamps_ns` are the same stamps and one between each two, 2 N - 1 in all,
    and `odom_from_base` (2 N - 1, 4, 4) drifts; it starts at the true pose. `base_from_camera`
    (4, 4) is exact. The world has z up and the floor at z = 0.
    """

    image_stamps_ns: list[int]
    world_from_camera: np.ndarray
    odom_stamps_ns: list[int]
    odom_from_base: np.ndarray
    base_from_camera: np.ndarray


def walk(frames: int, rate_hz: float, rng: Rng) -> HandHeldPath:
    """Return a walk of `frames` images around the coffee table, looking across the room."""
    period_ns = round(1e9 / rate_hz)
    jitter = rng.integers(-_JITTER_NS, _JITTER_NS + 1, frames)
    jitter[0] = 0
    images = [START_NS + i * period_ns + int(j) for i, j in enumerate(jitter)]
    between = [(a + b) // 2 for a, b in itertools.pairwise(images)]
    stamps = sorted(images + between)
    seconds = np.array([(stamp - START_NS) * 1e-9 for stamp in stamps])
    world_from_camera = _camera_poses(seconds, rng)
    mounting = _mounting()
    world_from_base = world_from_camera @ np.linalg.inv(mounting)
    return HandHeldPath(images, world_from_camera[::2], stamps,
                        _drifted(world_from_base, seconds, rng), mounting)


def _sway(seconds: np.ndarray, rng: Rng, waves: list[tuple[float, float]]) -> np.ndarray:
    """Return (N,) of sines of (amplitude, frequency in Hz), each with a phase by chance."""
    phases = rng.uniform(0, 2 * np.pi, len(waves))
    return sum(amplitude * np.sin(2 * np.pi * hertz * seconds + phase)
               for (amplitude, hertz), phase in zip(waves, phases, strict=True))


def _camera_poses(seconds: np.ndarray, rng: Rng) -> np.ndarray:
    """Return world_from_camera (N, 4, 4): an ellipse with the sway and the steps of a walker."""
    angle = 0.6 + _TURN_RATE * seconds
    swing = [(0.03, 0.13), (0.02, 0.31), (0.005, 0.9)]
    position = _CENTRE_M + np.stack([
        _RADII_M[0] * np.cos(angle) + _sway(seconds, rng, swing),
        _RADII_M[1] * np.sin(angle) + _sway(seconds, rng, swing),
        _sway(seconds, rng, [(0.05, 0.11), (0.02, 0.4), (0.006, 1.7)])], axis=1)
    # A point beyond the centre: the opposite side of the room slides past.
    target = _CENTRE_M - 0.5 * (position - _CENTRE_M) - (0, 0, 0.6)
    ahead = target - position
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0]) + np.radians(
        _sway(seconds, rng, [(4.0, 0.07), (1.5, 0.23), (0.15, 1.3)]))
    pitch = np.arctan2(-ahead[:, 2], np.hypot(ahead[:, 0], ahead[:, 1])) + np.radians(
        _sway(seconds, rng, [(3.0, 0.09), (1.0, 0.3), (0.15, 1.7)]))
    roll = np.radians(_sway(seconds, rng, [(1.5, 0.12), (0.7, 0.43)]))
    return _transforms(
        Rotation.from_euler('ZYX', np.stack([yaw, pitch, roll], axis=1))
        * Rotation.from_matrix(_BODY_FROM_OPTICAL), position)


def _mounting() -> np.ndarray:
    """Return base_from_camera: 1.15 m above the base, looking 17 degrees down."""
    tilt = Rotation.from_euler('ZYX', [2.0, 17.0, 0.5], degrees=True)
    mounting = np.eye(4)
    mounting[:3, :3] = tilt.as_matrix() @ _BODY_FROM_OPTICAL
    mounting[:3, 3] = 0.06, 0.02, 1.15
    return mounting


def _transforms(rotations: Rotation, positions: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3] = rotations.as_matrix()
    poses[:, :3, 3] = positions
    return poses


def _drifted(world_from_base: np.ndarray, seconds: np.ndarray, rng: Rng) -> np.ndarray:
    """Return odom_from_base: each motion since the first pose with a smooth small error."""
    motions = np.linalg.inv(world_from_base[:-1]) @ world_from_base[1:]
    walked = np.linalg.norm(motions[:, :3, 3], axis=1)
    window = np.hanning(3 + int(_DRIFT_SMOOTHING_S * len(motions) / seconds[-1]))
    white = rng.standard_normal((len(motions) + len(window) - 1, 4))
    smooth = np.stack([np.convolve(column, window / window.sum(), 'valid')
                       for column in white.T], axis=1)
    errors = smooth * np.sqrt(walked)[:, None]
    motions[:, :3, 3] += _DRIFT_PER_ROOT_M / np.sqrt(3) * errors[:, :3] * (1, 1, 0.5)
    yaw = np.radians(_YAW_DRIFT_DEG_PER_ROOT_M) * errors[:, 3:]
    motions[:, :3, :3] = motions[:, :3, :3] @ Rotation.from_rotvec(yaw * (0, 0, 1)).as_matrix()
    poses = [world_from_base[0]]
    for motion in motions:
        poses.append(poses[-1] @ motion)
    return np.array(poses)
