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

import numpy as np
import pytest

from mapanything_ros.core.config import MapConfig
from mapanything_ros.core.voxel_map import PointCloud, VoxelMap


def cloud(xyz, rgb=None):
    xyz = np.atleast_2d(np.asarray(xyz, np.float32))
    rgb = np.full(xyz.shape, 100, np.uint8) if rgb is None else np.atleast_2d(rgb).astype(np.uint8)
    return PointCloud(xyz, rgb)


def ones(points):
    return np.ones(len(points), np.float32)


def insert(voxels, number, points, weight=None):
    voxels.insert(number, points, ones(points) if weight is None else np.float32(weight))


def test_points_of_a_voxel_are_averaged_by_confidence():
    voxels = VoxelMap(MapConfig(voxel_m=1.0, min_views=1))
    insert(voxels, 0, cloud([[0.2, 0.2, 0.2], [0.6, 0.2, 0.2]], [[0, 0, 0], [100, 0, 0]]), [1, 3])
    insert(voxels, 1, cloud([0.9, 0.2, 0.2], [250, 0, 0]), [4])
    points = voxels.points()
    np.testing.assert_allclose(points.xyz, [[0.7, 0.2, 0.2]], atol=1e-6)
    assert points.rgb.tolist() == [[162, 0, 0]]  # (75 * 4 + 250 * 4) / 8 = 162.5, to even


def test_the_result_does_not_depend_on_how_points_are_split_or_ordered():
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-1, 1, (2000, 3))
    whole, parts = (VoxelMap(MapConfig(voxel_m=0.1, min_views=1)) for _ in range(2))
    insert(whole, 0, cloud(xyz))
    for number, part in enumerate(np.array_split(rng.permutation(xyz), 5)):
        insert(parts, number, cloud(part))
    assert len(whole) == len(parts) == len(np.unique(np.floor(xyz / 0.1), axis=0))
    np.testing.assert_allclose(whole.points().xyz, parts.points().xyz, atol=1e-5)


def test_what_too_few_keyframes_saw_is_kept_but_not_shown():
    voxels = VoxelMap(MapConfig(voxel_m=0.1, min_views=2))
    insert(voxels, 0, cloud([[0.0, 0, 0], [1.0, 0, 0]]))
    assert len(voxels.points()) == 0
    insert(voxels, 1, cloud([[1.01, 0, 0]]))
    assert len(voxels) == 2
    np.testing.assert_allclose(voxels.points().xyz, [[1.005, 0, 0]], atol=1e-6)


def test_the_size_is_bounded_and_the_least_recently_seen_go_first():
    voxels = VoxelMap(MapConfig(voxel_m=1.0, max_points=1000, min_views=1))
    line = np.zeros((600, 3))
    line[:, 0] = np.arange(600) + 0.5
    for number in range(4):
        insert(voxels, number, cloud(line + [0, number, 0]))
        assert len(voxels) <= 1000
    rows = np.floor(voxels.points().xyz[:, 1])
    assert {row: int((rows == row).sum()) for row in np.unique(rows)} == {2.0: 400, 3.0: 600}


def test_negative_coordinates_fall_in_their_own_voxels():
    voxels = VoxelMap(MapConfig(voxel_m=1.0, min_views=1))
    insert(voxels, 0, cloud([[-0.1, 0, 0], [0.1, 0, 0]]))
    assert len(voxels) == 2


@pytest.mark.parametrize('far', [1e9, np.inf, np.nan])
def test_points_beyond_what_a_key_can_hold_are_left_out(far):
    voxels = VoxelMap(MapConfig(voxel_m=0.01, min_views=1))
    insert(voxels, 0, cloud([[far, 0, 0], [1, 2, 3]]))
    np.testing.assert_allclose(voxels.points().xyz, [[1, 2, 3]])


def test_clear_and_empty_clouds():
    voxels = VoxelMap(MapConfig(min_views=1))
    insert(voxels, 0, cloud(np.empty((0, 3))))
    insert(voxels, 0, cloud([1, 2, 3]))
    voxels.clear()
    assert len(voxels) == len(voxels.points()) == 0
