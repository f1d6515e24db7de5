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

"""The accumulated map: kept per keyframe, shown as one averaged, coloured point a voxel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
import torch

from mapanything_ros.core.config import MapConfig
from mapanything_ros.core.datatypes import Array, Prediction
from mapanything_ros.core.map.keyframe_points import KeyframePoints, reduce_view
from mapanything_ros.core.map.voxel_blocks import VoxelBlocks
from mapanything_ros.core.map.voxels import voxel_means

# Points of keyframes that are kept for each voxel that the map may have.
POINTS_PER_VOXEL = 8
# From this share of a bound on, what gives way first gives way.
CROWDED = 0.75
# Of a voxel that more keyframes have seen, the newest so many are kept. They have 1.15 points in
# it each (the corridor of the benchmarks), so that a round over all keyframes leaves 4.6 a voxel,
# less than CROWDED of POINTS_PER_VOXEL.
VIEWS_KEPT = 4
# Points that are looked at, whether they give way, for each that comes: a round over 6 points a
# voxel is done when 1.5 have come, which is before the bound is reached.
LOOKED_AT = 4


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points ``xyz`` (N,3) float32 metres with colours ``rgb`` (N,3) uint8."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True, eq=False)
class _Placed:
    points: KeyframePoints
    map_from_camera: Array
    shown: bool = True

    @property
    def camera(self) -> Array:
        return self.map_from_camera[:3, 3]

    @property
    def reach_m(self) -> float:
        return self.points.reach_m * float(np.linalg.norm(self.map_from_camera[:3, 0]))

    def moves_m(self, pose: Array) -> float:
        """Return how far another pose (4,4) may move a point, at most."""
        change = pose - self.map_from_camera
        return float(
            np.linalg.norm(change[:3, 3]) + self.points.reach_m * np.linalg.norm(change[:3, :3]))


class VoxelMap:
    """
    Averages the points of all keyframes, weighted by confidence, in voxels.

    The voxels follow from the points and poses of its keyframes alone, to the bit, whatever the
    way there. A pose ``map_from_camera`` (4,4) is a similarity: its scale multiplies the depth.

    At most ``max_points`` voxels, and 8 times as many points of keyframes, are kept. What is seen
    most often gives way first: when points are many, of voxels that more than 4 keyframes have
    seen the newest 4 are kept; when voxels are many, those go that too few keyframes have seen to
    be shown. Neither takes a voxel from the map that is shown. Only where that is not enough the
    keyframe goes that came longest ago: what has been seen again since is still there.

    With ``radius_m`` keyframes go that show nothing within it from the newest camera. ``len`` is
    the number of voxels.
    """

    def __init__(self, config: MapConfig) -> None:
        self._config = config
        self._keyframes: dict[int, _Placed] = {}  # oldest first
        self._blocks = VoxelBlocks()
        self._points = 0
        # Keyframes to be looked at, whether some of their points give way.
        self._round: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._blocks)

    def clear(self) -> None:
        """Forget everything."""
        self._keyframes.clear()
        self._blocks.clear()
        self._points = 0
        self._round.clear()

    def insert(self, view: Prediction, map_from_camera: Array) -> None:
        """Add what a keyframe shows, in place of what it showed before."""
        if view.keyframe_id in self._keyframes:
            self._drop(view.keyframe_id)
        config = self._config
        points = reduce_view(view, config.voxel_m, config.radius_m, config.max_points)
        placed = _Placed(points, map_from_camera)
        self._keyframes[view.keyframe_id] = placed
        self._points += len(points)
        self._blocks.add(*self._sums(placed))
        self._give_way(LOOKED_AT * len(points))
        self._bound()

    def repose(self, poses: Mapping[int, Array], tolerance_m: float = 0.0) -> None:
        """
        Move keyframes, by id, to where ``map_from_camera`` (4,4) says; others stay.

        So do those of which no point would move farther than the tolerance. The map is then the
        one that its keyframes would have made at these poses. Keyframes that it does not hold (any
        more) are passed over.
        """
        self._change({
            number: replace(self._keyframes[number], map_from_camera=pose)
            for number, pose in poses.items() if number in self._keyframes
            and self._keyframes[number].moves_m(pose) > tolerance_m})

    def forget(self, numbers: Iterable[int]) -> None:
        """Take keyframes, by id, out of the map for good; those that it does not hold are not."""
        for number in numbers:
            if number in self._keyframes:
                self._drop(number)

    def hide(self, numbers: Iterable[int]) -> None:
        """
        Take keyframes, by id, out of the map but keep them, to be moved and shown again.

        For a part of the path of which nobody knows where it is. What is hidden counts among the
        points that are kept. Keyframes that the map does not hold are passed over.
        """
        self._show(numbers, False)

    def show(self, numbers: Iterable[int]) -> None:
        """Take keyframes that were hidden, by id, into the map again, at their poses."""
        self._show(numbers, True)

    def points(self) -> PointCloud:
        """Return the map: the voxels that at least ``min_views`` keyframes saw."""
        voxels = self._blocks.voxels()
        return self._near(self._means(voxels[self._seen(voxels)]))

    def updates(self) -> PointCloud:
        """Return the points that came or changed in the map since the last call; not what went."""
        voxels, before = self._blocks.take_changed()
        seen = self._seen(voxels)
        told = self._seen(before)[seen]
        points, old = self._means(voxels[seen]), self._means(before[seen][told])
        new = ~told
        new[told] = (points.xyz[told] != old.xyz).any(axis=1) | (
            points.rgb[told] != old.rgb).any(axis=1)
        return self._near(PointCloud(points.xyz[new], points.rgb[new]))

    def _seen(self, voxels: NDArray[np.void]) -> NDArray[np.bool_]:
        seen: NDArray[np.bool_] = voxels['views'] >= self._config.min_views
        return seen

    def _means(self, voxels: NDArray[np.void]) -> PointCloud:
        xyz, rgb = voxel_means(
            torch.from_numpy(voxels['key'].copy()), torch.from_numpy(voxels['sums'].copy()),
            self._config.voxel_m)
        return PointCloud(xyz.numpy(), rgb.numpy())

    def _near(self, cloud: PointCloud) -> PointCloud:
        if not self._config.radius_m or not len(cloud):
            return cloud
        near = np.linalg.norm(cloud.xyz - self._newest().camera, axis=1) <= self._config.radius_m
        return PointCloud(cloud.xyz[near], cloud.rgb[near])

    def _sums(self, placed: _Placed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return placed.points.voxel_sums(placed.map_from_camera, self._config.voxel_m)

    def _newest(self) -> _Placed:
        return next(placed for placed in reversed(self._keyframes.values()) if placed.shown)

    def _show(self, numbers: Iterable[int], shown: bool) -> None:
        self._change({
            number: replace(self._keyframes[number], shown=shown) for number in numbers
            if number in self._keyframes and self._keyframes[number].shown != shown})

    def _change(self, changed: Mapping[int, _Placed]) -> None:
        """Put keyframes in the place of what they were before."""
        before = {number: self._keyframes[number] for number in changed}
        self._keyframes.update(changed)
        work = _shown_points(before.values()) + _shown_points(changed.values())
        if work > _shown_points(self._keyframes.values()):
            # Quicker than to remove the most of it.
            self._blocks.empty()
            for placed in self._keyframes.values():
                self._add(placed)
        else:
            for number, placed in changed.items():
                self._remove(before[number])
                self._add(placed)
        self._bound()

    def _add(self, placed: _Placed) -> None:
        if placed.shown:
            self._blocks.add(*self._sums(placed))

    def _remove(self, placed: _Placed) -> None:
        if placed.shown:
            self._blocks.remove(*self._sums(placed))

    def _drop(self, number: int) -> None:
        placed = self._keyframes.pop(number)
        self._points -= len(placed.points)
        self._remove(placed)

    def _give_way(self, budget: int) -> None:
        """Look at so many points of keyframes, in turn, and let those go that give way first."""
        config = self._config
        newest = next(reversed(self._keyframes))
        while budget > 0:
            crowded = self._points > CROWDED * POINTS_PER_VOXEL * config.max_points
            full = len(self._blocks) > CROWDED * config.max_points and config.min_views > 1
            if not crowded and not full:
                break
            if not self._round:
                self._round.extend(self._keyframes)
            number = self._round.popleft()
            placed = self._keyframes.get(number)
            if placed is not None:
                budget -= 1 + len(placed.points)
                if placed.shown and number != newest:
                    self._thin(number, crowded, full)

    def _thin(self, number: int, crowded: bool, full: bool) -> None:
        """Let points of a keyframe go that too many have seen, or too few."""
        config, placed = self._config, self._keyframes[number]
        key, sums = self._sums(placed)
        views = self._blocks.views(key)
        gone = np.zeros(len(key), bool)
        if crowded:
            gone |= views > max(VIEWS_KEPT, config.min_views)
        if full:
            gone |= views < config.min_views
        if not gone.any():
            return
        self._blocks.remove(key[gone], sums[gone])
        points = placed.points.within(key[~gone], placed.map_from_camera, config.voxel_m)
        self._points -= len(placed.points) - len(points)
        if len(points):
            self._keyframes[number] = replace(placed, points=points)
        else:
            del self._keyframes[number]

    def _bound(self) -> None:
        for number in self._out_of_reach():
            self._drop(number)
        limit = self._config.max_points
        while self._points > POINTS_PER_VOXEL * limit:
            self._drop(next(iter(self._keyframes)))
        while len(self._blocks) > limit:
            self._drop(next(
                number for number, placed in self._keyframes.items() if placed.shown))

    def _out_of_reach(self) -> list[int]:
        radius_m = self._config.radius_m
        shown = {n: placed for n, placed in self._keyframes.items() if placed.shown}
        if not radius_m or not shown:
            return []
        cameras = np.array([placed.camera for placed in shown.values()])
        nearest_m = np.linalg.norm(cameras - self._newest().camera, axis=1) - [
            placed.reach_m for placed in shown.values()]
        return [
            number for number, near_m in zip(shown, nearest_m, strict=True) if near_m > radius_m]


def _shown_points(keyframes: Iterable[_Placed]) -> int:
    return sum(len(placed.points) for placed in keyframes if placed.shown)
