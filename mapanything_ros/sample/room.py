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

"""Render a furnished room with exact depth, for samples and tests whose truth must be known."""
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import open3d as o3d

from mapanything_ros.sample.baking import bake, Light
from mapanything_ros.sample.furniture import furnish
from mapanything_ros.sample.patches import Patch

_NOTHING = np.iinfo(np.uint32).max
# Of the room: a lamp below the ceiling, and the window.
_LAMP = Light(np.array([(2.5 + 0.5 * np.cos(a), 2.0 + 0.5 * np.sin(a), 2.35)
                        for a in 2 * np.pi * (np.arange(8) + 0.3) / 8]), 0.55)
_WINDOW = Light(
    np.array([(0.1, y, z) for y in (1.45, 1.75, 2.05, 2.35) for z in (1.2, 1.9)]), 0.45)


@dataclass(frozen=True)
class RenderedView:
    """
    A picture and its exact depth.

    `rgb` is (H, W, 3) uint8; `depth_m` is (H, W) float32, metres along the optical axis at the
    pixel centres, 0 where nothing is hit.
    """

    rgb: np.ndarray
    depth_m: np.ndarray


class PaintedScene:
    """
    Textured, Lambertian patches under `lights`, the same for the same seed.

    The world frame has z up. Cameras have optical axes (x right, y down, z forward) and pixel
    centres at integer coordinates.
    """

    def __init__(self, patches: list[Patch], lights: Sequence[Light], seed: int) -> None:
        self._patches = patches
        self._vertices, self._triangles, self._st, self._owner = _triangulate(self._patches)
        self._scene = o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(o3d.core.Tensor.from_numpy(self._vertices.astype(np.float32)),
                                  o3d.core.Tensor.from_numpy(self._triangles.astype(np.uint32)))
        self._atlas = bake(self._patches, self._scene, lights, seed)
        corner = self._atlas.corners[self._owner][:, None]
        spots = corner + self._st[self._triangles] * self._atlas.sizes[self._owner][:, None]
        # The atlas position is linear in the barycentric coordinates that a ray cast returns.
        self._spot = np.stack([spots[:, 0], spots[:, 1] - spots[:, 0], spots[:, 2] - spots[:, 0]],
                              axis=1).astype(np.float32)
        self._lens: tuple[tuple, np.ndarray, np.ndarray] | None = None

    def render(
        self, world_from_camera: np.ndarray, intrinsics: np.ndarray, width: int, height: int,
        distortion: np.ndarray | None = None, supersample: int = 2,
    ) -> RenderedView:
        """
        Return what a camera at `world_from_camera` (4, 4) with `intrinsics` (3, 3) sees.

        With plumb_bob `distortion` (k1, k2, p1, p2, k3) picture and depth are truly distorted. A
        pixel's colour averages `supersample` squared samples; its depth is its centre's.
        """
        centre_ways, fine_ways = self._ways(intrinsics, width, height, distortion, supersample)
        depth_m, owner, spots = self._look(world_from_camera, centre_ways)
        fine_spots = cv2.resize(spots, (width * supersample, height * supersample),
                                interpolation=cv2.INTER_LINEAR)
        # Inside a patch the atlas position varies smoothly; only at its edges need rays be cast.
        edges = _edges(owner)
        tiles = fine_spots.reshape(height, supersample, width, supersample, 2).swapaxes(1, 2)
        _, _, tiles[edges] = self._look(world_from_camera, fine_ways[edges])
        fine = cv2.remap(self._atlas.picture, fine_spots[..., 0], fine_spots[..., 1],
                         cv2.INTER_LINEAR)
        rgb = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
        return RenderedView(rgb, depth_m)

    def mesh(self) -> o3d.geometry.TriangleMesh:
        """Return the exact surface, metres in the world frame, each patch in its mean colour."""
        mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(self._vertices),
                                         o3d.utility.Vector3iVector(self._triangles))
        colours = np.empty_like(self._vertices)
        colours[self._triangles] = self._atlas.mean_colours[self._owner][:, None]
        mesh.vertex_colors = o3d.utility.Vector3dVector(colours)
        return mesh

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the unsigned distances (N,) in metres from `points` (N, 3) to the surface."""
        queries = o3d.core.Tensor.from_numpy(np.ascontiguousarray(points, np.float32))
        return self._scene.compute_distance(queries).numpy()

    def _look(
        self, world_from_camera: np.ndarray, ways: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return depth, patch index and atlas position along the camera-frame `ways` (..., 3)."""
        rays = np.empty((*ways.shape[:-1], 6), np.float32)
        rays[..., :3] = world_from_camera[:3, 3]
        rays[..., 3:] = ways @ world_from_camera[:3, :3].T.astype(np.float32)
        hits = self._scene.cast_rays(o3d.core.Tensor.from_numpy(rays))
        triangle = hits['primitive_ids'].numpy()
        missed = triangle == _NOTHING
        triangle[missed] = 0
        weights = hits['primitive_uvs'].numpy()
        start, along_u, along_v = np.moveaxis(self._spot[triangle], -2, 0)
        spots = start + weights[..., :1] * along_u + weights[..., 1:] * along_v
        spots[missed] = 0
        # The ways have z = 1, so the ray parameter is the depth.
        depth_m = np.where(missed, 0, hits['t_hit'].numpy()).astype(np.float32)
        return depth_m, np.where(missed, -1, self._owner[triangle]), spots

    def _ways(
        self, intrinsics: np.ndarray, width: int, height: int, distortion: np.ndarray | None,
        supersample: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ray directions (H, W, 3) and (H, W, s, s, 3) of pixel centres and samples."""
        bent = np.zeros(5) if distortion is None else np.asarray(distortion, float)
        key = (np.asarray(intrinsics, float).tobytes(), width, height, bent.tobytes(), supersample)
        lens = self._lens
        if lens is None or lens[0] != key:
            shifts = (np.arange(supersample) + 0.5) / supersample - 0.5
            v, u, dv, du = np.meshgrid(
                np.arange(height), np.arange(width), shifts, shifts, indexing='ij', sparse=True)
            fine = _directions(u + du, v + dv, intrinsics, bent)
            centre = _directions(u[..., 0, 0], v[..., 0, 0], intrinsics, bent)
            # One assignment, so that threads may render together.
            self._lens = lens = (key, centre, fine)
        return lens[1:]


class Room(PaintedScene):
    """A furnished room of 5 x 4 x 2.5 m, floor at z = 0, in the positive octant."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(furnish(np.random.default_rng(seed)), (_LAMP, _WINDOW), seed)


def _directions(
    u: np.ndarray, v: np.ndarray, intrinsics: np.ndarray, distortion: np.ndarray,
) -> np.ndarray:
    """Return the exactly undistorted directions (..., 3) float32 with z = 1 of pixels (u, v)."""
    u, v = np.broadcast_arrays(u, v)
    k1, k2, p1, p2, k3 = distortion
    bent_y = (v - intrinsics[1, 2]) / intrinsics[1, 1]
    bent_x = (u - intrinsics[0, 2] - intrinsics[0, 1] * bent_y) / intrinsics[0, 0]
    x, y = bent_x, bent_y
    if distortion.any():
        for _ in range(30):
            r2 = x * x + y * y
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            x, y = ((bent_x - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial,
                    (bent_y - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / radial)
    return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)


def _edges(owner: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: pixels of the border, or with a neighbour that has another owner."""
    padded = np.pad(owner, 1, constant_values=-2).astype(np.float32)
    lowest = cv2.erode(padded, np.ones((3, 3), np.uint8))
    highest = cv2.dilate(padded, np.ones((3, 3), np.uint8))
    return (lowest != highest)[1:-1, 1:-1]


def _triangulate(
    patches: list[Patch],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (V, 3), triangles (T, 3), the vertices' (s, t) and the triangles' patch."""
    vertices, triangles, parameters, owners = [], [], [], []
    count = 0
    for index, patch in enumerate(patches):
        st = np.array(patch.outline)
        # Ordered so that the right-hand normal is the patch's front.
        fan = [(count, count + i + 1, count + i) for i in range(1, len(st) - 1)]
        vertices.append(patch.points(st))
        parameters.append(st)
        triangles += fan
        owners += [index] * len(fan)
        count += len(st)
    return (np.concatenate(vertices), np.array(triangles), np.concatenate(parameters),
            np.array(owners))
