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

"""Meshes lie on the surfaces that were seen, and other programs read them."""

from helpers import distance_to_room
import numpy as np
import pytest
from scipy.spatial import cKDTree
from stores import box_record, cloud_of, store_of
import trimesh

from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.export.finishing import at_voxel_size, oriented_normals
from mapanything_ros.offline.export.meshes import poisson_mesh, tsdf_mesh, write_mesh

RECORDS = [box_record(index) for index in range(0, 24, 4)]
VOXEL_M = 0.06


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp('keyframes'), RECORDS)


@pytest.fixture(scope='module')
def fused(store):
    return tsdf_mesh(store, VOXEL_M)


@pytest.fixture(scope='module')
def solved(store):
    cloud = at_voxel_size(cloud_of(RECORDS), VOXEL_M / 2)
    return cloud, poisson_mesh(cloud, oriented_normals(cloud, store), VOXEL_M)


def check_surface(mesh):
    """Check that it lies on the walls and faces inward, with the colours of the walls."""
    vertices = np.asarray(mesh.vertices)
    away_m = distance_to_room(vertices)
    assert np.median(away_m) < 0.005 and np.percentile(away_m, 95) < 0.03
    corners = vertices[np.asarray(mesh.triangles)]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centres = corners.mean(axis=1)
    assert np.mean(np.einsum('ni,ni->n', facing, [2.5, 2.0, 1.2] - centres) > 0) > 0.99
    waves = np.sin(vertices @ np.array([[5.0, 2.0, 6.0], [3.0, 7.0, 1.0], [6.0, 4.0, 5.0]]))
    error = np.abs(np.asarray(mesh.vertex_colors) * 255 - (128 + 90 * waves))
    assert np.median(error) < 16


def check_coverage(mesh, cloud):
    """Check that there is surface where points were seen."""
    away_m = cKDTree(np.asarray(mesh.vertices)).query(cloud.xyz)[0]
    assert np.percentile(away_m, 97) < VOXEL_M


def test_tsdf_fuses_the_depth_of_all_keyframes(fused):
    check_surface(fused)
    check_coverage(fused, cloud_of(RECORDS, step=11))


def test_poisson_lies_on_the_points_and_invents_nothing_far_from_them(solved):
    cloud, mesh = solved
    check_surface(mesh)
    check_coverage(mesh, cloud)
    assert cKDTree(cloud.xyz).query(np.asarray(mesh.vertices))[0].max() <= 3.0 * VOXEL_M


@pytest.mark.parametrize('suffix', ['ply', 'obj', 'stl', 'glb'])
def test_other_programs_read_the_same_mesh(tmp_path, fused, suffix):
    path = tmp_path / f'mesh.{suffix}'
    write_mesh(path, fused)
    read = trimesh.load(path, force='mesh', process=False)
    corners = np.asarray(fused.vertices)[np.asarray(fused.triangles)]
    if suffix == 'glb':  # y is up
        corners = corners[..., [0, 2, 1]] * [1, 1, -1]
    np.testing.assert_allclose(read.triangles, corners, atol=1e-5)
    if suffix == 'stl':
        return
    colours = np.asarray(fused.vertex_colors)
    if suffix == 'glb':  # sRGB to linear
        colours = np.where(colours < 0.04, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(read.visual.vertex_colors[:, :3], colours * 255, atol=1.01)
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


def test_writing_leaves_the_mesh_as_it_was(tmp_path, fused):
    before = np.asarray(fused.vertices).copy(), np.asarray(fused.vertex_colors).copy()
    write_mesh(tmp_path / 'mesh.glb', fused)
    np.testing.assert_array_equal(np.asarray(fused.vertices), before[0])
    np.testing.assert_array_equal(np.asarray(fused.vertex_colors), before[1])


def test_nothing_to_mesh_is_said(tmp_path):
    with pytest.raises(ExportError, match='no surface to make a mesh of'):
        tsdf_mesh(store_of(tmp_path, []), VOXEL_M)
    empty = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    with pytest.raises(ExportError, match='the map is empty'):
        poisson_mesh(empty, np.zeros((0, 3)), VOXEL_M)


def test_an_unknown_kind_of_mesh_names_those_that_are_known(tmp_path, fused):
    with pytest.raises(ExportError, match=r'\.ply, \.obj, \.stl, \.glb'):
        write_mesh(tmp_path / 'mesh.fbx', fused)
