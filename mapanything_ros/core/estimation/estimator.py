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

"""Places windows in the map, and corrects the path by all that was said about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from itertools import pairwise
import math

import numpy as np
import torch

from mapanything_ros.core.config import AlignmentConfig, ScaleConfig
from mapanything_ros.core.datatypes import (
    Array,
    Keyframe,
    Prediction,
    Scale,
    Submap,
    WindowPrediction,
)
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.estimation.chain import Chain
from mapanything_ros.core.estimation.factors import DOUBT, FIXED, FREE, POSE_DOUBT
from mapanything_ros.core.estimation.gravity import levelled
from mapanything_ros.core.estimation.noise import Noise
from mapanything_ros.core.estimation.scale import (
    depth_evidence,
    Evidence,
    evidence_of_views,
    MIN_ODOMETRY_BASELINE_M,
    MIN_ODOMETRY_POSES,
    MIN_SIGMA,
    odometry_evidence,
    rescaled,
)
from mapanything_ros.core.estimation.similarity import difference, rigid, scale_of, stretched
from mapanything_ros.core.estimation.smoother import Node, Smoother, STAGES
from mapanything_ros.core.places.loop_edge import LoopEdge

# REP-103: from the optical frame (x right, z forward) to the body frame (x forward, z up).
BODY_FROM_OPTICAL: Array = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
# How far a backend's own metric scale is off (log), where it has no evidence of its own.
MODEL_SIGMA = 0.1

Keyframes = Mapping[int, Keyframe]


class Estimator:
    """
    Places each window in the map, and corrects the path by it: one factor graph.

    The newest windows are estimated together (Smoother); what is behind them moves by loops alone
    (Chain). What ties a window to the map: keyframes that other windows have seen, odometry, and
    what is said of its scale. The first one lies where odometry says, else with the robot's base
    (or the camera's body frame) at the map's origin, level where gravity was measured. One that
    nothing ties, or that is in metres where the map is not, starts a new segment: a map of its
    own, until a loop joins it to an older one. With trusted odometry every keyframe is as near to
    where that has it as to where windows do, and no error adds up.
    """

    def __init__(
        self, config: AlignmentConfig, scale: ScaleConfig, trust_odometry: bool,
    ) -> None:
        self._config = config
        # Poses that are the truth say how long things are, too.
        self._scale_source = (
            'odometry' if trust_odometry and scale.source == 'model' else scale.source)
        self._trust_odometry = trust_odometry
        self._windows = 0
        self._chain = Chain()
        self._loop_corrections = 0
        # Counted since the start; the newest segment has this number.
        self.segments = 0
        self.reset()

    def reset(self) -> None:
        """Forget the map: the next window is the first."""
        # Whether measured gravity made the map's z axis point up.
        self.levelled = False
        self._noise = Noise()
        self._smoother = Smoother(self._noise)
        self._chain = Chain(self._chain.removed)
        # Of keyframes that may come again: the window that has seen it first, and what it saw.
        self._seen: dict[int, tuple[int, Prediction]] = {}
        self._last_pose: Array | None = None
        # The correction of odometry by the newest window, (4,4); None without odometry.
        self.map_from_odom: Array | None = None

    def place(self, window: WindowPrediction, keyframes: Sequence[Keyframe]) -> Submap:
        """
        Return the window in the map frame; ``keyframes`` are those that it was made of.

        Raises AlignmentError, and leaves the map as it was, where the window contradicts most of
        what ties it, or nothing tells the scale of one that must fit the map.
        """
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        odometry = {
            view.keyframe_id: pose for view in window.views
            if (pose := by_id[view.keyframe_id].odom_from_camera) is not None}
        ties = self._ties(window.views)
        evidence = self._evidence(window, by_id, bool(ties))
        expected = self._expected(window.views, odometry)
        # Nothing in metres goes with what is not.
        new_segment = not expected or not self._metric and evidence is not None
        smoother = Smoother(self._noise) if new_segment else copy(self._smoother)
        self._windows += 1
        seen = {view.keyframe_id: view.world_from_camera for view in window.views}
        # The distances of odometry are factors of their own.
        claims = [] if evidence is None or evidence.source == 'odometry' else [
            (math.log(evidence.factor), evidence.sigma)]
        node = Node(
            self._windows, seen, median_depth(window.views),
            frozenset(seen.keys() - smoother.poses.keys()), claims, ties)
        known = node.views.keys() - node.first
        self._require_scale(node, odometry, bool(known), evidence)
        if new_segment:
            expected, level = self._beginning(window, by_id, odometry)
        # Odometry is asked where the map does not tell enough.
        told = {n: expected[n] for n in known} if len(known) > 1 else expected
        smoother.variances |= {
            k.id: k.odom_variance for k in keyframes if k.odom_variance is not None}
        smoother.add(node, told, _likely_scale(node, smoother, evidence, told), odometry)
        held = {}
        if new_segment:
            # Odometry has its own lengths, whatever windows say where it must tell them.
            told_scale = self._scale_source == 'odometry' and min(expected) in odometry
            held[min(expected)] = FREE if claims and not told_scale else FIXED
        if self._trust_odometry:
            smoother.anchors.update({n: odometry[n] for n in odometry.keys() & node.first})
        smoother.poses = _guesses(smoother, node, expected, held)
        smoother.held |= held
        self._learn(node, smoother)
        _require_shape(smoother, node)
        smoother.solve()
        doubts = smoother.doubts(node)
        _require_fit(doubts, set(expected) if odometry else known, self._config.min_inliers)
        # What a GPU may have no memory for comes before anything changes.
        views = [rescaled(view, smoother.scale(node)) for view in window.views]
        if new_segment:
            self._chain.add(self._smoother.retire(0), self.segments)
            self.segments += 1
            if evidence is not None:
                self._chain.metric.add(self.segments)
            self._seen.clear()
            self.levelled = level
        self._smoother = smoother
        return self._submap(
            window, views, node, doubts, new_segment, evidence, by_id, odometry)

    def close(self, edges: Sequence[LoopEdge]) -> bool:
        """Take loops in; say whether they moved the path."""
        corrected = self._chain.close(edges, self._smoother.moving(), self.segments)
        if corrected is None:
            return False
        self._loop_corrections += 1
        self._smoother.repose(*corrected)
        self._follow()
        return True

    @property
    def _metric(self) -> bool:
        return self.segments in self._chain.metric

    @property
    def segment(self) -> int:
        """Return the segment that the newest window is in: the oldest that it was joined to."""
        return self._chain.joined.get(self.segments, self.segments)

    def recent(self) -> dict[int, Array]:
        """
        Return ``map_from_view`` (4,4) of the keyframes that windows still move, by id.

        A similarity: its scale is that of the keyframe's depth since it first came.
        """
        return {n: self._smoother.map_from_view(n) for n in self._smoother.poses}

    def path(self) -> dict[int, Array]:
        """Return ``map_from_view`` (4,4) of all keyframes of the segment, by id."""
        return self._chain.path(self.segment) | self.recent()

    def statistics(self) -> dict[str, int]:
        """Return counts since the start: corrections by loops, and loops that did not hold."""
        return {
            'loop_corrections': self._loop_corrections, 'loop_removed': self._chain.removed}

    # What ties a window

    def _expected(
        self, views: Sequence[Prediction], odometry: Mapping[int, Array],
    ) -> dict[int, Array]:
        """Return where keyframes should be (4,4), as far as the map tells, by id."""
        poses, measured = self._smoother.poses, self._smoother.odometry
        expected = {v.keyframe_id: poses[v.keyframe_id] for v in views if v.keyframe_id in poses}
        tied = poses.keys() & measured.keys()
        for number in odometry.keys() - poses.keys() if tied else ():
            near = min(tied, key=lambda other: (abs(other - number), other))
            expected[number] = poses[near] @ np.linalg.inv(measured[near]) @ odometry[number]
        return expected

    def _beginning(
        self, window: WindowPrediction, by_id: Keyframes, odometry: Mapping[int, Array],
    ) -> tuple[dict[int, Array], bool]:
        """Return where a map begins: keyframes (4,4) by id, and whether by measured gravity."""
        if odometry:
            correction = np.eye(4) if self.map_from_odom is None else self.map_from_odom
            return {number: correction @ pose for number, pose in odometry.items()}, False
        first = window.views[0]
        if self._last_pose is not None:
            return {first.keyframe_id: self._last_pose}, self.levelled
        mount = by_id[first.keyframe_id].base_from_camera
        start = BODY_FROM_OPTICAL if mount is None else mount
        for view in window.views:
            up_in_camera = by_id[view.keyframe_id].up_in_camera
            if up_in_camera is not None:
                up_in_world = view.world_from_camera[:3, :3] @ up_in_camera
                start = levelled(start, first.world_from_camera[:3, :3].T @ up_in_world)
                return {first.keyframe_id: start}, True
        return {first.keyframe_id: start}, False

    def _evidence(
        self, window: WindowPrediction, by_id: Keyframes, tied: bool,
    ) -> Evidence | None:
        """Return what is said of the window's scale; None where nothing is."""
        evidence, own = None, window.scale
        if self._scale_source == 'odometry':
            evidence = odometry_evidence(window.views, by_id)
        elif self._scale_source == 'depth':
            evidence = depth_evidence(window.views, by_id)
        # A map that was anchored keeps its scale where the source is silent for a while.
        if evidence is None and own.metric and (
                self._scale_source == 'model' or not (self._metric and tied)):
            sigma = MODEL_SIGMA if own.source == 'model' else float(
                np.fmax(MIN_SIGMA['model'], own.residual))
            evidence = Evidence(own.source, 1.0, own.residual, sigma)
        return evidence

    def _ties(self, views: Sequence[Prediction]) -> dict[int, tuple[float, float]]:
        """Compare the depth of pixels that the window shares with earlier ones."""
        ratios: dict[int, list[Array]] = {}
        for view in views:
            if view.keyframe_id in self._seen:
                number, before = self._seen[view.keyframe_id]
                if before.mask.shape == view.mask.shape:
                    both = before.mask & view.mask.to(before.mask.device)
                    ratio = before.depth_m[both] / view.depth_m.to(before.depth_m.device)[both]
                    ratios.setdefault(number, []).append(ratio.cpu().numpy().astype(float))
        return {
            number: (math.log(found.factor), found.sigma) for number, each in ratios.items()
            if (found := evidence_of_views('map', each))}

    def _require_scale(
        self, node: Node, odometry: Mapping[int, Array], known: bool, evidence: Evidence | None,
    ) -> None:
        """Raise AlignmentError where a window without metres meets odometry or a map in metres."""
        if evidence is None and not (known and node.ties) and (
                odometry or known and self._metric):
            raise AlignmentError(
                'nothing tells how large the window is, which odometry or map have in metres: '
                'set scale.source to odometry or depth; odometry tells it where the camera has '
                f'moved {MIN_ODOMETRY_BASELINE_M:g} m in {MIN_ODOMETRY_POSES} keyframes')

    # What the graph makes of it

    def _learn(self, node: Node, smoother: Smoother) -> None:
        """Compare how the window has its keyframes in a row with odometry and other windows."""
        depth = node.depth * smoother.scale(node)
        by_windows, by_odometry = [], []
        for pair in pairwise(sorted(node.views)):
            moved = smoother.motion(node, *pair)
            by_windows += [
                difference(smoother.motion(other, *pair), moved) for other in smoother.nodes
                if other is not node and set(pair) <= other.views.keys()]
            if set(pair) <= smoother.odometry.keys():
                (measured,), (size,) = smoother.odometry_steps(pair)
                moved[:3, 3] /= scale_of(smoother.poses[pair[0]])
                by_odometry.append((difference(measured, moved), size))
        if self._trust_odometry:
            # What windows err alike is an error, too.
            by_windows = [error for error, _ in by_odometry]
        self._noise.compare_windows(by_windows, depth)
        self._noise.compare_odometry(by_odometry, depth)

    def _follow(self) -> None:
        """Take note of where the newest keyframe is, and odometry with it."""
        poses, odometry = self._smoother.poses, self._smoother.odometry
        if placed := self._smoother.units.keys():
            self._last_pose = rigid(poses[max(placed)])
        if tied := placed & odometry.keys():
            # What is trusted is not corrected.
            self.map_from_odom = np.eye(4) if self._trust_odometry else (
                rigid(poses[max(tied)]) @ np.linalg.inv(odometry[max(tied)]))

    def _submap(
        self, window: WindowPrediction, views: Sequence[Prediction], node: Node,
        doubts: Mapping[int, float], new_segment: bool, evidence: Evidence | None,
        by_id: Keyframes, odometry: Mapping[int, Array],
    ) -> Submap:
        smoother = self._smoother
        placed = frozenset(smoother.units)
        gone = [n for n in node.views if n not in smoother.held and smoother.contradicted(n)]
        for number in gone:
            smoother.forget(number)
        kept = [n for n in node.views if n not in gone and doubts[n] <= POSE_DOUBT]
        for view in (view for view in window.views if view.keyframe_id in kept):
            smoother.units.setdefault(view.keyframe_id, (node.number, smoother.scale(node)))
            self._seen.setdefault(view.keyframe_id, (node.number, view))
        self._seen = {
            number: seen for number, seen in self._seen.items()
            if number in by_id and number in smoother.poses}
        scale, warning = self._scale(window, node, evidence)
        poses = {number: rigid(smoother.poses[number]) for number in kept}
        new = frozenset(kept) - placed
        self._follow()
        if left_out := len(window.views) - len(kept):
            warning = '; '.join(filter(None, (
                f'{left_out} of {len(window.views)} keyframes of a window were left out: other '
                'windows, or the odometry, contradict it about them', warning)))
        off_m = [
            np.linalg.norm((smoother.windows[node.number] @ node.views[n] - poses[n])[:3, 3])
            for n in kept]
        submap = Submap(
            tuple(view for view in views if view.keyframe_id in poses), scale, poses,
            float(np.sqrt(np.mean(np.square(off_m)))) if kept else math.nan,
            new, frozenset(gone) & placed, new_segment,
            inliers=len(kept) / len(window.views), warning=warning,
            covariances={number: self._covariance(number) for number in new})
        self._chain.add(smoother.retire(), self.segments)
        return submap

    def _scale(
        self, window: WindowPrediction, node: Node, evidence: Evidence | None,
    ) -> tuple[Scale, str]:
        """Return where the window's scale is from, and what contradicts it."""
        scale = self._smoother.scale(node)
        factor = window.scale.factor * scale
        if evidence is None:
            return Scale('map' if self._metric else 'none', factor), ''
        larger = evidence.factor / scale
        if evidence.source == 'odometry':
            # Odometry's metres are not those of a map that a loop has joined to an older one.
            poses, odometry = self._smoother.poses, self._smoother.odometry
            larger *= scale_of(poses[max(poses.keys() & odometry.keys())])
        if abs(math.log(larger)) <= DOUBT * math.hypot(evidence.sigma, MIN_SIGMA['map']):
            return Scale(evidence.source, factor, evidence.residual), ''
        if evidence.source == 'model':
            warning = (
                f'the model sees this window {larger:.2f} times as large as the map, whose scale '
                'is kept')
        else:
            warning = (
                f'the scale by {evidence.source} is {larger:.2f} times that of the map, which is '
                "kept for this window: check the robot's odometry (slip) or depth sensor")
        return Scale('map', factor), warning

    def _covariance(self, number: int) -> Array:
        """Return how far a keyframe may be off, (6,6), as geometry_msgs has it: along the map."""
        covariance, pose = self._smoother.covariance(number), self._smoother.poses[number]
        axes = np.zeros((6, 7))
        axes[:3, 3:6] = pose[:3, :3]
        axes[3:, :3] = pose[:3, :3] / scale_of(pose)
        covariance = axes @ covariance @ axes.T
        return (covariance + covariance.T) / 2.0


def _likely_scale(
    node: Node, smoother: Smoother, evidence: Evidence | None, expected: Mapping[int, Array],
) -> float:
    """Return the scale that a window has by the depth that it shares with others, or is said."""
    for number, (ratio, _) in node.ties.items():
        if number in smoother.windows:
            return math.exp(ratio) * scale_of(smoother.windows[number])
    return (evidence.factor if evidence else 1.0) * scale_of(expected[min(expected)])


def _guesses(
    smoother: Smoother, node: Node, expected: Mapping[int, Array], held: Collection[int],
) -> dict[int, Array]:
    """
    Return the path (4,4) by id, with a guess of the window's keyframes that it does not have.

    Each is where the window has it or where it is expected, whichever costs less; expected, where
    the window has most others elsewhere.
    """
    fitting = [doubt <= STAGES[0] for doubt in smoother.doubts(node).values()]
    vouched = len(fitting) > 1 and 2 * sum(fitting) > len(fitting)
    map_from_world, poses = smoother.windows[node.number], dict(smoother.poses)
    for number in node.first:
        # Its scale is odometry's, or else the window's.
        unit = scale_of(map_from_world)
        if number in smoother.odometry:
            unit = scale_of(expected[number]) if number in expected else 1.0
        poses[number] = stretched(rigid(map_from_world @ node.views[number]), unit)
    for number in sorted(node.first & expected.keys()):
        there = stretched(rigid(expected[number]), scale_of(poses[number]))
        others = poses | {number: there}
        better = smoother.cost(node, others) < smoother.cost(node, poses)
        if better or not vouched or number in held:
            poses = others
    return poses


def _require_shape(smoother: Smoother, node: Node) -> None:
    """
    Raise AlignmentError where a window has otherwise, on the whole, what the map is sure of.

    A mirrored one, say, before the map gives way to it. Windows that fitted others are sure, once
    it is known what fits; views that mean nothing do not count.
    """
    sure = {
        n for other in smoother.nodes[:-1] if other.views.keys() - other.first for n in other.views
        if smoother.noise.learned()}
    like = [
        doubt for n, doubt in smoother.doubts(node).items() if n in sure and doubt <= STAGES[0]]
    # Both have erred.
    bent = math.sqrt(sum(doubt ** 2 for doubt in like) / max(len(like), 1) / 2.0)
    if bent > POSE_DOUBT:
        raise AlignmentError(
            f'the window disagrees with the map about how {len(like)} keyframes lie, by '
            f'{bent:.0f} times what windows usually err')


def _require_fit(
    doubts: Mapping[int, float], tied: Collection[int], min_inliers: float,
) -> None:
    """Raise AlignmentError where a window contradicts most of what ties it."""
    wrong = [number for number in tied if doubts[number] > POSE_DOUBT]
    if len(wrong) > (1.0 - min_inliers) * len(tied):
        raise AlignmentError(
            f'the window disagrees with the map or the odometry about {len(wrong)} of '
            f'{len(tied)} keyframes, by up to {max(doubts[n] for n in wrong):.0f} times what '
            'windows usually err')


def median_depth(views: Sequence[Prediction]) -> float:
    """Return the median depth of all that views keep."""
    depths = torch.cat([view.depth_m[view.mask] for view in views])
    return float(depths.median()) if len(depths) else 1.0
