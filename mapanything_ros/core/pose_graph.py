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

"""Spreads what loops tell over the whole path."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
import math

import numpy as np

from mapanything_ros.core.datatypes import Array, Submap
from mapanything_ros.core.loop_edge import GATE_SIGMAS, LoopEdge
from mapanything_ros.core.path_stretch import Step, Stretch, vector

# How sure a step from one keyframe to the next is: a share of its length, and radians.
STEP_SHARE, STEP_RAD = 0.1, math.radians(0.05)
# Shorter steps are no surer than this one, metres.
MIN_STEP_M = 0.02
# Odometry that turned otherwise by so many times the usual difference makes a step doubtful.
UNUSUAL = 3.0
# Loops that tell how much worse the path is than its steps say.
SURPRISES = 20
# The squared error, in standard deviations, from which a loop is doubted. Doubt comes in stages,
# each so many times stricter than the one before, because at first the drift is in every loop.
DOUBT, STRICTER = 6 * GATE_SIGMAS ** 2, 10.0


class PoseGraph:
    """
    The path as a chain of keyframes, tied together by loops.

    Steps of the chain are as the windows were placed: by shared keyframes, or by odometry where
    windows share none. Their error grows with length; where two windows join, by the residual of
    that; where odometry turned otherwise, much more than it usually does, by the difference; and
    all over by what most loops say that the path is off. Only keyframes of loops are
    variables of the optimisation (Open3D's); the path between two of them is one edge with all
    its uncertainty, and bends by its parts of that afterwards. The first keyframe never moves.
    """

    def __init__(self) -> None:
        self.removed = 0
        self.clear()

    def __len__(self) -> int:
        return len(self._ids)

    def clear(self) -> None:
        """Forget path and loops."""
        self._ids: list[int] = []
        self._poses: dict[int, Array] = {}
        self._steps: dict[int, Step] = {}
        self._odometry: dict[int, Array] = {}
        # By how much odometry turned otherwise in each step, sorted.
        self._differences_rad: list[float] = []
        self._held: list[LoopEdge] = []
        self._new: list[LoopEdge] = []

    def add_window(self, submap: Submap, odometry: Mapping[int, Array] | None = None) -> None:
        """
        Add the keyframes that a window has placed; those that are known stay as they are.

        ``odometry`` gives ``odom_from_camera`` (4,4) of keyframes by id, where it is known.
        """
        self._odometry.update(odometry or {})
        residual_m = submap.residual_m
        for view in sorted(submap.views, key=lambda view: view.keyframe_id):
            if view.keyframe_id not in self._poses:
                self._insert(view.keyframe_id, submap.map_from_camera(view), residual_m)
                residual_m = 0.0

    def add_loops(self, edges: Sequence[LoopEdge]) -> None:
        """Add loops between keyframes that windows have placed."""
        for edge in edges:
            if edge.older not in self._poses or edge.newer not in self._poses:
                raise ValueError(f'no window has placed keyframe {edge.older} or {edge.newer}')
            if edge.older >= edge.newer:
                raise ValueError(f'a loop goes back, not from {edge.newer} to {edge.older}')
        self._new += edges

    def optimize(self) -> dict[int, Array]:
        """
        Return the poses (4,4) in the map of all keyframes by id; none where nothing moves.

        Loops that do not hold afterwards are removed for good, as if they had never been there.
        Those that the path satisfies already, within their own uncertainty, are only kept.
        """
        if all(edge.satisfied(self._poses) for edge in self._new):
            self._held += self._new
            self._new = []
        while self._new:
            poses = self._solve([*self._held, *self._new])
            new, held = _holding(self._new, poses), _holding(self._held, poses)
            if len(new) + len(held) == len(self._new) + len(self._held):
                self._held, self._new, self._poses = [*held, *new], [], poses
                return dict(poses)
            # What is new is doubted first.
            self.removed += len(self._new) - len(new) or len(self._held) - len(held)
            if len(new) == len(self._new):
                self._held = held
            self._new = new
        return {}

    def _insert(self, number: int, map_from_camera: Array, residual_m: float) -> None:
        index = bisect_left(self._ids, number)
        insort(self._ids, number)
        self._poses[number] = map_from_camera
        # A keyframe may come between two that are known: then there are two new steps.
        for place in (index, index + 1):
            if 0 < place < len(self._ids):
                self._steps[self._ids[place]] = self._step(
                    self._ids[place - 1], self._ids[place], residual_m)

    def _step(self, previous: int, this: int, residual_m: float) -> Step:
        motion = np.linalg.inv(self._poses[previous]) @ self._poses[this]
        length_m = max(float(np.linalg.norm(motion[:3, 3])), MIN_STEP_M)
        variance_m2 = (STEP_SHARE * length_m) ** 2 + residual_m ** 2
        variance_rad2 = STEP_RAD ** 2 + self._doubt_rad(previous, this, motion) ** 2
        return Step(motion, np.repeat([variance_rad2, variance_m2], 3))

    def _doubt_rad(self, previous: int, this: int, motion: Array) -> float:
        """Return how far odometry turned otherwise, 0 where it is no farther than usual."""
        if not {previous, this} <= self._odometry.keys():
            return 0.0
        measured = np.linalg.inv(self._odometry[previous]) @ self._odometry[this]
        difference_rad = float(np.linalg.norm(vector(np.linalg.inv(measured) @ motion)[:3]))
        insort(self._differences_rad, difference_rad)
        usual_rad = self._differences_rad[len(self._differences_rad) // 2]
        return difference_rad if difference_rad > UNUSUAL * usual_rad else 0.0

    def _solve(self, loops: Sequence[LoopEdge]) -> dict[int, Array]:
        """Return all poses as these loops want them."""
        stretches = self._stretches(loops, self._surprise(loops))
        keys = [self._ids[0], *(stretch.end for stretch in stretches)]
        moved = self._optimize_keys(keys, stretches, loops)
        poses = {keys[0]: moved[keys[0]]}
        for stretch in stretches:
            poses |= stretch.bent(poses[stretch.start], moved[stretch.end])
        # What comes after the last loop follows it.
        for number in self._ids[len(poses):]:
            previous = poses[next(reversed(poses))]
            poses[number] = previous @ self._steps[number].previous_from_this
        return poses

    def _surprise(self, loops: Sequence[LoopEdge]) -> float:
        """
        Return how much more the path errs than its steps say, 1 or more, as a factor of variance.

        Half of the newest loops may be false.
        """
        factors = []
        for edge in loops[-SURPRISES:]:
            way = self._stretch(
                bisect_left(self._ids, edge.older), bisect_left(self._ids, edge.newer))
            error = vector(np.linalg.inv(edge.older_from_newer) @ way.start_from_end)
            covariance = way.covariance + np.diag(edge.variance)
            factors.append(float(error @ np.linalg.solve(covariance, error)) / len(error))
        return max(1.0, float(np.median(factors)))

    def _stretch(self, start: int, end: int, surprise: float = 1.0) -> Stretch:
        """Return the path between two keyframes by their places in it."""
        ids = self._ids[start + 1:end + 1]
        return Stretch(self._ids[start], ids, [self._steps[number] for number in ids], surprise)

    def _stretches(self, loops: Sequence[LoopEdge], surprise: float) -> list[Stretch]:
        """Return the chain from the first keyframe to the last of a loop, cut at each of them."""
        ends = {edge.older for edge in loops} | {edge.newer for edge in loops}
        ends.discard(self._ids[0])
        stretches, start = [], 0
        for index in sorted(bisect_left(self._ids, number) for number in ends):
            stretches.append(self._stretch(start, index, surprise))
            start = index
        return stretches

    def _optimize_keys(
        self, keys: Sequence[int], stretches: Sequence[Stretch], loops: Sequence[LoopEdge],
    ) -> dict[int, Array]:
        """Return the poses of the loops' keyframes, by Open3D's pose graph with line process."""
        from open3d.pipelines import registration
        from open3d.utility import VerbosityContextManager, VerbosityLevel
        row = {number: index for index, number in enumerate(keys)}
        poses = {number: self._poses[number] for number in keys}
        edges = [
            registration.PoseGraphEdge(
                row[stretch.end], row[stretch.start], stretch.start_from_end,
                np.linalg.inv(stretch.covariance), False)
            for stretch in stretches]
        edges += [
            registration.PoseGraphEdge(
                row[edge.newer], row[edge.older], edge.older_from_newer,
                np.diag(1 / edge.variance), True)
            for edge in loops]
        # Open3D states doubt as a distance, times the mean of the last of the informations.
        weight = np.mean([edge.information[5, 5] for edge in edges])
        errors = [edge.error(poses[edge.older], poses[edge.newer]) for edge in loops]
        doubt = max(float((error ** 2 / edge.variance).sum())
                    for error, edge in zip(errors, loops, strict=True))
        while True:
            doubt = max(doubt, DOUBT)
            graph = registration.PoseGraph()
            graph.nodes.extend([registration.PoseGraphNode(poses[number]) for number in keys])
            graph.edges.extend(edges)
            option = registration.GlobalOptimizationOption(
                max_correspondence_distance=math.sqrt(doubt / weight),
                edge_prune_threshold=0.0, preference_loop_closure=1.0, reference_node=0)
            with VerbosityContextManager(VerbosityLevel.Error):
                registration.global_optimization(
                    graph, registration.GlobalOptimizationLevenbergMarquardt(),
                    registration.GlobalOptimizationConvergenceCriteria(), option)
            poses = {number: np.array(node.pose)
                     for number, node in zip(keys, graph.nodes, strict=True)}
            if doubt == DOUBT:
                return poses
            doubt /= STRICTER


def _holding(edges: Sequence[LoopEdge], poses: dict[int, Array]) -> list[LoopEdge]:
    return [edge for edge in edges if edge.fits(poses[edge.older], poses[edge.newer])]
