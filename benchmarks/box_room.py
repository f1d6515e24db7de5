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

"""A textured room with boxes in it, rendered with exact depth; needs OpenCV and NumPy alone."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.sample.patches import box, moved, Patch, room_shell, size_px
from mapanything_ros.sample.textures import abstract, framed, landscape, mottled, tiled, wood

SIZE_M = (5.0, 4.0, 2.6)
# Surfaces are lit from this direction, and a little from everywhere.
LIGHT = np.array([0.4, 0.3, 0.86])
AMBIENT = 0.6


class BoxRoom:
    """
    Flat surfaces, each a picture that is warped into the camera and hidden by what is nearer.

    The world has z up; cameras are optical frames.
    """

    def __init__(self, seed: int = 0) -> None:
        self._patches = _furnished()
        self._pictures = []
        for number, patch in enumerate(self._patches):
            height, width = size_px(patch)
            # Half as fine as the painters have it is finer than the pictures that are taken.
            picture = patch.paint(np.random.default_rng([seed, number]), height, width)
            shade = AMBIENT + (1 - AMBIENT) * abs(float(patch.normal @ LIGHT))
            self._pictures.append(np.clip(255 * shade * cv2.resize(
                picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 0, 255).astype(
                    np.uint8))

    def render(
        self, world_from_camera: Array, intrinsics: Array, width: int, height: int,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return RGB (H,W,3) and depth (H,W) in metres along the optical axis."""
        camera_from_world = np.linalg.inv(world_from_camera)
        v, u = np.mgrid[:height, :width].astype(np.float32)
        pixels = np.stack([u, v, np.ones_like(u)], 2)
        rays = pixels @ np.linalg.inv(intrinsics).T.astype(np.float32)
        rgb = np.zeros((height, width, 3), np.uint8)
        depth_m = np.full((height, width), np.inf, np.float32)
        for patch, picture in zip(self._patches, self._pictures, strict=True):
            origin, along, down = (
                camera_from_world[:3, :3] @ vector + shift for vector, shift in (
                    (patch.origin, camera_from_world[:3, 3]), (patch.edge_u, 0.0),
                    (patch.edge_v, 0.0)))
            normal = np.cross(down, along)
            if normal @ origin >= 0:  # seen from behind
                continue
            # The pixel of a picture's point (s, t, 1), homogeneous.
            pixel_from_st = intrinsics @ np.stack([along, down, origin], axis=1)
            st = pixels @ np.linalg.inv(pixel_from_st).T.astype(np.float32)
            with np.errstate(divide='ignore', invalid='ignore'):
                ahead_m = (normal @ origin) / (rays @ normal.astype(np.float32))
                st = st[..., :2] / st[..., 2:]
            hit = (ahead_m > 0) & (ahead_m < depth_m) & ((st >= 0) & (st <= 1)).all(axis=2)
            if not hit.any():
                continue
            rows, columns = picture.shape[:2]
            seen = cv2.remap(
                picture, st[..., 0] * columns - 0.5, st[..., 1] * rows - 0.5, cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE)
            rgb[hit], depth_m[hit] = seen[hit], ahead_m[hit]
        return rgb, np.where(np.isfinite(depth_m), depth_m, 0).astype(np.float32)


def _furnished() -> list[Patch]:
    planks = tiled(0.12, 0.9, 0.006, (0.2, 0.15, 0.1), 0.12, wood((0.55, 0.4, 0.26)))
    bricks = tiled(0.07, 0.24, 0.012, (0.7, 0.68, 0.64), 0.15, mottled((0.6, 0.3, 0.22)))
    plaster = mottled((0.8, 0.78, 0.72))
    picture = framed(landscape, wood((0.3, 0.2, 0.12)), 0.05)
    rug = abstract([(0.6, 0.2, 0.2), (0.2, 0.25, 0.5), (0.8, 0.7, 0.4)])
    return [
        *room_shell(SIZE_M, {
            'floor': planks, 'ceiling': mottled((0.9, 0.9, 0.88), 0.1), 'x0': bricks,
            'x1': plaster, 'y0': plaster, 'y1': bricks}),
        *box((0.0, 0.0, 0.0), (0.9, 0.5, 1.9), wood((0.5, 0.33, 0.2), along_v=True)),
        *moved(box((-0.6, -0.4, 0.0), (0.6, 0.4, 0.72), wood((0.6, 0.45, 0.3))), 3.9, 2.9, 0, 20),
        *moved(box((-0.2, -0.2, 0.0), (0.2, 0.2, 0.45), mottled((0.3, 0.5, 0.4))), 1.0, 3.2),
        *box((4.96, 1.0, 1.1), (5.0, 2.2, 1.9), {'side': plaster, 'left': picture}),
        *box((1.4, 1.2, 0.0), (3.2, 2.6, 0.01), {'side': plaster, 'top': rug}),
    ]
