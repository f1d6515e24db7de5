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

import resource

import numpy as np
import open3d
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import write_cloud, write_tum
from mapanything_ros.core.map.voxel_map import PointCloud

RANDOM = np.random.default_rng(3)
CLOUD = PointCloud(
    RANDOM.normal(size=(500, 3)).astype(np.float32),
    RANDOM.integers(0, 256, (500, 3), np.uint8))


def test_a_ply_reads_back_equal(tmp_path):
    path = tmp_path / 'new' / 'map.ply'
    write_cloud(path, CLOUD)
    read = open3d.io.read_point_cloud(str(path))
    np.testing.assert_array_equal(np.asarray(read.points).astype(np.float32), CLOUD.xyz)
    np.testing.assert_array_equal(np.rint(np.asarray(read.colors) * 255), CLOUD.rgb)
    assert [p.name for p in path.parent.iterdir()] == ['map.ply']


def test_a_trajectory_keeps_each_nanosecond_and_the_pose(tmp_path):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('xyz', [0.1, -2.0, 3.0]).as_matrix()
    pose[:3, 3] = [1.25, -2.5, 1e-7]
    stamps_ns = [1_700_000_000_000_000_001, 1_700_000_000_999_999_999]
    write_tum(tmp_path / 'trajectory.tum', [(stamp, pose) for stamp in stamps_ns])
    rows = [line.split() for line in (tmp_path / 'trajectory.tum').read_text().splitlines()]
    assert [int(row[0].replace('.', '')) for row in rows] == stamps_ns
    numbers = np.array(rows[0][1:], float)
    np.testing.assert_allclose(numbers[:3], pose[:3, 3], atol=1e-9)
    np.testing.assert_allclose(
        Rotation.from_quat(numbers[3:]).as_matrix(), pose[:3, :3], atol=1e-8)


@pytest.mark.parametrize('write', [
    lambda path: write_cloud(path, CLOUD), lambda path: write_tum(path, [])])
def test_an_unwritable_folder_is_one_clear_error(tmp_path, write):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(ExportError, match='cannot be written to'):
        write(tmp_path / 'file' / 'folder' / 'result')


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'map.ply'
    path.write_text('old')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system itself refuses to go on, as where the disk is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ExportError, match='could not be written'):
            write_cloud(path, CLOUD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['map.ply']
