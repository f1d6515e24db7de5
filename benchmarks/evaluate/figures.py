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

"""Figures of a run against the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
import math
import time

import numpy as np

from benchmarks.evaluate.drive import drive, Outcome, WorldSelector
from benchmarks.evaluate.odometry import MISHAPS
from benchmarks.evaluate.runs import FAULTS, Run
from benchmarks.evaluate.simulated_backend import SimulatedBackend
from benchmarks.evaluate.worlds import World, world
from mapanything_ros.core.datatypes import Prediction
from mapanything_ros.core.measures.evaluation import align, anchor, Trajectory, trajectory_error
from mapanything_ros.core.reconstructor import Reconstructor

NAN = math.nan


@dataclass(frozen=True)
class Figures:
    """
    What is said about one run of ``length_m``; nan where there is nothing to say.

    Position and rotation errors are rms over the keyframes in the map after putting the first
    pose where it truly was, ``aligned_m`` after the best similarity instead; ``odometry_m`` is
    odometry's at the same keyframes. ``map_median_m`` and ``map_p90_m`` are distances of the
    map's points to the true surface, not aligned either. ``coverage`` is the share of keyframes in
    the map, ``gaps`` that of the path between windows that share none; ``scale_error`` the median
    over the keyframes of estimated over true depth, less 1, and ``scale_p90`` the 90th percentile
    of its size. ``rejected`` says why windows were lost, ``tf_faults`` what is wrong with the
    transforms that the node would have sent.
    """

    length_m: float = NAN
    position_m: float = NAN
    aligned_m: float = NAN
    rotation_deg: float = NAN
    odometry_m: float = NAN
    map_median_m: float = NAN
    map_p90_m: float = NAN
    coverage: float = NAN
    gaps: float = NAN
    scale_error: float = NAN
    scale_p90: float = NAN
    segments: int = 0
    windows: int = 0
    dropped: int = 0
    rejected: tuple[str, ...] = ()
    tf_faults: tuple[str, ...] = ()
    loops: int = 0
    seconds: float = NAN


def measure(run: Run) -> Figures:
    """Make a run and compare it with the truth."""
    place = world(run.world)
    if run.odometry in MISHAPS:
        place = place.after(run.odometry, run.seed)
    start_s = time.perf_counter()
    figures = _mapping(run, place) if run.ours else _odometry(place)
    return replace(figures, length_m=place.length_m, seconds=time.perf_counter() - start_s)


def record(run: Run, figures: Figures) -> dict[str, object]:
    """Return a run and its figures for JSON, where nan is null."""
    values = {**asdict(run), 'case': run.case, **asdict(figures)}
    return {name: None if value != value else value for name, value in values.items()}


def _odometry(place: World) -> Figures:
    path = Trajectory(place.stamps_ns, place.odom_from_camera)
    return Figures(**_errors(place, path), coverage=1.0)


def _mapping(run: Run, place: World) -> Figures:
    config = run.config(place)
    backend = SimulatedBackend(place, FAULTS[run.faults], run.seed)
    # The same keyframes with odometry and without, so that rows compare.
    reconstructor = Reconstructor(config, backend, WorldSelector(place, config.keyframes))
    outcome = drive(place, reconstructor, config, run.drops_percent)
    counts = outcome.reconstructor.statistics()
    poses = outcome.reconstructor.trajectory()
    figures = Figures(
        coverage=len(poses) / counts['keyframes'], gaps=gap_share(place, outcome, backend),
        segments=counts['segments'],
        windows=outcome.taken, dropped=outcome.dropped, rejected=tuple(outcome.rejected),
        tf_faults=tuple(outcome.tf.faults()),
        loops=counts.get('loop_closed', 0))
    if not poses:
        return figures
    path = Trajectory(
        np.array([stamp_ns for stamp_ns, _ in poses]), np.stack([pose for _, pose in poses]))
    figures = replace(figures, **_errors(place, path), **_scale(outcome, backend))
    truth = Trajectory(place.stamps_ns, place.world_from_camera)
    points = outcome.reconstructor.map_points().xyz.astype(float)
    if not len(points):
        return figures
    distances = place.distance(anchor(truth, path).points(points))
    return replace(figures, map_median_m=float(np.median(distances)),
                   map_p90_m=float(np.quantile(distances, 0.9)))


def _errors(place: World, path: Trajectory) -> dict[str, float]:
    truth = Trajectory(place.stamps_ns, place.world_from_camera)
    odometry = Trajectory(place.stamps_ns, place.odom_from_camera).take(path.stamps_ns)
    error = trajectory_error(truth, path, anchor(truth, path))
    return {
        'position_m': error.position_rmse_m,
        'rotation_deg': error.rotation_rmse_deg,
        'aligned_m': trajectory_error(
            truth, path, align(truth, path, with_scale=True)).position_rmse_m,
        'odometry_m': trajectory_error(
            truth, odometry, anchor(truth, odometry)).position_rmse_m,
    }


def gap_share(place: World, outcome: Outcome, backend: SimulatedBackend) -> float:
    """Return the share of the true path between windows that share no keyframe."""
    walked_m = np.concatenate([[0.0], np.cumsum(
        np.linalg.norm(np.diff(place.world_from_camera[:, :3, 3], axis=0), axis=1))])
    placed: set[int] = set()
    gaps_m = 0.0
    for submap in outcome.submaps:
        window = {backend.truth[view.keyframe_id] for view in submap.views}
        if placed and not placed & window:
            gaps_m += walked_m[min(window)] - walked_m[max(placed)]
        placed |= window
    return float(gaps_m / walked_m[-1])


def _scale(outcome: Outcome, backend: SimulatedBackend) -> dict[str, float]:
    errors = np.array([
        _depth_ratio(view, backend) - 1 for submap in outcome.submaps for view in submap.views
        if view.keyframe_id in submap.new_ids])
    return {'scale_error': float(np.median(errors)),
            'scale_p90': float(np.quantile(np.abs(errors), 0.9))}


def _depth_ratio(view: Prediction, backend: SimulatedBackend) -> float:
    kept = view.mask.numpy()
    true_m = backend.true_depth_m(view.keyframe_id)
    return float(np.median(view.depth_m.numpy()[kept] / true_m[kept]))
