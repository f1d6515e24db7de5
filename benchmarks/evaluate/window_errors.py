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

"""How far a backend and odometry go astray within one window, before anything is joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.evaluate.drive import frame
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from benchmarks.evaluate.worlds import World, world
from mapanything_ros.core.config import WindowConfig
from mapanything_ros.core.datatypes import Array


@dataclass(frozen=True)
class WindowErrors:
    """
    Medians over all windows and seeds of the last camera's error in the frame of the first.

    ``backend_m`` with the backend's own scale, ``shape_m`` with the best one.
    """

    backend_m: float
    shape_m: float
    backend_deg: float
    odometry_m: float
    odometry_deg: float

    def __str__(self) -> str:
        return (
            f'backend {self.backend_m:.3f} m ({self.shape_m:.3f} m with the best scale) and '
            f'{self.backend_deg:.2f} degrees, odometry {self.odometry_m:.3f} m and '
            f'{self.odometry_deg:.2f} degrees')

    def backend_is_better(self, anchored: bool) -> bool:
        """Say whether the backend beats odometry, its scale aside where that is anchored."""
        error_m = self.shape_m if anchored else self.backend_m
        return error_m < self.odometry_m and self.backend_deg < self.odometry_deg


@lru_cache(maxsize=4)
def window_errors(name: str, faults: Faults, seeds: tuple[int, ...]) -> WindowErrors:
    """Compare a backend with odometry on every window of a world."""
    place = world(name)
    errors = []
    backends = [SimulatedBackend(place, faults, seed) for seed in seeds]
    for backend, indices in product(backends, _windows(place)):
        keyframes = [frame(place, index).keyframe(index) for index in indices]
        views = backend.infer(keyframes).views
        path = np.stack([view.world_from_camera for view in views])
        truth = _from_first(place.world_from_camera[indices])
        best = path.copy()
        best[:, :3, 3] *= _extent_m(truth) / max(_extent_m(path), 1e-9)
        odometry = _from_first(place.odom_from_camera[indices])
        errors.append([
            _metres(path, truth), _metres(best, truth), _degrees(path, truth),
            _metres(odometry, truth), _degrees(odometry, truth)])
    return WindowErrors(*np.median(errors, axis=0).tolist())


def _windows(place: World) -> Iterator[list[int]]:
    """Give the indices of the keyframes of each window that no load would drop."""
    keyframes = [0]
    for index, pose in enumerate(place.world_from_camera):
        last = place.world_from_camera[keyframes[-1]]
        if np.linalg.norm(pose[:3, 3] - last[:3, 3]) >= place.keyframe_step_m:
            keyframes.append(index)
    config = WindowConfig()
    for start in range(0, len(keyframes) - config.size + 1, config.size - config.overlap):
        yield keyframes[start:start + config.size]


def _from_first(poses: Array) -> Array:
    return np.linalg.inv(poses[0]) @ poses


def _extent_m(poses: Array) -> float:
    return float(np.sqrt(poses[:, :3, 3].var(axis=0).sum()))


def _metres(poses: Array, truth: Array) -> float:
    return float(np.linalg.norm(poses[-1, :3, 3] - truth[-1, :3, 3]))


def _degrees(poses: Array, truth: Array) -> float:
    turn = Rotation.from_matrix(poses[-1, :3, :3].T @ truth[-1, :3, :3])
    return float(np.degrees(turn.magnitude()))
