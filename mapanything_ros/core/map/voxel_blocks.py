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

"""Sums of voxels, from which what was added can be removed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.map.voxels import BLOCK_SHIFT, SUMS

VOXEL = np.dtype([
    ('key', np.int64),
    ('sums', np.int64, SUMS),
    ('views', np.int32),
])
NONE = np.empty(0, VOXEL)


class VoxelBlocks:
    """
    Voxels in blocks by position, so that a change touches the blocks that it falls in alone.

    Sums are whole numbers: what was added and removed leaves nothing behind, and the order does
    not count. ``len`` is the number of voxels.
    """

    def __init__(self) -> None:
        # By block, sorted by key; an array is replaced, never written to.
        self._blocks: dict[int, NDArray[np.void]] = {}
        # Blocks that were touched since changes were last taken, as they were then.
        self._before: dict[int, NDArray[np.void]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Forget everything, also what has changed."""
        self._blocks.clear()
        self._before.clear()
        self._count = 0

    def empty(self) -> None:
        """Remove all voxels."""
        for block in list(self._blocks):
            self._put(block, NONE)
        self._count = 0

    def add(self, key: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
        """Add what one keyframe saw: rising keys (M,) and sums (M,7)."""
        blocks, old = self._touched(key)
        at, known = _find(old, key)
        fresh = np.empty(len(key) - int(known.sum()), VOXEL)
        fresh['key'], fresh['sums'], fresh['views'] = key[~known], sums[~known], 1
        old['sums'][at[known]] += sums[known]
        old['views'][at[known]] += 1
        self._replace(blocks, len(old), np.insert(old, at[~known], fresh))

    def remove(self, key: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
        """Take away again exactly what was added, or the sums of some of its voxels."""
        blocks, old = self._touched(key)
        at = np.searchsorted(old['key'], key)
        old['sums'][at] -= sums
        old['views'][at] -= 1
        self._replace(blocks, len(old), old[old['views'] > 0])

    def views(self, key: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return (M,) how many keyframes saw the voxels of rising keys, all of which exist."""
        _, voxels = self._touched(key)
        return voxels['views'][np.searchsorted(voxels['key'], key)]

    def voxels(self) -> NDArray[np.void]:
        """Return all voxels, by rising key."""
        return np.concatenate([NONE, *(self._blocks[block] for block in sorted(self._blocks))])

    def take_changed(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """
        Return the voxels that came or changed since the last call, by rising key.

        And the same as they were then, with no views where they did not exist.
        """
        changed, before = [NONE], [NONE]
        for block in sorted(self._before.keys() & self._blocks.keys()):
            voxels, old = self._blocks[block], self._before[block]
            at, known = _find(old, voxels['key'])
            were = np.zeros_like(voxels)
            were[known] = old[at[known]]
            differs = (were['sums'] != voxels['sums']).any(axis=1) | (
                were['views'] != voxels['views'])
            changed.append(voxels[differs])
            before.append(were[differs])
        self._before.clear()
        return np.concatenate(changed), np.concatenate(before)

    def _touched(self, key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """Return the blocks of rising keys, and a copy of all voxels in them, by rising key."""
        block = key >> BLOCK_SHIFT
        blocks = block[np.flatnonzero(np.diff(block, prepend=-1))]
        return blocks, np.concatenate(
            [NONE, *(self._blocks.get(number, NONE) for number in blocks.tolist())])

    def _replace(self, blocks: NDArray[np.int64], before: int, voxels: NDArray[np.void]) -> None:
        """Put voxels in the place of all that were in the blocks."""
        ends = np.searchsorted(voxels['key'] >> BLOCK_SHIFT, blocks, side='right')
        start = 0
        for block, end in zip(blocks.tolist(), ends.tolist(), strict=True):
            # A copy: a view would keep all the others alive, too.
            self._put(block, voxels[start:end].copy())
            start = end
        self._count += len(voxels) - before

    def _put(self, block: int, voxels: NDArray[np.void]) -> None:
        before = self._before.setdefault(block, self._blocks.get(block, NONE))
        if len(voxels):
            self._blocks[block] = voxels
        else:
            self._blocks.pop(block, None)
            if not len(before):
                del self._before[block]


def _find(
    voxels: NDArray[np.void], key: NDArray[np.int64],
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return (M,) where keys are, or would be, in voxels by rising key, and which exist."""
    at = np.searchsorted(voxels['key'], key)
    known = np.zeros(len(key), bool)
    inside = at < len(voxels)
    known[inside] = voxels['key'][at[inside]] == key[inside]
    return at, known
