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

"""What is done to a map after the last window, and the map that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Array, Scale
from mapanything_ros.core.errors import ExportError, InputError
from mapanything_ros.core.map.voxel_map import PointCloud, VoxelMap
from mapanything_ros.offline.export.finishing import (
    at_voxel_size,
    oriented_normals,
    without_outliers,
)
from mapanything_ros.offline.export.known_size import measure_scale, parse_reference
from mapanything_ros.offline.export.meshes import poisson_mesh, tsdf_mesh
from mapanything_ros.offline.export.refinement import refine
from mapanything_ros.offline.keyframe_store import KeyframeStore

MESHES = ('tsdf', 'poisson')


@dataclass(frozen=True)
class Finishing:
    """
    What to do, in this order; nothing by default.

    ``icp`` registers keyframes by their surfaces. ``scale_reference`` is a text that
    ``parse_reference`` reads. ``outliers`` removes stray points, ``voxel_m`` (0: no) thins the
    cloud, ``normals`` adds them. ``mesh`` says how meshes are made.
    """

    icp: bool = False
    scale_reference: str = ''
    outliers: bool = False
    voxel_m: float = 0.0
    normals: bool = False
    mesh: str = 'tsdf'

    def __post_init__(self) -> None:
        if not 0 <= self.voxel_m < float('inf'):
            raise InputError(f'a voxel is 0 (no thinning) or larger, got {self.voxel_m} m')
        if self.mesh not in MESHES:
            raise InputError(f'a mesh is made by {" or ".join(MESHES)}, not {self.mesh!r}')
        if self.scale_reference:
            parse_reference(self.scale_reference)


@dataclass(frozen=True, eq=False)
class Finished:
    """
    A map as it goes into files; its keyframes have their last poses and scale.

    ``normals`` (N,3) are those of the cloud, or None. ``scale`` is what a reference told, or None.
    ``notes`` say, in plain words, what finishing did.
    """

    cloud: PointCloud
    keyframes: KeyframeStore
    config: Config
    normals: Array | None = None
    scale: Scale | None = None
    notes: tuple[str, ...] = ()
    finishing: Finishing = field(default_factory=Finishing)
    voxel_m: float = 0.0

    @cached_property
    def mesh(self) -> Any:
        """Return the open3d TriangleMesh; it is made once."""
        if self.finishing.mesh == 'tsdf':
            return tsdf_mesh(self.keyframes, self.voxel_m)
        normals = self.normals
        if normals is None:
            normals = oriented_normals(self.cloud, self.keyframes)
        return poisson_mesh(self.cloud, normals, self.voxel_m)


def finish(
    cloud: PointCloud, keyframes: KeyframeStore, config: Config, finishing: Finishing,
    stage: Callable[[str], None] = lambda name: None,
) -> Finished:
    """
    Finish a map; keyframes are moved and scaled in place.

    ``stage`` is told what is being done. Raises InputError where a scale reference measures
    nothing, and ExportError where nothing of the cloud is left.
    """
    notes: list[str] = []
    scale, factor = None, 1.0
    if finishing.icp:
        stage('ICP')
        cloud = _refined(cloud, keyframes, config, notes)
    if finishing.scale_reference:
        stage('scale')
        scale = measure_scale(parse_reference(finishing.scale_reference), keyframes)
        factor = scale.factor
        keyframes.rescale(factor)
        cloud = PointCloud((cloud.xyz * factor).astype(cloud.xyz.dtype), cloud.rgb)
        notes.append(f'all lengths were multiplied by {factor:.4f}, as the {scale.source} tell')
    if finishing.outliers:
        stage('outliers')
        whole = len(cloud)
        cloud = without_outliers(cloud)
        notes.append(f'{whole - len(cloud)} of {whole} points were outliers')
    if finishing.voxel_m:
        cloud = at_voxel_size(cloud, finishing.voxel_m)
    if not len(cloud):
        raise ExportError('nothing of the map is left after finishing')
    normals = None
    if finishing.normals:
        stage('normals')
        normals = oriented_normals(cloud, keyframes)
    return Finished(
        cloud, keyframes, config, normals, scale, tuple(notes), finishing,
        finishing.voxel_m or factor * config.map.voxel_m)


def _refined(
    cloud: PointCloud, keyframes: KeyframeStore, config: Config, notes: list[str],
) -> PointCloud:
    """Return the cloud of refined keyframes, or the same one where they stay."""
    made = refine(keyframes, config.map.voxel_m)
    if not made.poses:
        notes.append('ICP moved nothing: surfaces would not meet better')
        return cloud
    notes.append(
        f'ICP brought surfaces from {made.before_m:.4f} to {made.after_m:.4f} m of each other')
    keyframes.place(made.poses)
    voxels = VoxelMap(config.map)
    for record in keyframes:
        voxels.insert(record.prediction(), record.map_from_camera)
    return voxels.points()
