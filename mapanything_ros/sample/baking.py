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

"""Bake the light and the paint of patches into one texture atlas."""
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import open3d as o3d

from mapanything_ros.sample.patches import Patch, size_px
from mapanything_ros.sample.textures import Rng

_WIDTH_PX = 8192
_GUTTER_PX = 2
_LIGHT_STEP_M = 0.06


@dataclass(frozen=True)
class Light:
    """Points (M, 3) in metres that together cast soft shadows, and how bright they are."""

    points: np.ndarray
    brightness: float


@dataclass(frozen=True)
class Atlas:
    """
    The picture of all patches and where each one is on it.

    `picture` is (H, W, 3) uint8 RGB; a patch's parameters (s, t) lie at the sub-pixel position
    ``corners[i] + (s, t) * sizes[i]`` with (x, y) at texel centres. The texel (0, 0) is black.
    `mean_colours` is (P, 3) float, RGB in [0, 1], one a patch.
    """

    picture: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray
    mean_colours: np.ndarray


def bake(
    patches: list[Patch], scene: o3d.t.geometry.RaycastingScene, lights: Sequence[Light],
    seed: int,
) -> Atlas:
    """Return the atlas of `patches`, lit with the shadows that `scene` throws."""
    sizes = np.array([size_px(patch) for patch in patches])
    corners, height = _pack(sizes + 2 * _GUTTER_PX)
    picture = np.zeros((height, _WIDTH_PX, 3), np.uint8)
    shades = _light(patches, scene, lights)
    means = np.empty((len(patches), 3))
    for index, (patch, light) in enumerate(zip(patches, shades, strict=True)):
        rows, columns = sizes[index]
        rng: Rng = np.random.default_rng([seed, index])
        painted = patch.paint(rng, int(rows), int(columns))
        shade = cv2.resize(light, (int(columns), int(rows)), interpolation=cv2.INTER_LINEAR)
        texels = np.clip(255 * painted * shade[..., None], 4, 255).astype(np.uint8)
        means[index] = texels.mean(axis=(0, 1)) / 255
        texels = np.pad(texels, [(_GUTTER_PX,) * 2, (_GUTTER_PX,) * 2, (0, 0)], mode='edge')
        y, x = corners[index]
        picture[y:y + texels.shape[0], x:x + texels.shape[1]] = texels
    return Atlas(picture, corners[:, ::-1] + _GUTTER_PX - 0.5, sizes[:, ::-1].astype(float),
                 means)


def _pack(sizes: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the (y, x) corners of boxes laid on shelves, tallest first, and the total height."""
    corners = np.zeros_like(sizes)
    x, y, shelf = 1, 0, 0
    for index in np.argsort(-sizes[:, 0], kind='stable'):
        rows, columns = sizes[index]
        if x + columns > _WIDTH_PX:
            x, y, shelf = 0, y + shelf, 0
        corners[index] = y, x
        x, shelf = x + columns, max(shelf, rows)
    return corners, int(y + shelf)


def _light(
    patches: list[Patch], scene: o3d.t.geometry.RaycastingScene, lights: Sequence[Light],
) -> list[np.ndarray]:
    """Return a coarse grid (rows, columns) float32 of the light that falls on each patch."""
    points, normals, shapes = [], [], []
    for patch in patches:
        lengths = np.linalg.norm([patch.edge_v, patch.edge_u], axis=1)
        rows, columns = np.maximum(2, np.ceil(lengths / _LIGHT_STEP_M)).astype(int)
        t, s = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns,
                           indexing='ij')
        points.append(patch.points(np.stack([s.ravel(), t.ravel()], 1)) + 0.004 * patch.normal)
        normals.append(np.broadcast_to(patch.normal, points[-1].shape))
        shapes.append((rows, columns))
    where, facing = np.concatenate(points), np.concatenate(normals)
    light = 0.62 * _openness(where, facing, scene)
    for lamp in lights:
        light += lamp.brightness * _direct(where, facing, lamp.points, scene)
    pieces = np.split(light.astype(np.float32), np.cumsum([r * c for r, c in shapes])[:-1])
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _cast(scene: o3d.t.geometry.RaycastingScene, start: np.ndarray, way: np.ndarray) -> np.ndarray:
    rays = np.concatenate([np.broadcast_to(start, way.shape), way], axis=-1).astype(np.float32)
    return scene.cast_rays(o3d.core.Tensor.from_numpy(rays))['t_hit'].numpy()


def _openness(
    where: np.ndarray, facing: np.ndarray, scene: o3d.t.geometry.RaycastingScene,
    directions: int = 40, reach_m: float = 0.9,
) -> np.ndarray:
    """Return (N,) in [0, 1]: how far from other surfaces each point is, cosine-weighted."""
    k = np.arange(directions) + 0.5
    radius, angle = np.sqrt(k / directions), k * np.pi * (3 - np.sqrt(5))
    local = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius ** 2)], 1)
    helper = np.where(np.abs(facing[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    side = np.cross(helper, facing)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    axes = np.stack([side, np.cross(facing, side), facing], axis=1)
    way = np.einsum('dk,nkc->dnc', local, axes)
    return np.minimum(_cast(scene, where, way) / reach_m, 1).mean(axis=0)


def _direct(
    where: np.ndarray, facing: np.ndarray, lamps: np.ndarray,
    scene: o3d.t.geometry.RaycastingScene,
) -> np.ndarray:
    """Return (N,) light from `lamps` (M, 3) by cosine, gentle distance and visibility."""
    way = lamps[:, None] - where[None]
    distance = np.linalg.norm(way, axis=-1)
    cosine = np.maximum(0, np.einsum('mnc,nc->mn', way, facing) / distance)
    seen = _cast(scene, where, way) > 0.999
    return (cosine * seen / (0.5 + 0.5 * (distance / 1.5) ** 2)).mean(axis=0)
