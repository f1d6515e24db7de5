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

"""Wheel odometry that drifts, slips and jumps, with gravity to tell roll and pitch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array

# Wheels slip in so many stretches, each this share of the way, by one of these factors.
SLIPS, SLIP_SHARE, SLIP_FACTORS = 4, 0.04, (1.5, 0.5)
# A wheel hits a kerb so often, and odometry is that much off at once.
JUMPS, JUMP_M, JUMP_DEG = 2, 0.5, 20.0
# Tyres warm, wear and carry: the deviation of the length's logarithm after ten metres.
STRETCH = 0.01


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


def slipping(odom_from_camera: Array, rng: np.random.Generator) -> Array:
    """Return odometry (N,4,4) whose wheels slip: stretches are 1.5 or 0.5 times as long."""
    walked = np.concatenate([[0.0], np.cumsum(_lengths_m(odom_from_camera))])
    walked /= walked[-1]
    factors = np.ones(len(walked) - 1)
    # One in each part of the way, and none at its very beginning.
    for part, factor in enumerate(np.resize(SLIP_FACTORS, SLIPS)):
        start = (part + rng.uniform(0.2, 1 - SLIP_SHARE * SLIPS)) / SLIPS
        factors[(walked[:-1] >= start) & (walked[:-1] < start + SLIP_SHARE)] = factor
    return _stretched(odom_from_camera, factors)


def stretching(odom_from_camera: Array, rng: np.random.Generator) -> Array:
    """Return odometry (N,4,4) whose lengths wander slowly."""
    walk = np.cumsum(
        STRETCH * np.sqrt(_lengths_m(odom_from_camera) / 10)
        * rng.standard_normal(len(odom_from_camera) - 1))
    return _stretched(odom_from_camera, np.exp(walk))


def jumping(odom_from_camera: Array, rng: np.random.Generator) -> Array:
    """Return odometry (N,4,4) that is suddenly 0.5 m and 20 degrees off, twice."""
    poses = odom_from_camera.copy()
    for part in range(JUMPS):
        first = int(len(poses) * (part + rng.uniform(0.2, 0.9)) / JUMPS)
        turn = Rotation.from_euler('z', JUMP_DEG * rng.choice((-1, 1)), degrees=True)
        way = rng.uniform(0, 2 * np.pi)
        here = poses[first, :3, 3].copy()
        poses[first:, :3, :3] = turn.as_matrix() @ poses[first:, :3, :3]
        poses[first:, :3, 3] = turn.apply(poses[first:, :3, 3] - here) + here + JUMP_M * np.array(
            [np.cos(way), np.sin(way), 0.0])
    return poses


# What else may be wrong with odometry, by name.
MISHAPS: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    'slip': slipping, 'jump': jumping, 'stretch': stretching}


def _lengths_m(poses: Array) -> Array:
    return np.asarray(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1))


def _stretched(poses: Array, factors: Array) -> Array:
    """Multiply each step (N-1) of a path (N,4,4)."""
    steps = np.diff(poses[:, :3, 3], axis=0) * factors[:, None]
    stretched = poses.copy()
    stretched[1:, :3, 3] = poses[0, :3, 3] + np.cumsum(steps, axis=0)
    return stretched


def _odom_from_world(world_from_camera: Array) -> Array:
    ahead = world_from_camera[:3, 2]
    odom_from_world = np.eye(4)
    turn = Rotation.from_euler('z', -np.arctan2(ahead[1], ahead[0]))
    odom_from_world[:3, :3] = turn.as_matrix()
    odom_from_world[:3, 3] = -turn.apply(world_from_camera[:3, 3] * (1, 1, 0))
    return odom_from_world
