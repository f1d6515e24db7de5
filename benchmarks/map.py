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

"""
The accumulated map, on an endless corridor: time and memory a keyframe, early and late.

(a) `bounded`: with `map.max_points` reached before the first mark, where for each keyframe that
    comes others are looked at, whether their points give way; both must stay as they were.
(b) `growing`: without that bound, a map of ten times the size at the second mark, against Open3D's
    `voxel_down_sample` of the map and the new points together, as a node without blocks does.

Each runs in a process of its own. Time is the processor's, all cores together; memory is resident
memory.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
import json
import os
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch

from mapanything_ros.core.config import MapConfig
from mapanything_ros.core.datatypes import Array, Prediction
from mapanything_ros.core.map.packing import pack_points, unpack
from mapanything_ros.core.map.voxel_map import PointCloud, VoxelMap

MARKS = (200, 2000)
BOUNDED_POINTS = 100_000
UNBOUNDED_POINTS = 100_000_000
VOXEL_M = 0.1
STEP_M = 0.2
# The camera sways once in so many keyframes; times are medians over one sway.
SWAY = 40
HEIGHT, WIDTH = 196, 259
K = np.array([[200.0, 0, 129], [0, 200, 97.5], [0, 0, 1]])
WALLS_M = ((1, -1.5), (1, 1.5), (2, -1.2), (2, 1.3))
FARTHEST_M = 8.0
# As the standard deviation of the depth, relative.
NOISE = 0.005

Figures = dict[str, Any]


def run(output: Path) -> None:
    """Measure both, print ratios and write them as JSON."""
    names = [f'{mark} keyframes' for mark in MARKS]
    print(f'{"map":28} {names[0]:>15} {names[1]:>15} {"ratio":>7}')
    figures = {
        'pixels': HEIGHT * WIDTH,
        'bounded': in_process(BOUNDED_POINTS, MapConfig.min_views),
        'growing': in_process(UNBOUNDED_POINTS, 1)}
    for name in ('bounded', 'growing'):
        for what, unit, scale in (
            ('cpu_s', 'ms', 1e3), ('resident_mib', 'MiB', 1), ('voxels', '', 1),
        ):
            line(f'{name}: {what}', figures[name], what, unit, scale)
    growing = figures['growing']
    line('growing: reference_cpu_s', growing, 'reference_cpu_s', 'ms', 1e3)
    for early_late in growing['marks']:
        early_late['ratio'] = early_late['reference_cpu_s'] / early_late['cpu_s']
        early_late['points_per_s'] = HEIGHT * WIDTH / early_late['cpu_s']
        print(f'  {early_late["voxels"]} voxels: {early_late["ratio"]:.1f}x the reference, '
              f'{early_late["points_per_s"] / 1e6:.2f} million points a second')
    early, late = growing['marks']
    growing['bytes_per_voxel'] = (
        (late['resident_mib'] - early['resident_mib']) * 2**20
        / (late['voxels'] - early['voxels']))
    print(f'  {growing["bytes_per_voxel"]:.0f} bytes a voxel, with the points of the keyframes '
          'that can be moved')
    output.write_text(json.dumps(figures, indent=1) + '\n')
    print(f'wrote {output}')


def line(title: str, figures: Figures, what: str, unit: str, scale: float) -> None:
    early, late = (mark[what] * scale for mark in figures['marks'])
    print(
        f'{title:28} {early:12.1f}{unit:3} {late:12.1f}{unit:3} {late / early:6.2f}x', flush=True)


def in_process(max_points: int, min_views: int) -> Figures:
    code = f'from benchmarks.map import measure; measure({max_points}, {min_views})'
    done = subprocess.run(
        [sys.executable, '-c', code], check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(max_points: int, min_views: int) -> None:
    """Insert keyframes up to the last mark; print what it took around each mark."""
    voxels = VoxelMap(MapConfig(voxel_m=VOXEL_M, max_points=max_points, min_views=min_views))
    for number in range(SWAY):
        rendered(number)
    marks: list[Figures] = []
    maps: list[PointCloud] = []
    seconds = []
    for number in range(max(MARKS)):
        view, pose = keyframe(number)
        start_s = time.process_time()
        voxels.insert(view, pose)
        seconds.append(time.process_time() - start_s)
        if number + 1 in MARKS:
            marks.append({
                'keyframes': number + 1, 'cpu_s': float(np.median(seconds[-SWAY:])),
                'resident_mib': resident_mib(), 'voxels': len(voxels)})
            maps.append(voxels.points())
    if max_points == UNBOUNDED_POINTS:
        for mark, cloud in zip(marks, maps, strict=True):
            mark['reference_cpu_s'] = reference_s(cloud, mark['keyframes'])
    print(json.dumps({'marks': marks}))


def reference_s(cloud: PointCloud, number: int, repeats: int = 3) -> float:
    """Time adding a keyframe's points to a map by filtering everything."""
    import open3d

    def as_open3d(part: PointCloud) -> Any:
        points = open3d.geometry.PointCloud(
            open3d.utility.Vector3dVector(part.xyz.astype(float)))
        points.colors = open3d.utility.Vector3dVector(part.rgb / 255.0)
        return points

    kept = as_open3d(cloud)
    times = []
    for _ in range(repeats):
        view, pose = keyframe(number)
        start_s = time.process_time()
        (kept + as_open3d(unpack(pack_points(view, pose)))).voxel_down_sample(VOXEL_M)
        times.append(time.process_time() - start_s)
    return float(np.median(times))


def keyframe(number: int) -> tuple[Prediction, Array]:
    view = rendered(number % SWAY)
    pose = view.world_from_camera.copy()
    pose[0, 3] = STEP_M * number
    return replace(view, keyframe_id=number), pose


@cache
def rendered(number: int) -> Prediction:
    """Look down a corridor along x, three metres wide, from its middle."""
    rng = np.random.default_rng(number)
    yaw = 0.6 * np.sin(2 * np.pi * number / SWAY)
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = np.array([
        [np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1],
    ]) @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(K).T
    directions = rays @ world_from_camera[:3, :3].T
    depth_m = np.full((HEIGHT, WIDTH), FARTHEST_M)
    for axis, wall_m in WALLS_M:
        with np.errstate(divide='ignore'):
            hit_m = wall_m / directions[..., axis]
        depth_m = np.where(hit_m > 0, np.minimum(depth_m, hit_m), depth_m)
    depth_m *= 1 + NOISE * rng.standard_normal(depth_m.shape)
    return Prediction(
        number, torch.from_numpy(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)),
        torch.from_numpy(depth_m.astype(np.float32)),
        torch.from_numpy(rng.random((HEIGHT, WIDTH), np.float32)),
        torch.ones(HEIGHT, WIDTH, dtype=torch.bool), K, world_from_camera)


def resident_mib() -> float:
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20
