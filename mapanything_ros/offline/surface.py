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

"""True surfaces: meshes and clouds from files, and how far points are from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import cloud_distances
from mapanything_ros.offline.ply import check_whole

MESHES = ('.ply', '.obj', '.stl', '.off')
CLOUDS = ('.ply', '.pcd', '.xyz', '.xyzn', '.xyzrgb', '.pts')
SURFACES = tuple(dict.fromkeys((*MESHES, *CLOUDS)))


@dataclass(frozen=True, eq=False)
class Surface:
    """A true surface; ``distances`` returns those, (N,), of (N,3) points in its frame."""

    name: str
    distances: Callable[[Array], Array]


def read_surface(path: Path) -> Surface:
    """Read a mesh, or a cloud where there are no triangles; none raises InputError."""
    import open3d

    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(f'there is no file {path}')
    if suffix == '.ply':
        check_whole(path)
    # What Open3D would print is said below.
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        if suffix in MESHES:
            mesh = open3d.io.read_triangle_mesh(path)
            if len(mesh.triangles):
                return Surface(f'mesh {path.name}', lambda points: distances_to_mesh(points, mesh))
        truth = np.empty((0, 3))
        if suffix in CLOUDS:
            truth = np.asarray(open3d.io.read_point_cloud(path).points)
    truth = truth[np.isfinite(truth).all(axis=1)]
    if not len(truth):
        raise InputError(f'{path} holds neither triangles nor points that can be read')
    return Surface(f'cloud {path.name}', lambda points: cloud_distances(points, truth))


def distances_to_mesh(points: Array, mesh: Any) -> Array:
    """Return the (N,) distances of (N,3) points to an open3d.geometry.TriangleMesh."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.t.geometry.TriangleMesh.from_legacy(mesh))
    queries = open3d.core.Tensor.from_numpy(np.ascontiguousarray(points, np.float32))
    return scene.compute_distance(queries).numpy().astype(float)
