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

"""Places with exact truth that a camera has walked through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluate import buildings
from benchmarks.evaluate.odometry import Drift, drifted, MISHAPS
from mapanything_ros.core.datatypes import Array
from mapanything_ros.sample.room import RenderedView

SIZE = (160, 120)
INTRINSICS: Array = np.array([[110.0, 0.0, 79.5], [0.0, 110.0, 59.5], [0.0, 0.0, 1.0]])
START_NS = 1_700_000_000_123_456_789
PERIOD_NS = 400_000_001
ODOMETRY_SEED = 0
BUILDINGS = {'corridor': buildings.corridor, 'two_rooms': buildings.two_rooms}


@dataclass(frozen=True, eq=False)
class World:
    """
    Images along a walk, and the truth about them.

    ``stamps_ns`` (N,); ``world_from_camera`` (N,4,4) true poses and ``odom_from_camera`` (N,4,4)
    odometry's; ``views`` N pictures with depth in metres, 0 where unknown, at one size, without
    distortion, with ``intrinsics`` (3,3). ``distance`` gives the (N,) distances in metres of (N,3)
    points to the true surface. Images ``keyframe_step_m`` apart are keyframes.
    """

    name: str
    stamps_ns: NDArray[np.int64]
    world_from_camera: Array
    odom_from_camera: Array
    intrinsics: Array
    views: tuple[RenderedView, ...]
    distance: Callable[[Array], Array]
    keyframe_step_m: float

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the images."""
        height, width = self.views[0].depth_m.shape
        return width, height

    @property
    def length_m(self) -> float:
        """Return how far the camera truly goes."""
        steps = np.diff(self.world_from_camera[:, :3, 3], axis=0)
        return float(np.linalg.norm(steps, axis=1).sum())

    def after(self, mishap: str, seed: int) -> World:
        """Return the same walk with something wrong with its odometry; see MISHAPS."""
        rng = np.random.default_rng([ODOMETRY_SEED, seed])
        return replace(self, odom_from_camera=MISHAPS[mishap](self.odom_from_camera, rng))

    def render(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return rgb (H,W,3) and depth_m (H,W) of an image."""
        return self.views[index].rgb, self.views[index].depth_m


@lru_cache(maxsize=2)
def world(name: str, images: int = 0) -> World:
    """
    Return a world by its name, or its first ``images`` where it is rendered.

    Rendered ones are 61 m and 306 images long. A name that is none is the folder of a bag.
    """
    if name not in BUILDINGS:
        # Imported here: it wants a reader of bags.
        from benchmarks.evaluate.recorded import recorded

        return recorded(Path(name))
    building = BUILDINGS[name]()
    odometry = drifted(building.world_from_camera, Drift(), ODOMETRY_SEED)
    count = images or len(building.world_from_camera)
    return World(
        name=name, stamps_ns=START_NS + PERIOD_NS * np.arange(count),
        world_from_camera=building.world_from_camera[:count], odom_from_camera=odometry[:count],
        intrinsics=INTRINSICS,
        views=tuple(building.render(index, INTRINSICS, *SIZE) for index in range(count)),
        distance=building.distance, keyframe_step_m=0.15)
