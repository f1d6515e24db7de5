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

"""Finishing goes step by step, and each format writes what it is named for."""

from dataclasses import replace
import resource

from helpers import distance_to_room
import numpy as np
import open3d
import pytest
from stores import box_record, points_of, room_record, store_of
from test_export_known_size import SIZE_M, view_of_tag

from mapanything_ros.core.config import Config, MapConfig
from mapanything_ros.core.errors import ExportError, InputError
from mapanything_ros.core.map.voxel_map import VoxelMap
from mapanything_ros.offline.export.finish import finish, Finishing
from mapanything_ros.offline.export.formats import FORMATS, parse_formats, write_formats

RECORDS = [box_record(index) for index in range(0, 12, 2)]
CONFIG = Config(map=MapConfig(voxel_m=0.06))


def mapped(keyframes):
    voxels = VoxelMap(CONFIG.map)
    for record in keyframes:
        voxels.insert(record.prediction(), record.map_from_camera)
    return voxels.points()


@pytest.fixture
def keyframes(tmp_path):
    return store_of(tmp_path / 'keyframes', RECORDS)


def test_without_options_nothing_is_done(keyframes):
    cloud = mapped(keyframes)
    made = finish(cloud, keyframes, CONFIG, Finishing())
    assert made.cloud is cloud and made.normals is None and made.notes == ()


def test_all_formats_are_written_and_nothing_else(tmp_path, keyframes):
    made = finish(mapped(keyframes), keyframes, CONFIG, Finishing(normals=True))
    stages = []
    paths = write_formats(tmp_path / 'out', tuple(FORMATS), made, stages.append)
    assert stages == list(FORMATS)
    assert {path.name for path in paths} == {
        'map.pcd', 'map.xyz', 'map.las', 'map.laz', 'map.rrd', 'colmap', 'bag', 'mesh.ply',
        'mesh.obj', 'mesh.stl', 'mesh.glb'}
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(
        path.name for path in paths)
    read = open3d.io.read_point_cloud(str(tmp_path / 'out' / 'map.pcd'))
    assert len(read.points) == len(read.normals) == len(made.cloud)


@pytest.mark.parametrize('name', list(FORMATS))
def test_a_disk_that_is_full_is_noticed_and_leaves_nothing(tmp_path, keyframes, name):
    made = finish(mapped(keyframes), keyframes, CONFIG, Finishing())
    assert len(made.mesh.triangles)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with pytest.raises(ExportError, match='could not be written'):
            write_formats(tmp_path / 'out', [name], made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize('how', ['tsdf', 'poisson'])
def test_the_mesh_is_made_as_asked_and_once(keyframes, how):
    made = finish(mapped(keyframes), keyframes, CONFIG, Finishing(mesh=how))
    assert made.mesh is made.mesh
    assert np.median(distance_to_room(np.asarray(made.mesh.vertices))) < 0.01


def test_outliers_and_voxels_change_the_cloud_alone(keyframes):
    cloud = mapped(keyframes)
    stray = replace(cloud, xyz=cloud.xyz.copy())
    stray.xyz[::400] = np.linspace([1, 1, 1], [4, 3, 2], len(stray.xyz[::400]))
    made = finish(stray, keyframes, CONFIG, Finishing(outliers=True, voxel_m=0.2))
    assert distance_to_room(stray.xyz).max() > 0.3
    assert np.percentile(distance_to_room(made.cloud.xyz), 99.5) < 0.1
    assert len(made.cloud) < len(cloud) / 4 and made.voxel_m == 0.2
    assert 'were outliers' in made.notes[0]


def test_a_known_size_scales_cloud_keyframes_and_mesh_alike(keyframes):
    cloud = mapped(keyframes)
    finishing = Finishing(scale_reference='0,0,0,0,2,0=3')
    made = finish(cloud, keyframes, CONFIG, finishing)
    np.testing.assert_allclose(made.cloud.xyz, 1.5 * cloud.xyz, rtol=1e-6)
    for before, after in zip(RECORDS, made.keyframes, strict=True):
        np.testing.assert_allclose(
            points_of(after)[0], 1.5 * points_of(before)[0], atol=1e-5)
    assert made.scale is not None and made.scale.source == 'points'
    vertices = np.asarray(made.mesh.vertices)
    assert np.median(distance_to_room(vertices / 1.5)) < 0.005
    assert made.voxel_m == pytest.approx(1.5 * CONFIG.map.voxel_m)


def test_a_tag_in_the_keyframes_scales_the_map(tmp_path):
    store = store_of(
        tmp_path / 'k', [view_of_tag(index, (20, 5), scale=2.0) for index in (0, 1)])
    made = finish(mapped(store), store, CONFIG, Finishing(
        scale_reference=f'tag36h11:7={SIZE_M}'))
    distance_m = np.linalg.norm(made.cloud.xyz, axis=1)
    # The board is 0.8 m away.
    assert 0.6 < np.median(distance_m) < 1.0
    assert made.scale is not None and made.scale.factor == pytest.approx(2.0, rel=0.01)


def test_icp_makes_the_map_again_from_keyframes_that_moved(tmp_path):
    records = [room_record(index) for index in range(6)]
    off = records[3].map_from_camera.copy()
    off[:3, 3] += 0.05, -0.04, 0.03
    store = store_of(tmp_path / 'k', [
        *records[:3], replace(records[3], map_from_camera=off), *records[4:]])
    made = finish(mapped(store), store, CONFIG, Finishing(icp=True))
    assert made.notes[0].startswith('ICP brought surfaces from')
    away_m = [
        np.linalg.norm(after.map_from_camera[:3, 3] - true.map_from_camera[:3, 3])
        for after, true in zip(made.keyframes, records, strict=True)]
    assert away_m[3] < 0.03 and max(away_m) < 0.03
    np.testing.assert_array_equal(made.cloud.xyz, mapped(store).xyz)


def test_icp_that_has_nothing_to_do_says_so(keyframes):
    cloud = mapped(keyframes)
    made = finish(cloud, keyframes, CONFIG, Finishing(icp=True))
    assert made.cloud is cloud and 'ICP moved nothing' in made.notes[0]


def test_formats_are_named_with_commas_between():
    assert parse_formats('laz, mesh.glb,laz,') == ('laz', 'mesh.glb')
    assert parse_formats('') == ()
    with pytest.raises(InputError, match=r"'dwg' is no format: choose among pcd, xyz, las"):
        parse_formats('pcd,dwg')


@pytest.mark.parametrize('wrong', [
    {'voxel_m': -0.1}, {'voxel_m': float('nan')}, {'mesh': 'lego'}, {'scale_reference': 'big'}])
def test_wrong_options_are_refused_before_any_work(wrong):
    with pytest.raises(InputError):
        Finishing(**wrong)
