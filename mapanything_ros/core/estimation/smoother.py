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

"""The newest part of the path, as the best estimate of all that was said about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import gtsam
import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.estimation.factors import (
    adjoint,
    DOUBT,
    doubting,
    FIXED,
    FREE,
    from_gtsam,
    POSE_DOUBT,
    sigmas,
    to_gtsam,
)
from mapanything_ros.core.estimation.noise import Noise
from mapanything_ros.core.estimation.similarity import difference, rigid, scale_of, stretched

# Windows that are estimated together; those before stay as they are, until a loop moves them.
HORIZON = 20
# Errors, in standard deviations, at which a view is doubted, in stages (GNC): at first what is new
# may lie anywhere.
STAGES = (20.0, 10.0, POSE_DOUBT, POSE_DOUBT)
# A window whose views are doubted is doubted as a whole: mirrored, none of them is right. Its
# weight is what is left of theirs on average, to this power.
POWER = 4
# Of the direction of gravity as odometry has it, radians.
GRAVITY_RAD = np.radians(0.5)
# Odometry of a robot at rest is as uncertain as after a motion of this share of the depth.
LEAST_MOTION = 0.01


@dataclass(frozen=True, eq=False)
class Fixed:
    """
    A keyframe that nothing but a loop moves any more.

    ``pose`` (4,4) is a similarity, ``motion`` (4,4) the step to it from the one that was fixed
    before, None for the first, and ``covariance`` (7,7) that of the step in GTSAM's order: turn,
    shift, logarithm of scale. ``unit`` is the scale of its depth over that of the pose. ``claims``
    are what is said of the scale there: by how much its logarithm should be larger, with the
    standard deviation.
    """

    number: int
    pose: Array
    motion: Array | None
    covariance: Array
    unit: float
    claims: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, eq=False)
class Node:
    """
    A window: how it sees keyframes, and what is said of its scale.

    ``views`` gives ``world_from_camera`` (4,4) by keyframe id, ``first`` the ids of those that no
    window saw before; ``depth`` is the window's median depth in its own unit. ``claims`` are
    logarithms of the scale with their standard deviations; ``ties`` the same of the scale over
    that of an earlier window, by its number.
    """

    number: int
    views: Mapping[int, Array]
    depth: float
    first: frozenset[int] = frozenset()
    claims: Sequence[tuple[float, float]] = ()
    ties: Mapping[int, tuple[float, float]] = field(default_factory=dict)


class Smoother:
    """
    A fixed-lag smoother of keyframe poses, window similarities and scale.

    A factor graph (GTSAM; Dellaert and Kaess 2017). ``windows`` are ``map_from_world`` (4,4),
    similarities by window number; ``poses`` similarities by keyframe id, whose scale is that of
    odometry's lengths there, or, where odometry is silent, that of the window which saw the
    keyframe first. Factors: each window's view of each keyframe (robust), odometry between
    keyframes in a row (robust), its vertical, what is said of a window's scale, and that of
    windows which see the same. Keyframes that a window behind the horizon has seen are held where
    they are.
    """

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.poses: dict[int, Array] = {}
        self.windows: dict[int, Array] = {}
        # Of keyframes whose depth came: their first window, and its scale when it came.
        self.units: dict[int, tuple[int, float]] = {}
        self.nodes: list[Node] = []
        self.odometry: dict[int, Array] = {}
        # What odometry itself says of its errors, see Keyframe.
        self.variances: dict[int, Array] = {}
        # Of keyframes that are held, the standard deviation of the scale's logarithm.
        self.held: dict[int, float] = {}
        # Poses that are as certain as a window's view, whatever windows say.
        self.anchors: dict[int, Array] = {}
        # Those that were fixed; the last of them, and how far it may be off, (7,7).
        self._fixed: set[int] = set()
        self._last: int | None = None
        self._covariance = np.zeros((7, 7))
        # Loops that hold, and where their older keyframes are.
        self._loops: Sequence[gtsam.BetweenFactorSimilarity3] = ()
        self._older: dict[int, Array] = {}
        # Of the last solution the information: its factor, its diagonal's root, its first rows.
        self._factor: tuple[Array, bool]
        self._size: Array
        self._rows: dict[int, range]

    def __copy__(self) -> Smoother:
        other = Smoother(self.noise)
        other.__dict__ |= {
            name: copy(value) for name, value in vars(self).items() if name != 'noise'}
        return other

    def add(
        self, node: Node, expected: Mapping[int, Array], scale: float,
        odometry: Mapping[int, Array],
    ) -> None:
        """
        Add a window where most of its keyframes are as expected (4,4), and odometry.

        It has one of them exactly there. The poses of its new keyframes are to follow.
        """
        self.nodes.append(node)
        self.odometry.update(odometry)
        fits = {}
        for number in sorted(node.views.keys() & expected.keys()):
            pose = stretched(rigid(expected[number]), scale)
            guess = self.windows[node.number] = pose @ np.linalg.inv(node.views[number])
            fits[self.cost(node, expected)] = guess
        self.windows[node.number] = fits[min(fits)]

    def retire(self, keep: int = HORIZON) -> list[Fixed]:
        """Forget all but the newest windows; return the keyframes that this fixes."""
        old = self.nodes[:max(len(self.nodes) - keep, 0)]
        if not old:
            return []
        self.nodes = self.nodes[len(old):]
        seen = {number for node in self.nodes for number in node.views}
        behind = {number for node in old for number in node.views} | self.poses.keys() - seen
        fixed = self._row(behind & self.poses.keys() - self._fixed, old)
        if fixed:
            newest = fixed[-1].number
            covariance = self.covariance(newest)
            self._last, self._covariance = newest, covariance
            self._fixed.update(each.number for each in fixed)
            # One of them tells the scale, and no more than is known of it.
            self.held |= dict.fromkeys(self._fixed, FREE)
            self.held[newest] = float(np.sqrt(covariance[6, 6]))
        for number in self.poses.keys() - seen - {self._last}:
            self.forget(number)
        used = {window for window, _ in self.units.values()}
        used |= {node.number for node in self.nodes}
        self.windows = {number: self.windows[number] for number in used}
        return fixed

    def scale(self, node: Node) -> float:
        """Return the map's unit over a window's."""
        return scale_of(self.windows[node.number])

    def motion(self, node: Node, before: int, after: int) -> Array:
        """Return how a window has a camera in another's, rigid (4,4), in the map's unit."""
        motion = np.linalg.inv(node.views[before]) @ node.views[after]
        motion[:3, 3] *= self.scale(node)
        return motion

    def map_from_view(self, number: int) -> Array:
        """Return the pose (4,4) of a keyframe, with the scale of its depth since that came."""
        window, then = self.units.get(number, (-1, 1.0))
        now = scale_of(self.windows[window]) if window in self.windows else 1.0
        return stretched(rigid(self.poses[number]), now / then)

    def moving(self) -> list[Fixed]:
        """Return the keyframes that are not fixed, as they are now."""
        return self._row(self.poses.keys() - self._fixed, self.nodes)

    def covariance(self, number: int) -> Array:
        """Return how far a keyframe may be off, (7,7): turn, shift, logarithm of scale."""
        own = self._joint(number)
        if self._last is None or number in self.anchors:
            return own
        # The scale of what is held acts on all that follows, and is part of both.
        to_number = adjoint(np.linalg.inv(self.poses[number]) @ self.poses[self._last])
        passed = to_number[:, :6] @ self._covariance[:6, :6] @ to_number[:, :6].T
        scale = self._joint(self._last, number)[6, 7:]
        variance = self._covariance[6, 6]
        common = np.outer(scale / variance, self._covariance[6, :6]) @ to_number[:, :6].T
        return own + passed + common + common.T

    def _row(self, numbers: Iterable[int], nodes: Iterable[Node]) -> list[Fixed]:
        """Return keyframes in a row behind the last that was fixed, with what windows claim."""
        row: list[Fixed] = []
        claims = {
            max(node.views): [
                (scale - float(np.log(self.scale(node))), sigma) for scale, sigma in node.claims]
            for node in nodes}
        for number in sorted(numbers):
            before = row[-1].number if row else self._last
            pose, motion, covariance = self.poses[number], None, np.zeros((7, 7))
            if before is not None:
                # From its scale as it is known by now, which those before have not followed.
                motion = np.linalg.inv(self.poses[before]) @ pose
                covariance = self._step(before, number)
            unit = scale_of(self.map_from_view(number)) / scale_of(pose)
            row.append(Fixed(number, pose, motion, covariance, unit, claims.get(number, ())))
        return row

    def _joint(self, *numbers: int) -> Array:
        """Return the covariance (7N,7N) of keyframes together, in their order."""
        rows = np.concatenate([self._rows[number] for number in numbers])
        columns = np.zeros((len(self._size), len(rows)))
        columns[rows, np.arange(len(rows))] = 1.0 / self._size[rows]
        return cho_solve(self._factor, columns)[rows] / self._size[rows, None]

    def _step(self, before: int, after: int) -> Array:
        """Return the covariance (7,7) of the motion from a keyframe to another."""
        there = adjoint(np.linalg.inv(self.poses[after]) @ self.poses[before])
        motion = np.hstack([-there, np.eye(7)])
        return motion @ self._joint(before, after) @ motion.T + FIXED ** 2 * np.eye(7)

    def solve(self) -> None:
        """Find the poses and similarities that fit all that was said best."""
        loops = [loop for loop in self._loops if loop.keys()[1] in self.poses]
        places = {loop.keys()[0]: self._older[loop.keys()[0]] for loop in loops} | self.poses
        keyframes = sorted(places)
        certain = [*self._held_factors(places), *self._gravity_factors(keyframes), *loops]
        odometry = list(self._odometry_factors(keyframes))
        parameters = gtsam.LevenbergMarquardtParams()
        parameters.setMaxIterations(20)
        parameters.setRelativeErrorTol(1e-4)
        values = gtsam.Values()
        for number in keyframes:
            values.insert(number, to_gtsam(places[number]))
        for node in self.nodes:
            values.insert(_window(node.number), to_gtsam(self.windows[node.number]))
        for doubt in STAGES:
            graph = gtsam.NonlinearFactorGraph()
            for factor in (
                    *certain, *self._view_factors(doubt), *self._scale_factors(doubt),
                    *odometry):
                graph.add(factor)
            values = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()
            for number in self.poses:
                pose = from_gtsam(values.atSimilarity3(number))
                if number in self.held:
                    # To the bit, but for its scale.
                    pose = stretched(rigid(self.poses[number]), scale_of(pose))
                self.poses[number] = pose
            for node in self.nodes:
                self.windows[node.number] = from_gtsam(values.atSimilarity3(_window(node.number)))
        # Scaled to a unit diagonal: GTSAM refuses what is nearly free beside what is certain.
        information = graph.linearize(values).hessian()[0]
        self._size = np.sqrt(np.diag(information))
        self._factor = cho_factor(information / np.outer(self._size, self._size))
        self._rows = {
            number: range(7 * place, 7 * place + 7) for place, number in enumerate(keyframes)}

    def repose(
        self, poses: Mapping[int, Array], covariance: Array,
        loops: Sequence[gtsam.BetweenFactorSimilarity3],
    ) -> None:
        """
        Take corrected poses (4,4) of all keyframes, and the loops by which they were.

        ``covariance`` (7,7) is that of the last fixed keyframe.
        """
        seen = {window: number for number, (window, _) in self.units.items()} | {
            node.number: max(node.views) for node in self.nodes}
        for window, number in seen.items():
            moved = poses[number] @ np.linalg.inv(self.poses[number])
            self.windows[window] = moved @ self.windows[window]
        self.poses = {number: poses[number] for number in self.poses}
        self._covariance = covariance
        self._loops = [loop for loop in loops if loop.keys()[1] in self.poses]
        self._older = {older: poses[older] for older, _ in (loop.keys() for loop in self._loops)}

    def doubts(self, node: Node, poses: Mapping[int, Array] | None = None) -> dict[int, float]:
        """Return by how many standard deviations a window errs about its keyframes, by id."""
        poses = self.poses if poses is None else poses
        known = [number for number in node.views if number in poses]
        if not known:
            return {}
        usual = np.repeat(self.noise.view(node.depth), 3)
        between = difference(
            np.stack([self.windows[node.number] @ node.views[number] for number in known]),
            np.stack([poses[number] for number in known]))[:, :6]
        return dict(zip(known, np.linalg.norm(between / usual, axis=1).tolist(), strict=True))

    def contradicted(self, number: int) -> bool:
        """Say whether windows contradict each other about a keyframe, and most its pose."""
        votes = [
            self.doubts(node)[number] <= POSE_DOUBT for node in self.nodes if number in node.views]
        if len(votes) < 2 or all(votes):
            return False
        row = sorted(self.poses.keys() & self.odometry.keys())
        if number in row:
            place = row.index(number)
            near = self._odometry_doubts(row[max(place - 1, 0):place + 2], self.poses)
            votes.append(bool((near <= POSE_DOUBT).all(axis=1).any()))
        return 2 * sum(votes) <= len(votes)

    def cost(self, node: Node, poses: Mapping[int, Array]) -> float:
        """Return how badly poses (4,4) fit a window's views, and odometry between them."""
        row = sorted(node.views.keys() & self.odometry.keys() & poses.keys())
        odometry = self._odometry_doubts(row, poses).flatten()
        doubts = np.array([*self.doubts(node, poses).values(), *odometry])
        return float(np.sum(1.0 - _weights(doubts, POSE_DOUBT)))

    def _odometry_doubts(self, row: Sequence[int], poses: Mapping[int, Array]) -> Array:
        """Return by how many standard deviations odometry turned, and went, otherwise, (N,2)."""
        if len(row) < 2:
            return np.zeros((0, 2))
        motions, sizes = self.odometry_steps(row)
        path = np.stack([poses[number] for number in row])
        errors = difference(motions, np.linalg.inv(path[:-1]) @ path[1:])[:, :6]
        return np.linalg.norm(errors.reshape(-1, 2, 3), axis=2) / [
            self._odometry_sigmas(*step) for step in zip(row, row[1:], sizes, strict=False)]

    def forget(self, number: int) -> None:
        """Take a keyframe out of the path."""
        for known in (
                self.poses, self.odometry, self.variances, self.held, self.anchors, self.units):
            known.pop(number, None)
        self._fixed.discard(number)
        self.nodes = [
            replace(node, views=views) for node in self.nodes
            if (views := {n: view for n, view in node.views.items() if n != number})]

    def odometry_steps(self, row: Sequence[int]) -> tuple[Array, Array]:
        """
        Return odometry's motions (N,4,4) between keyframes in a row, and their sizes (N,).

        That is how far they move what is seen.
        """
        poses = np.stack([self.odometry[number] for number in row])
        motions, depth = np.linalg.inv(poses[:-1]) @ poses[1:], self.depth()
        turns = Rotation.from_matrix(motions[:, :3, :3]).magnitude()
        sizes = np.linalg.norm(motions[:, :3, 3], axis=1) + depth * turns
        return motions, np.maximum(sizes, LEAST_MOTION * depth)

    def _odometry_sigmas(self, before: int, after: int, size: float) -> Array:
        """Return what odometry errs on the way, (2,): as learned, or worse if it says so."""
        learned = self.noise.odometry(size)
        if not {before, after} <= self.variances.keys():
            return learned
        told = self.variances[after] - self.variances[before]
        return np.asarray(np.sqrt(np.maximum(learned ** 2, told)))

    def _view_factors(self, doubt: float) -> Iterator[gtsam.NonlinearFactor]:
        for node in self.nodes:
            # At first as much as any other.
            trust = 1.0 if doubt == STAGES[0] else _weights(
                np.array([*self.doubts(node).values()]), doubt).mean() ** POWER
            turn, place = self.noise.view(node.depth) / np.sqrt(trust)
            for number, view in node.views.items():
                # The window's unit over that of the pose, which it gives where it is the first.
                unit = self.scale(node) / scale_of(self.poses[number])
                gives = number in node.first and number not in self.odometry
                yield gtsam.BetweenFactorSimilarity3(
                    _window(node.number), number,
                    to_gtsam(view if gives else stretched(view, 1.0 / unit)),
                    doubting(sigmas(turn, place * unit, FIXED if gives else FREE), doubt))

    def _scale_factors(self, doubt: float) -> Iterator[gtsam.NonlinearFactor]:
        doubt *= DOUBT / STAGES[-1]
        numbers = {node.number for node in self.nodes}
        for node in self.nodes:
            for scale, sigma in node.claims:
                claimed = stretched(self.windows[node.number], np.exp(scale) / self.scale(node))
                yield gtsam.PriorFactorSimilarity3(
                    _window(node.number), to_gtsam(claimed),
                    doubting(sigmas(FREE, FREE, sigma), doubt))
            for number, (ratio, sigma) in node.ties.items():
                if number in numbers:
                    between = np.linalg.inv(self.windows[number]) @ self.windows[node.number]
                    yield gtsam.BetweenFactorSimilarity3(
                        _window(number), _window(node.number),
                        to_gtsam(stretched(between, np.exp(ratio) / scale_of(between))),
                        doubting(sigmas(FREE, FREE, sigma), doubt))

    def _odometry_factors(self, keyframes: Sequence[int]) -> Iterator[gtsam.NonlinearFactor]:
        row = [number for number in keyframes if number in self.odometry]
        if len(row) < 2:
            return
        motions, sizes = self.odometry_steps(row)
        for before, after, moved, size in zip(row, row[1:], motions, sizes, strict=False):
            turn, place = self._odometry_sigmas(before, after, size)
            # Wheels that slip still turn right; and lengths mean the same, mostly.
            for noise in (doubting(sigmas(turn, FREE, FREE), POSE_DOUBT),
                          doubting(sigmas(FREE, place, FREE), DOUBT),
                          doubting(sigmas(FREE, FREE, FIXED), DOUBT)):
                yield gtsam.BetweenFactorSimilarity3(before, after, to_gtsam(moved), noise)

    def _gravity_factors(self, keyframes: Sequence[int]) -> Iterator[gtsam.NonlinearFactor]:
        """Hold the vertical where odometry has it: mostly it knows it by an IMU or the floor."""
        for number in keyframes:
            if number in self.held or number not in self.odometry:
                continue
            upright, up = self.poses[number].copy(), self.odometry[number][2, :3]
            turn = rigid(upright)[:3, :3]
            turn = gtsam.Rot3.Expmap(np.cross(turn @ up, (0.0, 0.0, 1.0))).matrix() @ turn
            upright[:3, :3] = turn * scale_of(upright)
            covariance = FREE ** 2 * np.eye(7)
            covariance[:3, :3] = turn.T @ np.diag([GRAVITY_RAD ** 2] * 2 + [FREE ** 2]) @ turn
            yield gtsam.PriorFactorSimilarity3(
                number, to_gtsam(upright), doubting(
                    gtsam.noiseModel.Gaussian.Covariance(covariance), DOUBT))

    def _held_factors(self, places: Mapping[int, Array]) -> Iterator[gtsam.NonlinearFactor]:
        turn, place = self.noise.view(self.depth())
        for number, pose in places.items():
            # Nothing is quite free, so that the problem can be solved whatever is doubted.
            certain = (FREE, FREE, FREE)
            if number in self.held or number not in self.poses:
                certain = (FIXED, FIXED, self.held.get(number, FIXED))
            yield gtsam.PriorFactorSimilarity3(number, to_gtsam(pose), sigmas(*certain))
            if number in self.anchors:
                unit = scale_of(pose)
                yield gtsam.PriorFactorSimilarity3(
                    number, to_gtsam(stretched(self.anchors[number], unit)),
                    sigmas(turn, place / unit, FREE))

    def depth(self) -> float:
        """Return how far away things are, in the map's unit."""
        return float(np.median([node.depth * self.scale(node) for node in self.nodes]))


def _weights(errors: Array, doubt: float) -> Array:
    """Return what is left of what errs by so many standard deviations (Geman-McClure), (N,)."""
    return 1.0 / (1.0 + np.square(errors / doubt))


def _window(number: int) -> int:
    return int(gtsam.symbol('w', number))
