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

"""Windows of keyframes seen in the rendered room, with exact depth and poses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.sample.room import Room

INTRINSICS = np.array([[262.0, 0.0, 158.3], [0.0, 264.0, 121.4], [0.0, 0.0, 1.0]])
SIZE = (320, 240)
STEP_M = 0.12


@dataclass(frozen=True, eq=False)
class Truth:
    """What a keyframe of the same id truly saw: depth (H,W) metres, pose (4,4) in the room."""

    rgb: np.ndarray
    depth_m: np.ndarray
    world_from_camera: np.ndarray


@lru_cache(maxsize=1)
def room() -> Room:
    return Room(seed=0)


def sideways(index: float) -> np.ndarray:
    """Return ``world_from_camera``: steps to the right, 12 cm each, bobbing and turning a bit."""
    bob = 0.03 * np.sin(2.1 * index)
    return _camera([1.6 + STEP_M * index, 0.9 + bob, 1.45 - bob], -0.025 * index)


def turning(index: float) -> np.ndarray:
    """Return ``world_from_camera``: the same place, turned by 4 degrees a step."""
    return _camera([2.0, 0.9, 1.45], np.radians(4.0) * index)


def _camera(position: list[float], heading: float) -> np.ndarray:
    """Look along the room's y, ``heading`` to the left, and a little down."""
    body = Rotation.from_euler('ZYX', [np.pi / 2 + heading, np.radians(14.0), 0.0])
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    pose = np.eye(4)
    pose[:3, :3] = body.as_matrix() @ optical
    pose[:3, 3] = position
    return pose


@lru_cache(maxsize=64)
def look(path: str, index: int, width: int = SIZE[0], height: int = SIZE[1]) -> Truth:
    """Render a place of one of the paths above; the same picture is never rendered twice."""
    pose = {'sideways': sideways, 'turning': turning}[path](index)
    view = room().render(pose, INTRINSICS, width, height)
    return Truth(view.rgb, view.depth_m, pose)


def keyframe(
    number: int, truth: Truth, *, posed: bool = True, depth: bool = False,
    pose: np.ndarray | None = None,
) -> Keyframe:
    """Make a keyframe of a rendering, with its true pose or another."""
    return Keyframe(
        id=number,
        stamp_ns=1_000_000_000 + number,
        frame_id='camera',
        rgb=truth.rgb,
        intrinsics=INTRINSICS.copy(),
        depth_m=truth.depth_m if depth else None,
        odom_from_camera=(truth.world_from_camera if pose is None else pose) if posed else None)
