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
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.offline.export.surfaces import Match, match, Surfaces
from mapanything_ros.offline.export.views import inverse, moved
from mapanything_ros.offline.keyframe_store import KeyframeStore

# Keyframes that each is registered to: those after it, and others that look at the same.
NEXT, OTHERS = 3, 3
MIN_OVERLAP = 0.3
# Cosine between the directions of two cameras that may look at the same.
MIN_ALIKE = 0.5
# How far, in voxels, points that belong together may be apart; coarse, then fine.
REACH_VOXELS = (4.0, 2.0)
# A pair that wants to move by more than this, in reaches, is wrong.
MAX_MOVE = 2.0
# Weight of where a keyframe was, to that of a pair: what ICP errs must not add up along the path.
PRIOR = 0.1
# Open3D's threads add up in any order; what is rounded to this (m, rad) is the same in each run.
DECIMALS = 7


@dataclass(frozen=True)
class Refinement:
    """
    Poses (4,4) ``map_from_camera`` by keyframe id and the residual before and after.

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
    over all keyframes, each held a little to where it was: the path as a whole stays. The
    result is kept where the residual over all pairs clearly falls.
    """
    ids = keyframes.ids()
    poses = [pose for _, pose in keyframes.trajectory()]
    clouds = Surfaces(keyframes, ids, voxel_m)
    reach_m = REACH_VOXELS[0] * voxel_m
    pairs = [
        _registered(clouds, first, second, inverse(poses[first]) @ poses[second], voxel_m)
        for first, second in _overlapping(clouds, poses, reach_m)]
    if not pairs:
        return Refinement({}, 0.0, 0.0)
    relaxed = _relaxed(poses, pairs, reach_m)
    fit = Match.joined([
        match(clouds, pair.first, pair.second, [
            inverse(placed[pair.first]) @ placed[pair.second] for placed in (poses, relaxed)],
            reach_m)
        for pair in pairs])
    before_m, after_m = fit.residuals()
    if not fit.improves():
        return Refinement({}, before_m, before_m)
    return Refinement(dict(zip(keyframes.ids(), relaxed, strict=True)), before_m, after_m)


def _overlapping(
    clouds: Surfaces, poses: Sequence[Array], reach_m: float,
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
    clouds: Surfaces, first: int, second: int, poses: Sequence[Array], reach_m: float,
) -> float:
    away_m = _distances(clouds, first, second, inverse(poses[first]) @ poses[second])
    return float(np.mean(away_m < reach_m)) if len(away_m) else 0.0


def _distances(clouds: Surfaces, first: int, second: int, first_from_second: Array) -> Array:
    """Return how far (N,) the second's points are from the first's."""
    import open3d
    target, source = clouds.get(first), clouds.get(second)
    if not len(target.points):
        return np.zeros(0)
    placed = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(
        moved(first_from_second, np.asarray(source.points))))
    return np.asarray(placed.compute_point_cloud_distance(target))


def _registered(
    clouds: Surfaces, first: int, second: int, guess: Array, voxel_m: float,
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
        motion = _rounded(motion)
    except RuntimeError:  # no point has a partner
        motion = guess
    change = inverse(guess) @ motion
    turn = float(np.linalg.norm(Rotation.from_matrix(change[:3, :3]).as_rotvec()))
    depth_m = float(np.median(np.asarray(source.points)[:, 2]))
    too_far = max(float(np.linalg.norm(change[:3, 3])), turn * depth_m) > MAX_MOVE * reach_m
    if too_far or not match(clouds, first, second, [guess, motion], reach_m).improves():
        motion = guess
    information = registration.get_information_matrix_from_point_clouds(
        source, target, reach_m, motion)
    return _Pair(first, second, motion, information.astype(np.float32).astype(np.float64))


def _rounded(motion: Array) -> Array:
    rounded = np.eye(4)
    turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
    rounded[:3, :3] = Rotation.from_rotvec(np.round(turn, DECIMALS)).as_matrix()
    rounded[:3, 3] = np.round(motion[:3, 3], DECIMALS)
    return rounded


def _relaxed(poses: Sequence[Array], pairs: Sequence[_Pair], reach_m: float) -> list[Array]:
    """Return the poses that fit the motions of all pairs, and what they were, best."""
    from open3d.pipelines import registration
    from open3d.utility import VerbosityContextManager, VerbosityLevel
    graph = registration.PoseGraph()
    # The map, which stays, and the keyframes in it.
    graph.nodes.extend([registration.PoseGraphNode(pose) for pose in (np.eye(4), *poses)])
    turn, shift = PRIOR * np.mean(
        [np.diag(pair.information).reshape(2, 3).mean(axis=1) for pair in pairs], axis=0)
    prior = np.diag(np.repeat([turn, shift], 3))
    graph.edges.extend([
        registration.PoseGraphEdge(index + 1, 0, pose, prior, False)
        for index, pose in enumerate(poses)])
    graph.edges.extend([
        registration.PoseGraphEdge(
            pair.second + 1, pair.first + 1, pair.first_from_second, pair.information, True)
        for pair in pairs])
    with VerbosityContextManager(VerbosityLevel.Error):
        registration.global_optimization(
            graph, registration.GlobalOptimizationLevenbergMarquardt(),
            registration.GlobalOptimizationConvergenceCriteria(),
            registration.GlobalOptimizationOption(
                max_correspondence_distance=reach_m, edge_prune_threshold=0.0,
                preference_loop_closure=1.0, reference_node=0))
    return [np.array(node.pose) for node in graph.nodes[1:]]
