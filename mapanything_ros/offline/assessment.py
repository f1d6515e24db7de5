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

"""What a run is worth: published depth, poses and map against the truth that a bag holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import (
    abs_rel,
    align,
    anchor,
    depth_ratios,
    Similarity,
    Trajectory,
    trajectory_error,
    valid_depth,
)
from mapanything_ros.offline.recorder import PublishedKeyframe
from mapanything_ros.offline.surface import read_surface
from mapanything_ros.offline.true_surface import fused_surface
from mapanything_ros.offline.truth import (
    read_camera,
    read_depth,
    read_odometry,
    read_poses,
    Topics,
    TRUE_SURFACE_FILE,
)

T = TypeVar('T')
Number = float | None


@dataclass(frozen=True)
class Run:
    """
    How the node was run.

    ``source`` says what kind of bag it was; ``odom_frame`` names its odometry, trusted or not;
    ``metric`` says whether the map's lengths are metres.
    """

    bag: Path
    source: str
    topics: Topics
    odom_frame: str
    odometry_used: bool
    rectified: bool
    metric: bool


@dataclass(frozen=True)
class PoseErrors:
    """Root mean square errors; rotation after the alignment, None where unknown."""

    unaligned_m: Number
    aligned_m: Number
    rotation_deg: Number


@dataclass
class Assessment:
    """
    Compares a run with the truth; what cannot be compared is None, its reason in ``missing``.

    ``trajectory`` is ``map_from_camera`` of the keyframes, ``points`` (N,3) the map.
    """

    run: Run
    keyframes: Sequence[PublishedKeyframe]
    trajectory: Trajectory
    points: Array
    missing: dict[str, str] = field(default_factory=dict)

    def _try(self, name: str, compute: Callable[[], T]) -> T | None:
        try:
            return compute()
        except InputError as error:
            self.missing[name] = str(error)
            return None

    @property
    def kept_fraction(self) -> Number:
        """Return the mean share of pixels with a depth."""
        return self._try('kept_fraction', lambda: _mean(
            [float(valid_depth(keyframe.depth_m).mean()) for keyframe in self.keyframes]))

    @cached_property
    def _ratios(self) -> Array:
        topic = self.run.topics.depth
        if topic is None:
            raise InputError('the bag has no registered depth')
        camera, frame_id = read_camera(
            self.run.bag, self.run.topics.camera_info, rectified=self.run.rectified)
        published = {keyframe.stamp_ns: keyframe for keyframe in self.keyframes}
        ratios = [
            depth_ratios(published[stamp].depth_m, published[stamp].intrinsics, truth_m, camera)
            for stamp, truth_m in read_depth(
                self.run.bag, topic, frame_id, published.__contains__)]
        if not ratios:
            raise InputError('the bag has no depth at the stamp of a keyframe')
        return np.concatenate(ratios)

    @property
    def depth_abs_rel(self) -> Number:
        """Return the error of depth as published, over all kept pixels whose truth is known."""
        return self._try('depth_abs_rel', lambda: abs_rel(self._ratios))

    @property
    def depth_abs_rel_scaled(self) -> Number:
        """Return the error of depth after one scale for the whole map (the median) is removed."""
        def compute() -> float:
            return abs_rel(self._ratios / np.median(self._ratios))
        return self._try('depth_abs_rel_scaled', compute)

    @cached_property
    def _truth(self) -> Trajectory:
        return read_poses(self.run.bag)

    @cached_property
    def _odometry(self) -> Trajectory:
        """Return the bag's ``odom_from_camera`` at the stamps of the true poses."""
        return read_odometry(
            self.run.bag, self.run.odom_frame, self.keyframes[0].frame_id, self._truth.stamps_ns)

    @property
    def frame(self) -> str:
        """Say what ties the map to the truth in the unaligned errors."""
        return 'odometry start' if self.run.odometry_used else 'first keyframe'

    @cached_property
    def _start(self) -> Similarity:
        """Return ``world_from_map``: odometry is right where it starts, and so is the map."""
        start = self._odometry if self.run.odometry_used else self.trajectory
        return anchor(self._truth, start)

    @cached_property
    def _best(self) -> Similarity:
        return align(self._truth, self.trajectory, with_scale=not self.run.metric)

    @property
    def alignment(self) -> str:
        """Name the transform that the aligned errors are free in."""
        return 'SE3' if self.run.metric else 'Sim3'

    def pose_errors(self) -> PoseErrors:
        """Compare the map's keyframe poses."""
        def aligned() -> tuple[float, float]:
            error = trajectory_error(self._truth, self.trajectory, self._best)
            return error.position_rmse_m, error.rotation_rmse_deg

        def unaligned() -> float:
            return trajectory_error(self._truth, self.trajectory, self._start).position_rmse_m

        best = self._try('position_rmse_m.aligned', aligned) or (None, None)
        return PoseErrors(self._try('position_rmse_m.unaligned', unaligned), *best)

    def odometry_errors(self) -> PoseErrors:
        """Compare the bag's odometry, by itself, at the stamps of the same keyframes."""
        def errors(with_alignment: bool) -> tuple[float, float]:
            shared = self._odometry.take(self.trajectory.stamps_ns)
            best = align(self._truth, shared, with_scale=False) if with_alignment else anchor(
                self._truth, self._odometry)
            error = trajectory_error(self._truth, shared, best)
            return error.position_rmse_m, error.rotation_rmse_deg

        plain = self._try('odometry.position_rmse_m.unaligned', lambda: errors(False))
        best = self._try('odometry.position_rmse_m.aligned', lambda: errors(True))
        return PoseErrors(plain[0] if plain else None, *(best or (None, None)))

    def map_distances(self) -> tuple[Array, str] | None:
        """Return the points' distances to the true surface, in metres, and what that is."""
        def compute() -> tuple[Array, str]:
            if not len(self.points):
                raise InputError('the map has no points')
            to_world = self._start if self.run.metric else self._best
            points = to_world.points(self.points)
            surface = self.run.bag / TRUE_SURFACE_FILE
            if surface.exists():
                return read_surface(surface).distances(points), f'surface {TRUE_SURFACE_FILE}'
            fused = fused_surface(
                self.run.bag, self.run.topics, self._truth, rectified=self.run.rectified)
            return fused.distances(points), fused.name
        return self._try('map_error_m', compute)


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise InputError('no keyframe was published')
    return float(np.mean(values))
