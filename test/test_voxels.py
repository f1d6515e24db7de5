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
import torch

from mapanything_ros.core.map.voxel_blocks import VoxelBlocks
from mapanything_ros.core.map.voxels import AXIS_OFFSET, sum_voxels, voxel_means

VOXEL_M = 0.25
FARTHEST = float(AXIS_OFFSET - 1) * VOXEL_M


def scattered(count=5000, seed=0, spread_m=2.0):
    """Give points, colours and weights, as tensors."""
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.uniform(-spread_m, spread_m, (count, 3))),
        torch.from_numpy(rng.integers(0, 256, (count, 3), np.uint8)),
        torch.from_numpy(rng.integers(1, 1 << 16, count)))


def summed(*points):
    key, sums = sum_voxels(*points, VOXEL_M)
    return key.numpy(), sums.numpy()


def assert_holds(blocks, key, sums):
    voxels = blocks.voxels()
    np.testing.assert_array_equal(voxels['key'], key)
    np.testing.assert_array_equal(voxels['sums'], sums)
    assert len(blocks) == len(key)


def test_means_are_those_of_plain_arithmetic():
    xyz, rgb, weight = scattered()
    found_xyz, found_rgb = voxel_means(*sum_voxels(xyz, rgb, weight, VOXEL_M), VOXEL_M)
    cells, group = np.unique(np.floor(xyz.numpy() / VOXEL_M), axis=0, return_inverse=True)
    weight, group = weight.numpy(), group.ravel()
    total = np.bincount(group, weight)
    expected_xyz, expected_rgb = (
        np.stack([np.bincount(group, weight * values[:, axis]) / total
                  for axis in range(3)], axis=1)
        for values in (xyz.numpy(), rgb.numpy()))
    assert len(found_xyz) == len(cells)
    order = np.lexsort(np.floor(found_xyz.numpy() / VOXEL_M).T[::-1])
    # Half a part, of 65,536, of a voxel.
    np.testing.assert_allclose(found_xyz[order], expected_xyz, atol=0.5 * VOXEL_M / 65536 + 1e-6)
    assert np.abs(found_rgb[order].numpy() - expected_rgb).max() <= 0.5 + 1e-9


def test_sums_do_not_depend_on_the_order_of_the_points():
    points = scattered()
    shuffled = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
    for one, other in zip(summed(*points), summed(*(part[shuffled] for part in points)),
                          strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('corner', [-FARTHEST, FARTHEST])
def test_the_farthest_voxels_are_kept_and_those_beyond_left_out(corner):
    xyz = torch.full((1, 3), corner, dtype=torch.float64)
    point = torch.cat([xyz, xyz * 1.001]), torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2)
    key, sums = sum_voxels(*point, VOXEL_M)
    found, _ = voxel_means(key, sums, VOXEL_M)
    np.testing.assert_allclose(found, xyz, atol=0.02)  # as float32 has it, 262 km away
    blocks = VoxelBlocks()
    blocks.add(key.numpy(), sums.numpy())
    assert_holds(blocks, key, sums)


def test_what_was_added_and_removed_leaves_nothing_behind():
    blocks, kept, passing = VoxelBlocks(), summed(*scattered(seed=1)), summed(*scattered(seed=2))
    blocks.add(*kept)
    blocks.add(*passing)
    assert len(blocks) == len(np.union1d(kept[0], passing[0])) > len(kept[0])
    assert set(blocks.voxels()['views']) == {1, 2}
    blocks.remove(*passing)
    assert_holds(blocks, *kept)
    blocks.remove(*kept)
    assert_holds(blocks, np.empty(0), np.empty((0, 7)))


def test_changes_are_told_once():
    blocks, near = VoxelBlocks(), summed(*scattered(seed=1, spread_m=1.0))
    wide = summed(*scattered(seed=2))
    blocks.add(*wide)
    changed, before = blocks.take_changed()
    np.testing.assert_array_equal(changed['key'], wide[0])
    assert not before['views'].any()
    blocks.add(*near)
    changed, before = blocks.take_changed()
    np.testing.assert_array_equal(changed['key'], near[0])
    np.testing.assert_array_equal(before['views'] > 0, np.isin(near[0], wide[0]))
    blocks.remove(*near)
    np.testing.assert_array_equal(
        blocks.take_changed()[0]['key'], np.intersect1d(near[0], wide[0]))
    assert not len(blocks.take_changed()[0])


def test_what_changed_back_has_not_changed():
    blocks, kept, passing = VoxelBlocks(), summed(*scattered(seed=1)), summed(*scattered(seed=2))
    blocks.add(*kept)
    blocks.take_changed()
    blocks.add(*passing)
    blocks.empty()
    assert not len(blocks) and not len(blocks.voxels())
    blocks.add(*kept)
    assert not len(blocks.take_changed()[0])
    blocks.add(*passing)
    np.testing.assert_array_equal(blocks.take_changed()[0]['key'], passing[0])


def test_views_count_who_saw_a_voxel():
    blocks, wide = VoxelBlocks(), summed(*scattered(seed=1))
    some = wide[0][::3], wide[1][::3]
    blocks.add(*wide)
    blocks.add(*some)
    np.testing.assert_array_equal(blocks.views(wide[0]), 1 + np.isin(wide[0], some[0]))
