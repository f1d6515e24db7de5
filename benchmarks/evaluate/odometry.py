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

"""Wheel odometry that drifts, with gravity to tell roll and pitch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array


@dataclass(frozen=True)
class Drift:
    """
    How odometry errs: lengths by ``scale`` and by noise, the heading by a bias and a random walk.

    ``length_noise`` is relative, after one metre. The defaults lead 1 to 2 % of 60 m astray,
    like wheels without a gyroscope: lengths are good, the heading is not.
    """

    scale: float = 0.005
    length_noise: float = 0.02
    yaw_bias_deg_per_m: float = 0.2
    yaw_walk_deg_per_root_m: float = 0.6


def drifted(world_from_camera: Array, drift: Drift, seed: int) -> Array:
    """
    Return ``odom_from_camera`` (N,4,4) for true poses (N,4,4) in a world with z up.

    Odometry starts with its origin on the floor below the camera and x where the camera looks.
    Roll and pitch are true: gravity tells them.
    """
    rng = np.random.default_rng(seed)
    steps = np.diff(world_from_camera[:, :3, 3], axis=0)
    walked_m = np.linalg.norm(steps, axis=1)
    root_m = np.sqrt(walked_m)
    yaw = np.concatenate([[0], np.radians(np.cumsum(
        drift.yaw_bias_deg_per_m * walked_m
        + drift.yaw_walk_deg_per_root_m * root_m * rng.standard_normal(len(steps))))])
    # Noise that averages out over metres: its share of a step falls with the step's root.
    lengths = 1 + drift.scale + drift.length_noise * rng.standard_normal(len(steps)) / np.maximum(
        root_m, 1e-6)
    turns = Rotation.from_rotvec(yaw[:, None] * (0.0, 0.0, 1.0))
    poses = world_from_camera.copy()
    poses[:, :3, :3] = turns.as_matrix() @ world_from_camera[:, :3, :3]
    moved = turns[:-1].apply(steps * lengths[:, None])
    poses[1:, :3, 3] = poses[0, :3, 3] + np.cumsum(moved, axis=0)
    return _odom_from_world(world_from_camera[0]) @ poses


def _odom_from_world(world_from_camera: Array) -> Array:
    ahead = world_from_camera[:3, 2]
    odom_from_world = np.eye(4)
    turn = Rotation.from_euler('z', -np.arctan2(ahead[1], ahead[0]))
    odom_from_world[:3, :3] = turn.as_matrix()
    odom_from_world[:3, 3] = -turn.apply(world_from_camera[:3, 3] * (1, 1, 0))
    return odom_from_world
