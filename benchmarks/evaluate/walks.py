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

"""The walks of a camera through the rendered buildings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array

STEP_M = 0.2
CORNER_M = 1.0
EYE_M = 1.2
PITCH_DEG = 6.0
# Amplitudes and wavelengths of somebody who walks and looks about a little.
SWAY = {'yaw_deg': (4.0, 7.3), 'pitch_deg': (1.5, 4.1), 'roll_deg': (1.0, 5.7), 'z_m': (0.02, 1.9)}
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def walk(waypoints: Sequence[tuple[float, float]], length_m: float) -> Array:
    """
    Return ``world_from_camera`` (N,4,4), 0.2 m apart, for ``length_m`` along rounded waypoints.

    The camera looks where it goes, a bit down. Waypoints that end too soon raise ValueError.
    """
    line = _rounded(np.array(waypoints, float))
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    if along[-1] < length_m:
        raise ValueError(f'the waypoints lead {along[-1]:.1f} m, the walk takes {length_m} m')
    walked = np.arange(0, length_m + 1e-9, STEP_M)
    poses = np.tile(np.eye(4), (len(walked), 1, 1))
    for axis in range(2):
        poses[:, axis, 3] = np.interp(walked, along, line[:, axis])
    poses[:, 2, 3] = EYE_M + _sway('z_m', walked)
    heading = np.unwrap(np.arctan2(*np.diff(line, axis=0).T[::-1]))
    yaw = np.interp(walked, (along[1:] + along[:-1]) / 2, heading)
    angles = np.stack([
        yaw + np.radians(_sway('yaw_deg', walked)),
        np.radians(PITCH_DEG + _sway('pitch_deg', walked)),
        np.radians(_sway('roll_deg', walked))], axis=1)
    poses[:, :3, :3] = Rotation.from_euler('ZYX', angles).as_matrix() @ OPTICAL
    return poses


def _sway(name: str, walked: Array) -> Array:
    amplitude, wave_m = SWAY[name]
    return amplitude * np.sin(2 * np.pi * walked / wave_m)


def _rounded(corners: Array) -> Array:
    """Return a fine polyline (M,2) that takes each corner on an arc (a quadratic Bezier)."""
    pieces = [corners[:1]]
    t = np.linspace(0, 1, 40)[:, None]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        start = corner + _towards(corner, before)
        end = corner + _towards(corner, after)
        pieces.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t ** 2 * end)
    return np.concatenate([*pieces, corners[-1:]])


def _towards(corner: Array, other: Array) -> Array:
    way = other - corner
    distance = np.linalg.norm(way)
    return way * min(CORNER_M / distance, 0.5)
