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

"""All of the path, corrected by places that were recognised."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import gtsam
import numpy as np

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.estimation.factors import (
    DOUBT,
    doubting,
    FIXED,
    FREE,
    from_gtsam,
    POSE_DOUBT,
    sigmas,
    to_gtsam,
)
from mapanything_ros.core.estimation.similarity import difference, scale_of, stretched
from mapanything_ros.core.estimation.smoother import Fixed
from mapanything_ros.core.places.loop_edge import LoopEdge

# Doubt comes in stages (GNC, Yang et al. 2020), each so many times stricter than the one before:
# at first the drift is in all loops.
STRICTER = 3.0


class Chain:
    """
    All keyframes in a row, segment by segment, and loops between them.

    Poses (4,4) are similarities, as the smoother has left them; what it may still move comes anew
    each time. ``units`` are the scales of views over those of their poses. The first keyframe of
    the oldest segment never moves, and those of others do where a loop joins them to it.
    """

    def __init__(self, removed: int = 0) -> None:
        # Loops that did not hold.
        self.removed = removed
        self.poses: dict[int, Array] = {}
        self.units: dict[int, float] = {}
        # Segments that are in metres.
        self.metric: set[int] = set()
        # Those of whose scale windows say something.
        self._claimed: set[int] = set()
        # Of each keyframe its segment, of each segment the oldest that it was joined to.
        self.segments: dict[int, int] = {}
        self.joined: dict[int, int] = {}
        self._steps = gtsam.NonlinearFactorGraph()
        self._held: list[LoopEdge] = []

    def __copy__(self) -> Chain:
        other = Chain()
        other.__dict__ |= {
            name: copy(value) for name, value in vars(self).items() if name != '_steps'}
        other._steps = gtsam.NonlinearFactorGraph(self._steps)
        return other

    def add(self, fixed: Sequence[Fixed], segment: int) -> None:
        """Add the next keyframes of a segment, which nothing but loops moves any more."""
        self.joined.setdefault(segment, segment)
        before = next(reversed(self.poses), -1)
        for each in fixed:
            if each.motion is not None:
                self._steps.add(gtsam.BetweenFactorSimilarity3(
                    before, each.number, to_gtsam(each.motion),
                    gtsam.noiseModel.Gaussian.Covariance(each.covariance)))
            for scale, sigma in each.claims:
                self._claimed.add(segment)
                self._steps.add(gtsam.PriorFactorSimilarity3(
                    each.number, to_gtsam(stretched(each.pose, np.exp(scale))),
                    doubting(sigmas(FREE, FREE, sigma), DOUBT)))
            before = each.number
            self.poses[before], self.units[before] = each.pose, each.unit
            self.segments[before] = segment

    def path(self, segment: int) -> dict[int, Array]:
        """Return the poses of views (4,4) in the map of a segment and of those joined to it."""
        return {
            number: stretched(pose, self.units[number]) for number, pose in self.poses.items()
            if self.joined[self.segments[number]] == segment}

    def close(
        self, edges: Sequence[LoopEdge], newest: Sequence[Fixed], segment: int,
    ) -> tuple[dict[int, Array], Array, list[gtsam.BetweenFactorSimilarity3]] | None:
        """
        Take loops in; return what moves by them, for the smoother that has the newest keyframes.

        None where they tell nothing new, or do not hold: those are forgotten. ``newest`` are the
        keyframes of the newest segment behind the last that was added.
        """
        trial = copy(self)
        trial.add(newest, segment)
        loops = [
            edge for edge in (*self._held, *edges)
            if {edge.older, edge.newer} <= trial.poses.keys()]
        if not trial._join(edges) and (trial._doubts(edges) <= 1.0).all():
            self._held = loops
            return None
        trial._hold_firsts()
        marginals = trial._solve(loops)
        holding = [
            edge for edge, doubt in zip(loops, trial._doubts(loops), strict=True)
            if doubt <= POSE_DOUBT]
        self.removed += len(loops) - len(holding)
        if not set(edges) & set(holding):
            return None
        if len(holding) < len(loops):
            marginals = trial._solve(holding)
        self._held = holding
        self.joined = trial.joined
        last = next(reversed(self.poses), None)
        covariance = np.zeros((7, 7)) if last is None else np.array(
            marginals.marginalCovariance(last))
        self.poses = {number: trial.poses[number] for number in self.poses}
        return trial.poses, covariance, [trial._loop(edge, POSE_DOUBT) for edge in holding]

    def _join(self, edges: Sequence[LoopEdge]) -> bool:
        """Put segments that loops tie into one map, the older one's; say whether there are any."""
        before = dict(self.joined)
        for edge in edges:
            older, newer = (self.joined[self.segments[n]] for n in (edge.older, edge.newer))
            if older == newer:
                continue
            older_from_newer = self.poses[edge.older] @ self._motion(edge) @ np.linalg.inv(
                self.poses[edge.newer])
            # Those in metres give the map, and older ones.
            if (newer not in self.metric, newer) < (older not in self.metric, older):
                older, newer = newer, older
                older_from_newer = np.linalg.inv(older_from_newer)
            for number, segment in self.segments.items():
                if self.joined[segment] == newer:
                    self.poses[number] = older_from_newer @ self.poses[number]
            self.joined = {
                segment: older if to == newer else to for segment, to in self.joined.items()}
        return self.joined != before

    def _hold_firsts(self) -> None:
        """
        Hold the first keyframe of each segment that was joined to no older one.

        But not its scale, where windows say something of that.
        """
        claimed = {self.joined[segment] for segment in self._claimed}
        # Of each segment the first is the last to be written.
        firsts = {segment: number for number, segment in reversed(self.segments.items())}
        for segment, number in firsts.items():
            if self.joined[segment] == segment:
                self._steps.add(gtsam.PriorFactorSimilarity3(
                    number, to_gtsam(self.poses[number]),
                    sigmas(FIXED, FIXED, FREE if segment in claimed else FIXED)))

    def _solve(self, loops: Sequence[LoopEdge]) -> gtsam.Marginals:
        """Move the poses to where most loops hold; return how far they may be off."""
        doubt = float(self._doubts(loops).max())
        parameters = gtsam.LevenbergMarquardtParams()
        parameters.setRelativeErrorTol(1e-3)
        while True:
            doubt = max(doubt / STRICTER, POSE_DOUBT)
            values, graph = gtsam.Values(), gtsam.NonlinearFactorGraph(self._steps)
            for number, pose in self.poses.items():
                values.insert(number, to_gtsam(pose))
            for edge in loops:
                graph.add(self._loop(edge, doubt))
            found = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()
            self.poses = {
                number: from_gtsam(found.atSimilarity3(number)) for number in self.poses}
            if doubt == POSE_DOUBT:
                return gtsam.Marginals(graph, found)

    def _doubts(self, edges: Sequence[LoopEdge]) -> Array:
        """Return by how many standard deviations the poses err about each loop, (N,), rms."""
        if not edges:
            return np.zeros(0)
        older, newer = (
            np.stack([self.poses[number] for number in numbers]) for numbers in (
                [edge.older for edge in edges], [edge.newer for edge in edges]))
        found = np.linalg.inv(older) @ newer
        usual = np.repeat([self._sigmas(edge) for edge in edges], (3, 3, 1), axis=1)
        error = difference(np.stack([self._motion(edge) for edge in edges]), found) / usual
        return np.asarray(np.sqrt(np.mean(error ** 2, axis=1)))

    def _loop(self, edge: LoopEdge, doubt: float) -> gtsam.BetweenFactorSimilarity3:
        """Return a loop between poses, doubted from so many standard deviations on."""
        turn, place, scale = self._sigmas(edge)
        motion = self._motion(edge)
        # Of a similarity GTSAM has the shift before it stretches.
        noise = sigmas(turn, place / scale_of(motion), scale)
        return gtsam.BetweenFactorSimilarity3(
            edge.older, edge.newer, to_gtsam(motion), doubting(noise, np.sqrt(7.0) * doubt))

    def _motion(self, edge: LoopEdge) -> Array:
        """Return a loop (4,4) between poses, not views."""
        in_older = np.diag([self.units[edge.older]] * 3 + [1.0]) @ edge.similarity
        return stretched(in_older, 1.0 / self.units[edge.newer])

    def _sigmas(self, edge: LoopEdge) -> tuple[float, float, float]:
        """Return a loop's standard deviations: turn, shift in the older pose's unit, scale."""
        return edge.sigma_rad, edge.sigma_m * self.units[edge.older], edge.sigma_scale
