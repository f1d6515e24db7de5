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

"""Aggregation brings depth to weak texture, and takes nothing from edges of depth."""

import numpy as np
import pytest
import torch

from mapanything_ros.core.backends.colmap.plane_sweep import sweep, SweepView, SweptDepth
from mapanything_ros.core.backends.colmap.semi_global import (
    aggregate,
    MANY_PLANES,
    ONE_PLANE,
)

HEIGHT, WIDTH, FOCAL_PX = 96, 128, 110.0
INTRINSICS = np.array([[FOCAL_PX, 0.0, 63.5], [0.0, FOCAL_PX, 47.5], [0.0, 0.0, 1.0]])
PLANES, NEAR, FAR = 64, 1.0, 6.0
BASELINES_M = (0.0, -0.24, -0.12, 0.12, 0.24)


def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return grey values in [0,1] of points of a plane, with detail of 4 cm and more."""
    rng = np.random.default_rng(0)
    waves = sum(
        np.sin(a * x + b * y + c)
        for a, b, c in zip(*rng.uniform([[-60.0], [-60.0], [0.0]], [[60.0], [60.0], [6.28]],
                                        (3, 24)), strict=True))
    return 0.5 + 0.5 * waves / np.abs(waves).max()


def rays() -> tuple[np.ndarray, np.ndarray]:
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return (u - INTRINSICS[0, 2]) / FOCAL_PX, (v - INTRINSICS[1, 2]) / FOCAL_PX


def look(gray: np.ndarray, baseline_m: float) -> SweepView:
    pose = np.eye(4)
    pose[0, 3] = baseline_m
    return SweepView(torch.from_numpy(gray.astype(np.float32)), INTRINSICS, pose, NEAR, FAR)


def slanted_wall() -> tuple[list[SweepView], np.ndarray, np.ndarray]:
    """
    Return views of a wall of depth 2 + 0.7 x, its depth from the first, and where it is faint.

    There, 0.6 m wide, the texture is hardly stronger than the camera's noise.
    """
    x, y = rays()
    rng = np.random.default_rng(1)
    views = []
    for baseline_m in BASELINES_M:
        depth_m = (2.0 + 0.7 * baseline_m) / (1.0 - 0.7 * x)
        at_x, at_y = x * depth_m + baseline_m, y * depth_m
        contrast = np.where(np.abs(at_x) < 0.3, 0.08, 1.0)
        gray = 0.5 + contrast * (texture(at_x, at_y) - 0.5)
        views.append(look(gray + rng.normal(0.0, 0.006, gray.shape), baseline_m))
    depth_m = 2.0 / (1.0 - 0.7 * x)
    return views, depth_m, np.abs(x * depth_m) < 0.3


def step() -> tuple[list[SweepView], np.ndarray]:
    """Return views of a board, 0.5 m wide, at 1.5 m before a wall at 3 m, and their depth."""
    x, y = rays()
    views = []
    for baseline_m in BASELINES_M:
        board = np.abs(1.5 * x + baseline_m) < 0.25
        near = texture(1.5 * x + baseline_m + 7.0, 1.5 * y)
        far = texture(3.0 * x + baseline_m, 3.0 * y)
        views.append(look(np.where(board, near, far), baseline_m))
    return views, np.where(np.abs(1.5 * x) < 0.25, 1.5, 3.0)


def wrong(swept: SweptDepth, depth_m: np.ndarray) -> np.ndarray:
    """Return where a sweep is off by more than 3 %."""
    return np.abs(swept.depth.numpy() / depth_m - 1.0) > 0.03


def winner_takes_all(monkeypatch: pytest.MonkeyPatch, views: list[SweepView]) -> SweptDepth:
    with monkeypatch.context() as plain:
        plain.setattr('mapanything_ros.core.backends.colmap.plane_sweep.aggregate', torch.clone)
        return sweep(views[0], views[1:], PLANES)


def test_weak_texture_takes_the_slant_of_the_wall(monkeypatch):
    views, depth_m, faint = slanted_wall()
    faint[:, :8] = faint[:, -8:] = faint[:8] = faint[-8:] = False  # cropped windows
    alone = wrong(winner_takes_all(monkeypatch, views), depth_m)[faint].mean()
    together = wrong(sweep(views[0], views[1:], PLANES), depth_m)[faint].mean()
    assert alone > 0.1  # 0.136
    assert together < 0.5 * alone  # 0.034


def test_a_step_of_depth_stays_a_step(monkeypatch):
    views, depth_m = step()
    inside = (slice(8, -8), slice(8, -8))
    alone = wrong(winner_takes_all(monkeypatch, views), depth_m)[inside].mean(axis=0)
    together = wrong(sweep(views[0], views[1:], PLANES), depth_m)[inside].mean(axis=0)
    # A window of 7 pixels blurs an edge by 3 pixels: no column farther away is wrong.
    edges = np.flatnonzero(np.diff(depth_m[0])) + 0.5 - inside[1].start
    away = np.abs(np.arange(len(together))[:, None] - edges).min(axis=1)
    assert together[away > 3].mean() < 0.005
    assert together.mean() < alone.mean()


def by_definition(volume: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Return Hirschmueller's recursion along one direction, pixel by pixel, as a score."""
    planes, height, width = volume.shape
    path = volume.copy()
    for y in range(height)[::-1 if dy < 0 else 1]:
        for x in range(width)[::-1 if dx < 0 else 1]:
            if not (0 <= y - dy < height and 0 <= x - dx < width):
                continue
            before = path[:, y - dy, x - dx]
            for plane in range(planes):
                penalty = [
                    0.0 if k == plane else ONE_PLANE if abs(k - plane) == 1 else MANY_PLANES
                    for k in range(planes)]
                path[plane, y, x] += (before - penalty).max() - before.max()
    return path


def test_all_four_paths_are_those_of_the_paper():
    volume = np.random.default_rng(2).uniform(-1.0, 1.0, (7, 5, 6))
    paths = [by_definition(volume, *step) for step in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    found = aggregate(torch.from_numpy(volume))
    assert found.numpy() == pytest.approx(np.mean(paths, axis=0), abs=1e-12)


def test_the_scores_that_go_in_stay_as_they_are():
    volume = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
    before = volume.clone()
    aggregate(volume)
    assert torch.equal(volume, before)
