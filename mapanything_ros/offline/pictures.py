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

"""Pictures that let a person judge a map: from above, at an angle, and keyframe by keyframe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.splat import look_from, splat, View

BACKGROUND = '#f4f4f2'
PATH_COLOUR = '#ff2d55'
UP = np.array([0.0, 0.0, 1.0])
NEIGHBOURS = 16


@dataclass(frozen=True, eq=False)
class ColouredMap:
    """
    A map to draw: ``points`` (N,3), z up, and ``rgb`` (N,3) uint8.

    ``voxel_m`` is the distance between neighbours; ``cameras`` (K,4,4) are the keyframes'
    ``map_from_camera``, optical axes, in the order of time. ``unit`` is what lengths are in.
    """

    points: Array
    rgb: NDArray[np.uint8]
    voxel_m: float
    cameras: Array
    unit: str = 'm'

    def __post_init__(self) -> None:
        if not len(self.points) or not len(self.cameras):
            raise InputError('there is no map to draw')

    @cached_property
    def normals(self) -> Array:
        """Return the (N,3) unit normals of the surface, towards the nearest camera."""
        _, near = cKDTree(self.points).query(
            self.points, k=min(NEIGHBOURS, len(self.points)), workers=-1)
        patches = self.points[near.reshape(len(self.points), -1)]
        patches = patches - patches.mean(axis=1, keepdims=True)
        _, directions = np.linalg.eigh(patches.transpose(0, 2, 1) @ patches)
        normals = directions[:, :, 0]
        centres = self.cameras[:, :3, 3]
        to_camera = centres[cKDTree(centres).query(self.points)[1]] - self.points
        return normals * np.sign((normals * to_camera).sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class KeyframePicture:
    """What was published for one keyframe: (H,W,3) uint8 and two (H,W) float32, NaN invalid."""

    label: str
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    confidence: NDArray[np.float32]


def draw_top(path: Path, world: ColouredMap, title: str) -> None:
    """Write the map from above, to scale, without what faces down: the ceiling."""
    low, high = _extent(world)
    margin = 0.05 * max(high[0] - low[0], high[1] - low[1]) + 0.1
    low, high = low - margin, high + margin
    focal = 1400 / max(high[0] - low[0], high[1] - low[1])
    middle = (low + high) / 2
    # Seen from above with x right and y up, as on a plan.
    eye = np.array([middle[0], middle[1], high[2] + 1])
    view = View(
        look_from(eye, eye - UP, np.array([0.0, 1, 0])), focal,
        round((high[0] - low[0]) * focal), round((high[1] - low[1]) * focal), orthographic=True)
    seen = _seen(world, view)
    image = splat(world.points[seen], world.rgb[seen], world.voxel_m, view)

    inch = 10 / max(view.width, view.height)
    figure = Figure(
        figsize=(view.width * inch + 0.8, view.height * inch + 0.8), layout='constrained')
    axes = figure.add_subplot(facecolor=BACKGROUND)
    axes.grid(color='white', linewidth=1)
    axes.set_axisbelow(True)
    axes.imshow(image, extent=(low[0], high[0], low[1], high[1]), zorder=2)
    _draw_path(axes, world.cameras[:, :2, 3])
    forward = world.cameras[:, :2, 2]
    every = max(1, len(forward) // 25)
    axes.quiver(
        *world.cameras[::every, :2, 3].T, *forward[::every].T, color=PATH_COLOUR, zorder=4,
        scale=1 / 0.25, scale_units='xy', angles='xy', width=0.003)
    axes.set(title=title, xlabel=f'x ({world.unit})', ylabel=f'y ({world.unit})')
    axes.legend(loc='upper right')
    _save(figure, path)


def draw_view(path: Path, world: ColouredMap, title: str) -> None:
    """Write the map at an angle, opened towards the viewer, on a grid of a round length."""
    low, high = _extent(world)
    middle, size = (low + high) / 2, float(np.linalg.norm(high - low))
    # From behind the cameras: what they saw faces this way.
    ahead = world.cameras[:, :2, 2].mean(axis=0)
    azimuth = np.arctan2(ahead[1], ahead[0]) if np.linalg.norm(ahead) > 0.1 else np.pi / 3
    elevation = np.radians(40)
    back = np.array([
        -np.cos(azimuth + 0.5) * np.cos(elevation), -np.sin(azimuth + 0.5) * np.cos(elevation),
        np.sin(elevation)])
    view = _fitted(look_from(middle + 1.5 * size * back, middle, UP), world, 1500)
    seen = _seen(world, view)
    image = splat(world.points[seen], world.rgb[seen], world.voxel_m, view)

    figure = Figure(figsize=(12, 12 * view.height / view.width + 0.4), layout='constrained')
    axes = figure.add_subplot(facecolor=BACKGROUND)
    _draw_floor(axes, view, low, high, world.unit)
    axes.imshow(image, zorder=2)
    _draw_path(axes, view.project(world.cameras[:, :3, 3])[0])
    axes.set(title=title, xticks=[], yticks=[], xlim=(0, view.width),
             ylim=(view.height, 0))
    axes.legend(loc='upper right')
    _save(figure, path)


def draw_keyframes(
    path: Path, keyframes: Sequence[KeyframePicture], title: str, unit: str = 'm',
) -> None:
    """Write a strip: image, depth and confidence of each keyframe; grey is what was not kept."""
    if not keyframes:
        raise InputError('there are no keyframes to draw')
    height, width = keyframes[0].rgb.shape[:2]
    kept = np.concatenate([k.depth_m[np.isfinite(k.depth_m)] for k in keyframes])
    far = float(np.percentile(kept, 99)) if len(kept) else 1.0
    near = float(np.percentile(kept, 1)) if len(kept) else 0.0
    figure = Figure(
        figsize=(2.6 * len(keyframes) + 1, 3 * 2.6 * height / width + 0.9), layout='constrained')
    grid = figure.subplots(3, len(keyframes), squeeze=False)
    for column, keyframe in enumerate(keyframes):
        valid = np.isfinite(keyframe.depth_m)
        top, middle, bottom = grid[:, column]
        top.imshow(keyframe.rgb)
        top.set_title(keyframe.label, fontsize=9)
        depth = middle.imshow(
            np.where(valid, keyframe.depth_m, np.nan), cmap='turbo', vmin=near, vmax=far,
            interpolation='nearest')
        middle.set_title(f'kept {valid.mean():.0%}', fontsize=9)
        confidence = bottom.imshow(
            np.where(valid, keyframe.confidence, np.nan), cmap='viridis', vmin=0, vmax=1,
            interpolation='nearest')
    for row, name in zip(grid, ('image', 'depth', 'confidence'), strict=True):
        row[0].set_ylabel(name)
        for axes in row:
            axes.set(xticks=[], yticks=[], facecolor='#c8c8c8')
    figure.colorbar(depth, ax=grid[1], label=f'depth ({unit})', pad=0.01)
    figure.colorbar(confidence, ax=grid[2], label='confidence', pad=0.01)
    figure.suptitle(title)
    _save(figure, path)


def _extent(world: ColouredMap) -> tuple[Array, Array]:
    """Return the corners of the box that holds the cameras and all but stray points."""
    return bounds(world.points, world.cameras[:, :3, 3])


def bounds(many: Array, all_of: Array) -> tuple[Array, Array]:
    """Return the corners of a box that holds all but strays of ``many``, and ``all_of``."""
    low, high = np.percentile(many, 0.3, axis=0), np.percentile(many, 99.7, axis=0)
    return np.minimum(low, all_of.min(axis=0)), np.maximum(high, all_of.max(axis=0))


def _fitted(camera_from_map: Array, world: ColouredMap, width: int) -> View:
    """Return a view of this width that shows the cameras, the points but for strays, and a rim."""
    unit = View(camera_from_map, 1.0, 1, 1)
    low, high = bounds(
        unit.project(world.points)[0], unit.project(world.cameras[:, :3, 3])[0])
    reach = 1.12 * np.maximum(np.abs(low), np.abs(high))
    focal = width / (2 * reach[0])
    return View(camera_from_map, focal, width, round(2 * reach[1] * focal))


def _seen(world: ColouredMap, view: View) -> NDArray[np.bool_]:
    """Say which points turn towards the viewer the side that a camera saw."""
    if view.orthographic:
        to_eye = -view.camera_from_map[2, :3][None]
    else:
        eye = -view.camera_from_map[:3, :3].T @ view.camera_from_map[:3, 3]
        to_eye = eye - world.points
    return (world.normals * to_eye).sum(axis=1) > -0.15 * np.linalg.norm(to_eye, axis=1)


def _draw_path(axes: Axes, points: Array) -> None:
    outline = [Stroke(linewidth=4, foreground='white'), Normal()]
    axes.plot(*points.T, color=PATH_COLOUR, linewidth=2, zorder=3, path_effects=outline,
              label='camera path')
    axes.plot(*points[0], 'o', color='white', markeredgecolor=PATH_COLOUR, markersize=8,
              markeredgewidth=2, zorder=5, label='start')


def _draw_floor(axes: Axes, view: View, low: Array, high: Array, unit: str) -> None:
    step = _round_length((high - low)[:2].max() / 8)
    first, last = np.floor(low / step) * step, np.ceil(high / step) * step
    ends = ((first[0], last[0]), (first[1], last[1]))
    label: str | None = f'grid of {step:g} {unit}'
    for axis in (0, 1):
        for value in np.arange(first[axis], last[axis] + step / 2, step):
            line = np.empty((2, 3))
            line[:, axis], line[:, 1 - axis], line[:, 2] = value, ends[1 - axis], low[2]
            pixels, _ = view.project(line)
            axes.plot(*pixels.T, color='#cfcfca', linewidth=1, zorder=1, label=label)
            label = None


def _round_length(length: float) -> float:
    """Return the next of ..., 0.1, 0.2, 0.5, 1, 2, 5, 10, ... that is not shorter."""
    decade = 10.0 ** np.floor(np.log10(length))
    return float(decade * next(step for step in (1, 2, 5, 10) if step * decade >= length))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    # Tight: the layout gives some labels of colour bars too little room.
    figure.savefig(path, dpi=110, bbox_inches='tight')
