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

"""Moves keyframes a little so that their surfaces meet, and never so that they meet less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.export import to_open3d
from mapanything_ros.core.voxel_map import PointCloud
from mapanything_ros.offline.export.views import camera_points, inverse, moved, projected
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore

# Keyframes that each is registered to: those after it, and others that look at the same.
NEXT, OTHERS = 3, 3
# Points of a keyframe, and how many keyframes are in memory.
POINTS, CACHED = 4000, 64
MIN_OVERLAP = 0.3
# Cosine between the directions of two cameras that may look at the same.
MIN_ALIKE = 0.5
# How far, in voxels, points that belong together may be apart; coarse, then fine.
REACH_VOXELS = (4.0, 2.0)
# A pair that wants to move by more than this, in reaches, is wrong.
MAX_MOVE = 2.0
LOOSE_EDGE = 0.25
# What a residual must fall to, relative: noise moves surfaces, too.
WORTHWHILE = 0.9


@dataclass(frozen=True)
class Refinement:
    """
    Poses (4,4) ``map_from_camera`` by stamp (ns) and the residual before and after.

    The residual is the rms difference in depth between the surfaces of keyframes that overlap,
    of what is near before or after. Where it would not fall by a tenth, poses are empty.
    """

    poses: dict[int, Array]
    before_m: float
    after_m: float


@dataclass(frozen=True, eq=False)
class _Pair:
    first: int
    second: int
    first_from_second: Array
    information: Array


def refine(keyframes: KeyframeStore, voxel_m: float) -> Refinement:
    """
    Register keyframes that overlap, by colour and surface, and relax all of their poses.

    Coloured ICP (Park et al., 2017) gives the motion of each pair; one that does not bring the
    two surfaces clearly closer counts as it was. A pose graph (Open3D's) then spreads the motions
    over all keyframes, the first of which stays. The result is kept where the residual over all
    pairs clearly falls.
    """
    ids = keyframes.ids()
    poses = [pose for _, pose in keyframes.trajectory()]
    clouds = _Clouds(keyframes, ids, voxel_m)
    reach_m = REACH_VOXELS[0] * voxel_m
    pairs = [
        _registered(clouds, first, second, inverse(poses[first]) @ poses[second], voxel_m)
        for first, second in _overlapping(clouds, poses, reach_m)]
    if not pairs:
        return Refinement({}, 0.0, 0.0)
    relaxed = _relaxed(poses, pairs, reach_m)
    match = _Match.joined([
        _match(clouds, pair.first, pair.second, [
            inverse(placed[pair.first]) @ placed[pair.second] for placed in (poses, relaxed)],
            reach_m)
        for pair in pairs])
    before_m, after_m = match.residuals()
    if not match.improves():
        return Refinement({}, before_m, before_m)
    stamps = [stamp_ns for stamp_ns, _ in keyframes.trajectory()]
    return Refinement(dict(zip(stamps, relaxed, strict=True)), before_m, after_m)


class _Clouds:
    """Thinned points of keyframes in their cameras, with normals; a few are kept."""

    def __init__(self, keyframes: KeyframeStore, ids: Sequence[int], voxel_m: float) -> None:
        self._keyframes = keyframes
        self._ids = ids
        self._voxel_m = voxel_m
        self.get = lru_cache(CACHED)(self._make)
        self.record = lru_cache(CACHED)(self._read)

    def __len__(self) -> int:
        return len(self._ids)

    def _read(self, number: int) -> KeyframeRecord:
        return self._keyframes[self._ids[number]]

    def _make(self, number: int) -> Any:
        from open3d.geometry import KDTreeSearchParamKNN
        points, colours = camera_points(self.record(number))
        cloud = to_open3d(PointCloud(points.astype(np.float32), colours))
        thin = cloud.voxel_down_sample(self._voxel_m)
        if len(thin.points) > POINTS:
            thin = thin.select_by_index(
                np.linspace(0, len(thin.points) - 1, POINTS).astype(int).tolist())
        if len(thin.points):
            thin.estimate_normals(KDTreeSearchParamKNN(12))
            thin.orient_normals_towards_camera_location(np.zeros(3))
        return thin


def _overlapping(
    clouds: _Clouds, poses: Sequence[Array], reach_m: float,
) -> list[tuple[int, int]]:
    """Return the pairs to register: neighbours in time, and the nearest others that overlap."""
    positions = np.array([pose[:3, 3] for pose in poses])
    views = np.array([pose[:3, 2] for pose in poses])
    pairs = []
    for first in range(len(poses)):
        later = np.arange(first + 1, len(poses))
        others = later[NEXT:][(views[first + 1:] @ views[first])[NEXT:] > MIN_ALIKE]
        away_m = np.linalg.norm(positions[others] - positions[first], axis=1)
        chosen = [*later[:NEXT], *others[np.argsort(away_m, kind='stable')[:OTHERS]]]
        pairs += [
            (first, int(second)) for second in chosen
            if _overlap(clouds, first, int(second), poses, reach_m) >= MIN_OVERLAP]
    return pairs


def _overlap(
    clouds: _Clouds, first: int, second: int, poses: Sequence[Array], reach_m: float,
) -> float:
    away_m = _distances(clouds, first, second, inverse(poses[first]) @ poses[second])
    return float(np.mean(away_m < reach_m)) if len(away_m) else 0.0


def _distances(clouds: _Clouds, first: int, second: int, first_from_second: Array) -> Array:
    """Return how far (N,) the second's points are from the first's."""
    import open3d
    target, source = clouds.get(first), clouds.get(second)
    if not len(target.points):
        return np.zeros(0)
    placed = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(
        moved(first_from_second, np.asarray(source.points))))
    return np.asarray(placed.compute_point_cloud_distance(target))


@dataclass(frozen=True, eq=False)
class _Match:
    """For motions (M): squared differences (M,N) of surfaces in depth, and of colours."""

    squares: Array
    colours: Array

    @classmethod
    def joined(cls, parts: Sequence[_Match]) -> _Match:
        """Join the matches of several pairs."""
        return cls(*(
            np.concatenate([getattr(part, name) for part in parts], axis=1)
            for name in ('squares', 'colours')))

    def residuals(self) -> tuple[float, float]:
        """Return the rms distances of the first motion and the second."""
        if not self.squares.size:
            return 0.0, 0.0
        before, after = np.sqrt(self.squares.mean(axis=1))
        return float(before), float(after)

    def improves(self) -> bool:
        """
        Say whether the second motion is clearly better than the first.

        Walls that slide along themselves meet no worse; then, colours do.
        """
        before, after = self.residuals()
        if after >= WORTHWHILE * before:
            return False
        unlike_before, unlike_after = self.colours.mean(axis=1)
        return bool(unlike_after <= unlike_before)


def _match(
    clouds: _Clouds, first: int, second: int, motions: Sequence[Array], reach_m: float,
) -> _Match:
    """
    Compare the second's points with what the first sees at their pixels.

    Only points count that it sees at each of the motions, and near at one of them: a nearest
    neighbour instead would reward motions to where the first shows something.
    """
    record, source = clouds.record(first), clouds.get(second)
    compared = [_compared(record, moved(motion, np.asarray(source.points)), np.asarray(
        source.colors)) for motion in motions]
    distances, colours = (np.stack(values) for values in zip(*compared, strict=True))
    counts = np.isfinite(distances).all(axis=0) & (distances < reach_m).any(axis=0)
    return _Match(np.minimum(distances[:, counts], reach_m) ** 2, colours[:, counts])


def _compared(record: KeyframeRecord, points: Array, colours: Array) -> tuple[Array, Array]:
    """Return differences (N,) in depth and (N,) in colour, nan where the keyframe sees nothing."""
    pixels = projected(points, record.intrinsics)
    distances, differences = np.full((2, len(points)), np.nan)
    height, width = record.depth_m.shape
    inside = np.flatnonzero(
        ((pixels > -0.5) & (pixels < np.array([width, height]) - 0.5)).all(axis=1))
    column, row = np.rint(pixels[inside]).astype(np.int64).T
    distances[inside] = np.abs(record.depth_m[row, column] - points[inside, 2])
    differences[inside] = np.abs(
        record.rgb[row, column] / 255.0 - colours[inside]).mean(axis=1)
    return distances, differences


def _registered(
    clouds: _Clouds, first: int, second: int, guess: Array, voxel_m: float,
) -> _Pair:
    """Return the pair as ICP has it, or as it was where that is no better."""
    from open3d.pipelines import registration
    from open3d.utility import VerbosityContextManager, VerbosityLevel
    target, source = clouds.get(first), clouds.get(second)
    reach_m = REACH_VOXELS[0] * voxel_m
    motion: Any = guess
    try:
        with VerbosityContextManager(VerbosityLevel.Error):
            for voxels in REACH_VOXELS:
                motion = registration.registration_colored_icp(
                    source, target, voxels * voxel_m, motion).transformation
    except RuntimeError:  # no point has a partner
        motion = guess
    change = inverse(guess) @ motion
    turn = float(np.linalg.norm(Rotation.from_matrix(change[:3, :3]).as_rotvec()))
    depth_m = float(np.median(np.asarray(source.points)[:, 2]))
    too_far = max(float(np.linalg.norm(change[:3, 3])), turn * depth_m) > MAX_MOVE * reach_m
    if too_far or not _match(clouds, first, second, [guess, motion], reach_m).improves():
        motion = guess
    information = registration.get_information_matrix_from_point_clouds(
        source, target, reach_m, motion)
    return _Pair(first, second, motion, information)


def _relaxed(poses: Sequence[Array], pairs: Sequence[_Pair], reach_m: float) -> list[Array]:
    """Return the poses that fit the motions of all pairs best; the first stays."""
    from open3d.pipelines import registration
    from open3d.utility import VerbosityContextManager, VerbosityLevel
    graph = registration.PoseGraph()
    graph.nodes.extend([registration.PoseGraphNode(pose) for pose in poses])
    # Without this, a keyframe that overlaps with none would be free.
    graph.edges.extend([
        registration.PoseGraphEdge(
            index + 1, index, inverse(poses[index]) @ poses[index + 1],
            LOOSE_EDGE * np.eye(6), False)
        for index in range(len(poses) - 1)])
    graph.edges.extend([
        registration.PoseGraphEdge(
            pair.second, pair.first, pair.first_from_second, pair.information, True)
        for pair in pairs])
    with VerbosityContextManager(VerbosityLevel.Error):
        registration.global_optimization(
            graph, registration.GlobalOptimizationLevenbergMarquardt(),
            registration.GlobalOptimizationConvergenceCriteria(),
            registration.GlobalOptimizationOption(
                max_correspondence_distance=reach_m, edge_prune_threshold=0.0,
                preference_loop_closure=1.0, reference_node=0))
    return [np.array(node.pose) for node in graph.nodes]
