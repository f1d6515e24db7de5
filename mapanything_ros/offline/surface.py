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
from mapanything_ros.core.evaluation import cloud_distances

MESHES = ('.ply', '.obj', '.stl', '.off', '.glb', '.gltf')
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
    # What Open3D would print is said below.
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        mesh = _read(open3d.t.io.read_triangle_mesh, path) if suffix in MESHES else None
        if mesh is not None and 'indices' in mesh.triangle:
            return Surface(f'mesh {path.name}', lambda points: distances_to_mesh(points, mesh))
        cloud = _read(open3d.io.read_point_cloud, path) if suffix in CLOUDS else None
    truth = np.asarray(cloud.points) if cloud is not None else np.empty((0, 3))
    truth = truth[np.isfinite(truth).all(axis=1)]
    if not len(truth):
        raise InputError(f'{path} holds neither triangles nor points that can be read')
    return Surface(f'cloud {path.name}', lambda points: cloud_distances(points, truth))


def distances_to_mesh(points: Array, mesh: Any) -> Array:
    """Return the (N,) distances of (N,3) points to the triangles of a mesh of open3d.t."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh)
    queries = open3d.core.Tensor.from_numpy(np.ascontiguousarray(points, np.float32))
    return scene.compute_distance(queries).numpy().astype(float)


def _read(reader: Callable[..., Any], path: Path) -> Any:
    try:
        return reader(str(path))
    except RuntimeError as error:
        raise InputError(f'{path} cannot be read: {error}') from error
