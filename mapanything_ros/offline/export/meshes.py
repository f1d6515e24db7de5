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

"""Surfaces of a finished map, with colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import to_open3d, whole
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.export.views import inverse
from mapanything_ros.offline.keyframe_store import KeyframeStore

SUFFIXES = ('.ply', '.obj', '.stl', '.glb')
# Distance in voxels up to which depth tells of a surface.
TRUNCATION_VOXELS = 4.0
BLOCK_VOXELS = 16
# Poisson closes what nobody saw; what is further from the points, in voxels, goes again.
INVENTED_VOXELS = 3.0
MAX_OCTREE_DEPTH = 11
# Open3D wants a limit of depth; there is none.
NEVER_M = 1e6
# glTF has y up and looks along -z; the map has z up.
GLTF_FROM_MAP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def tsdf_mesh(keyframes: KeyframeStore, voxel_m: float) -> Any:
    """
    Return the open3d TriangleMesh of all keyframes' depth, fused in voxels of this size.

    Raises ExportError where no keyframe has any depth.
    """
    import open3d
    tensor: Any = open3d.core.Tensor
    image, number = open3d.t.geometry.Image, open3d.core.float32
    # The hash grows as it must.
    grid: Any = open3d.t.geometry.VoxelBlockGrid(
        ('tsdf', 'weight', 'color'), (number,) * 3, (1, 1, 3),  # type: ignore[arg-type]
        voxel_m, BLOCK_VOXELS, 1000)
    for record in keyframes:
        if not np.isfinite(record.depth_m).any():
            continue
        depth = image(np.nan_to_num(record.depth_m, nan=0.0))
        colour = image(record.rgb.astype(np.float32) / np.float32(255))
        k = tensor(record.intrinsics)
        camera_from_map = tensor(inverse(record.map_from_camera))
        blocks = grid.compute_unique_block_coordinates(
            depth, k, camera_from_map, 1.0, NEVER_M, TRUNCATION_VOXELS)
        grid.integrate(
            blocks, depth, colour, k, k, camera_from_map, 1.0, NEVER_M, TRUNCATION_VOXELS)
    if not grid.hashmap().size():
        return _checked(open3d.geometry.TriangleMesh())
    return _checked(grid.extract_triangle_mesh(weight_threshold=0.0).to_legacy())


def poisson_mesh(cloud: PointCloud, normals: Array, voxel_m: float) -> Any:
    """
    Return the open3d TriangleMesh that Poisson reconstruction puts through a cloud.

    ``normals`` (N,3) are unit vectors to the outside; the mesh resolves ``voxel_m`` where an
    octree of depth 11 can. What lies further than three voxels from all points is removed.
    """
    import open3d
    if not len(cloud):
        raise ExportError('the map is empty: there is no surface to make a mesh of')
    points = to_open3d(cloud)
    points.normals = open3d.utility.Vector3dVector(normals)
    extent_m = float(np.ptp(cloud.xyz, axis=0).max())
    depth = int(np.clip(np.ceil(np.log2(max(extent_m / voxel_m, 1.0))), 4, MAX_OCTREE_DEPTH))
    mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        points, depth=depth, n_threads=1)
    far = cKDTree(cloud.xyz).query(np.asarray(mesh.vertices), workers=-1)[0]
    mesh.remove_vertices_by_mask(far > INVENTED_VOXELS * voxel_m)
    return _checked(mesh)


def write_mesh(path: Path, mesh: Any) -> None:
    """
    Write an open3d TriangleMesh as PLY, OBJ, STL or GLB, by suffix; raise ExportError.

    STL knows no colours. A GLB has y up and linear colours, as glTF wants it, and so looks the
    same in a viewer.
    """
    import open3d
    if path.suffix not in SUFFIXES:
        raise ExportError(f'{path.name}: a mesh is written as {", ".join(SUFFIXES)}')
    mesh = open3d.geometry.TriangleMesh(mesh)
    mesh.compute_vertex_normals()
    if path.suffix == '.glb':
        mesh.transform(GLTF_FROM_MAP)
        mesh.vertex_colors = open3d.utility.Vector3dVector(
            _linear(np.asarray(mesh.vertex_colors)))
    if path.suffix == '.stl':
        mesh.compute_triangle_normals()
    else:
        mesh.triangle_normals.clear()
    with whole(path) as part:
        written = open3d.io.write_triangle_mesh(part, mesh)
        if not (written and _holds(part, mesh)):
            raise ExportError(f'{path} could not be written whole: the disk may be full')


def _holds(path: Path, mesh: Any) -> bool:
    """Say whether a file has all of a mesh; Open3D does not notice where it was cut off."""
    import open3d
    if path.suffix == '.glb':  # Open3D does not read what it writes; its length is in the header
        with path.open('rb') as file:
            return int.from_bytes(file.read(12)[8:], 'little') == path.stat().st_size
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        read = open3d.io.read_triangle_mesh(path)
    return len(read.triangles) == len(mesh.triangles)


def _checked(mesh: Any) -> Any:
    if not len(mesh.triangles):
        raise ExportError('there is no surface to make a mesh of: the keyframes have no depth')
    # Interpolation leaves the range by rounding.
    colours = np.clip(np.asarray(mesh.vertex_colors), 0.0, 1.0)
    mesh.vertex_colors = type(mesh.vertex_colors)(colours)
    return mesh


def _linear(srgb: Array) -> Array:
    """Undo the transfer function of sRGB (IEC 61966-2-1) for colours in [0,1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
