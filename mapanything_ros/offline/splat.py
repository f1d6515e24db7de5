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

"""Draw coloured points with numpy alone: no display, no OpenGL."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array

SUPERSAMPLE = 2
MAX_RADIUS_PX = 12
_EMPTY = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class View:
    """
    Where a picture is taken from, and its size in pixels.

    ``camera_from_map`` (4,4) has optical axes. ``focal_px`` is pixels per radian in the centre of
    a perspective picture, or pixels per metre where ``orthographic``.
    """

    camera_from_map: Array
    focal_px: float
    width: int
    height: int
    orthographic: bool = False

    def project(self, points: Array) -> tuple[Array, Array]:
        """Return (N,2) pixels and (N,) depths of (N,3) points; depth <= 0 is behind."""
        local = points @ self.camera_from_map[:3, :3].T + self.camera_from_map[:3, 3]
        depth = local[:, 2]
        scale = 1.0 if self.orthographic else 1 / np.maximum(depth, 1e-6)[:, None]
        centre = ((self.width - 1) / 2, (self.height - 1) / 2)
        return self.focal_px * local[:, :2] * scale + centre, depth


def look_from(eye: Array, target: Array, up: Array) -> Array:
    """Return the (4,4) ``camera_from_map`` of an optical frame at ``eye`` that sees ``target``."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = -rotation @ eye
    return matrix


def splat(
    points: Array, rgb: NDArray[np.uint8], size_m: float, view: View,
) -> NDArray[np.uint8]:
    """
    Return an (height,width,4) RGBA picture of (N,3) points of edge ``size_m``; nearest wins.

    Steps in depth are darkened (eye-dome lighting): without normals they are what shows shape.
    """
    fine = View(
        view.camera_from_map, view.focal_px * SUPERSAMPLE, view.width * SUPERSAMPLE,
        view.height * SUPERSAMPLE, view.orthographic)
    nearest = _nearest(points, size_m, fine)
    hit = nearest != _EMPTY
    # The low half of the key is the point's index, the high half its depth.
    index = np.where(hit, nearest & 0xFFFFFFFF, 0)
    depth = np.where(hit, nearest >> 32, 0) * 1e-5
    colour = np.where(hit[..., None], rgb[index] * _shade(depth, hit)[..., None], 0)
    rgba = np.concatenate([colour, 255.0 * hit[..., None]], axis=-1)
    small = cv2.resize(rgba, (view.width, view.height), interpolation=cv2.INTER_AREA)
    # Colours were averaged with emptiness at the rim; there, they are brought back.
    colours = small[..., :3] * (255 / np.maximum(small[..., 3:], 1))
    return np.clip(np.rint(np.dstack([colours, small[..., 3]])), 0, 255).astype(np.uint8)


def _nearest(points: Array, size_m: float, view: View) -> NDArray[np.int64]:
    pixels, depth = view.project(points)
    near = 0.05 if not view.orthographic else -np.inf
    index = np.flatnonzero(depth > near)
    pixels, depth = np.rint(pixels[index]).astype(np.int64), depth[index]
    scale = view.focal_px / (np.ones_like(depth) if view.orthographic else depth)
    # Half the diagonal of a voxel's side, so that a wall that faces the viewer has no holes.
    radius = np.clip(np.ceil(size_m * scale * 0.71), 1, MAX_RADIUS_PX).astype(int)
    key = np.rint(depth * 1e5).astype(np.int64) << 32 | index
    buffer = np.full(view.width * view.height, _EMPTY)
    for size in np.unique(radius):
        mine = radius == size
        span = np.arange(-size, size + 1)
        for dy, dx in ((dy, dx) for dy in span for dx in span):
            if dx * dx + dy * dy > size * size + 1:
                continue
            x, y = pixels[mine, 0] + dx, pixels[mine, 1] + dy
            inside = (x >= 0) & (x < view.width) & (y >= 0) & (y < view.height)
            np.minimum.at(buffer, (y * view.width + x)[inside], key[mine][inside])
    return buffer.reshape(view.height, view.width)


def _shade(depth: Array, hit: NDArray[np.bool_], strength: float = 4.0, reach: int = 3) -> Array:
    far = np.where(hit, np.log(np.maximum(depth, 1e-3)), 10.0)
    step = np.zeros_like(far)
    for dy, dx in ((0, reach), (0, -reach), (reach, 0), (-reach, 0)):
        neighbour = np.roll(far, (dy, dx), axis=(0, 1))
        step += np.clip(far - neighbour, 0, 0.3)
    return np.exp(-strength * step / 4)
