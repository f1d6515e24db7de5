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

"""
Sums of points in the voxels of a grid, in whole numbers.

Whole numbers add up to the same sum in any order, on any device, and can be taken away again
without a trace. A point's place in its voxel is told in parts of 65,536.
"""

from __future__ import annotations

import torch

# 21 bits an axis: a million voxels each way from the origin. The voxels of one block of 16 by 16
# by 16 follow each other: the higher 17 bits of all axes come first.
AXIS_BITS = 21
AXIS_OFFSET = 1 << (AXIS_BITS - 1)
LOCAL_BITS = 4
LOCAL_MASK = (1 << LOCAL_BITS) - 1
HIGH_BITS = AXIS_BITS - LOCAL_BITS
HIGH_MASK = (1 << HIGH_BITS) - 1
BLOCK_SHIFT = 3 * LOCAL_BITS

PARTS = 1 << 16

# Weight, weight times the place in the voxel (3), weight times the colour (3).
SUMS = 7


def sum_voxels(
    xyz: torch.Tensor, rgb: torch.Tensor, weight: torch.Tensor, voxel_m: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the keys (M,) of the voxels that hold points, rising, and their sums (M,7), int64.

    ``xyz`` (N,3) floating, metres; ``rgb`` (N,3) and ``weight`` (N,) integers, the weight at
    least 1. Points that are not finite, or farther than a million voxels, are left out.
    """
    scaled, cell, inside = _located(xyz, voxel_m)
    if not inside.all():
        scaled, cell, rgb, weight = scaled[inside], cell[inside], rgb[inside], weight[inside]
    key, order = _keys(cell.long() + AXIS_OFFSET).sort()
    place = ((scaled - cell) * PARTS).long()
    weight = weight.long()[:, None]
    values = torch.cat([weight, weight * place, weight * rgb.long()], dim=1)
    key, count = torch.unique_consecutive(key, return_counts=True)
    # Sums of runs, as differences of the running sum.
    sums = values[order].cumsum(dim=0)[count.cumsum(dim=0) - 1]
    return key, sums.diff(dim=0, prepend=sums.new_zeros(1, SUMS))


def voxel_keys(xyz: torch.Tensor, voxel_m: float) -> torch.Tensor:
    """Return the keys (N,) int64 of the voxels of points (N,3), -1 for those left out."""
    _, cell, inside = _located(xyz, voxel_m)
    return torch.where(inside, _keys(cell.long() + AXIS_OFFSET), -1)


def voxel_means(
    key: torch.Tensor, sums: torch.Tensor, voxel_m: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean points (M,3) float32, metres, and colours (M,3) uint8 of voxels."""
    weight = sums[:, :1]
    place = (sums[:, 1:4] / weight.double() + 0.5) / PARTS
    rgb = (sums[:, 4:] + weight // 2) // weight
    return ((_cells(key) - AXIS_OFFSET + place) * voxel_m).float(), rgb.byte()


def _located(
    xyz: torch.Tensor, voxel_m: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return points (N,3) in voxels, the voxels they are in, and which (N,) are near enough."""
    scaled = xyz / voxel_m
    cell = scaled.floor()
    return scaled, cell, (cell.abs() < AXIS_OFFSET).all(dim=1)  # false for nan, too


def _keys(cell: torch.Tensor) -> torch.Tensor:
    x, y, z = (cell >> LOCAL_BITS).unbind(dim=1)
    high = (x << 2 * HIGH_BITS) | (y << HIGH_BITS) | z
    x, y, z = (cell & LOCAL_MASK).unbind(dim=1)
    return (high << BLOCK_SHIFT) | (x << 2 * LOCAL_BITS) | (y << LOCAL_BITS) | z


def _cells(key: torch.Tensor) -> torch.Tensor:
    return torch.stack([
        (key >> (BLOCK_SHIFT + axis * HIGH_BITS) & HIGH_MASK) << LOCAL_BITS
        | (key >> axis * LOCAL_BITS & LOCAL_MASK) for axis in (2, 1, 0)], dim=1)
