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

"""Clouds come back from PCD, XYZ, LAS and LAZ as they were."""

import errno

import laspy
import numpy as np
import open3d
import pytest

from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import whole, write_cloud
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.export.clouds import write_las, write_xyz

RANDOM = np.random.default_rng(5)
CLOUD = PointCloud(
    RANDOM.normal(scale=30.0, size=(700, 3)).astype(np.float32),
    RANDOM.integers(0, 256, (700, 3), np.uint8))
NORMALS = RANDOM.normal(size=(700, 3))
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)


def read_pcd(path):
    """Read a binary PCD by its header, as PCL does."""
    head, _, body = path.read_bytes().partition(b'DATA binary\n')
    fields = dict(line.split(' ', 1) for line in head.decode().splitlines())
    kinds = [
        (name, {'F': '<f', 'U': '<u'}[kind] + size) for name, kind, size in zip(
            fields['FIELDS'].split(), fields['TYPE'].split(), fields['SIZE'].split(), strict=True)]
    return np.frombuffer(body, kinds, int(fields['POINTS']))


def columns(rows, *names):
    return np.stack([rows[name] for name in names], axis=1)


def test_a_pcd_has_the_fields_of_pcl_and_reads_back_equal(tmp_path):
    write_cloud(tmp_path / 'map.pcd', CLOUD, NORMALS)
    rows = read_pcd(tmp_path / 'map.pcd')
    np.testing.assert_array_equal(columns(rows, 'x', 'y', 'z'), CLOUD.xyz)
    packed = rows['rgb'].view(np.uint32)
    np.testing.assert_array_equal(
        np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1), CLOUD.rgb)
    np.testing.assert_allclose(
        columns(rows, 'normal_x', 'normal_y', 'normal_z'), NORMALS, atol=1e-6)


def test_a_ply_carries_normals(tmp_path):
    write_cloud(tmp_path / 'map.ply', CLOUD, NORMALS)
    read = open3d.io.read_point_cloud(str(tmp_path / 'map.ply'))
    np.testing.assert_allclose(np.asarray(read.normals), NORMALS, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(read.points).astype(np.float32), CLOUD.xyz)


@pytest.mark.parametrize('normals', [None, NORMALS], ids=['points', 'normals'])
def test_an_xyz_is_text_that_keeps_each_bit(tmp_path, normals):
    write_xyz(tmp_path / 'map.xyz', CLOUD, normals)
    table = np.loadtxt(tmp_path / 'map.xyz')
    np.testing.assert_array_equal(table[:, :3].astype(np.float32), CLOUD.xyz)
    np.testing.assert_array_equal(table[:, 3:6], CLOUD.rgb)
    if normals is None:
        assert table.shape[1] == 6
    else:
        np.testing.assert_allclose(table[:, 6:], normals, atol=1e-6)
    read = open3d.io.read_point_cloud(str(tmp_path / 'map.xyz'))
    np.testing.assert_allclose(np.asarray(read.points), CLOUD.xyz, rtol=1e-7)


@pytest.mark.parametrize('suffix', ['las', 'laz'])
def test_las_and_laz_keep_a_hundredth_of_a_millimetre_and_the_colours(tmp_path, suffix):
    path = tmp_path / f'map.{suffix}'
    write_las(path, CLOUD)
    with laspy.open(path) as reader:
        assert reader.header.are_points_compressed == (suffix == 'laz')
        read = reader.read()
    np.testing.assert_allclose(read.xyz, CLOUD.xyz, atol=0.6e-5)
    colours = np.stack([read.red, read.green, read.blue], axis=1)
    np.testing.assert_array_equal(colours >> 8, CLOUD.rgb)
    assert colours.max() == 65535


def test_a_map_that_las_cannot_hold_is_refused_and_not_wrapped_around(tmp_path):
    far = PointCloud(np.array([[0, 0, 0], [50_000, 0, 0]], np.float32), CLOUD.rgb[:2])
    with pytest.raises(ExportError, match='more than 21 km'):
        write_las(tmp_path / 'map.las', far)
    assert not list(tmp_path.iterdir())


def test_without_laspy_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'lazrs', None)
    with pytest.raises(ExportError, match=r"pip install 'laspy\[lazrs\]'"):
        write_las(tmp_path / 'map.laz', CLOUD)


def test_an_empty_cloud_is_written_as_such(tmp_path):
    empty = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    write_las(tmp_path / 'map.las', empty)
    write_xyz(tmp_path / 'map.xyz', empty)
    assert len(laspy.read(tmp_path / 'map.las')) == 0
    assert (tmp_path / 'map.xyz').read_text() == ''


def test_a_full_disk_leaves_the_old_folder_and_nothing_else(tmp_path):
    folder = tmp_path / 'model'
    folder.mkdir()
    (folder / 'old').write_text('old')
    with pytest.raises(ExportError, match='No space left'), whole(folder) as part:
        part.mkdir()
        (part / 'new').write_text('half')
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert [path.name for path in tmp_path.rglob('*')] == ['model', 'old']


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / 'model'
    folder.mkdir()
    (folder / 'old').write_text('old')
    with whole(folder) as part:
        part.mkdir()
        (part / 'new').write_text('new')
    assert [path.name for path in tmp_path.rglob('*')] == ['model', 'new']
