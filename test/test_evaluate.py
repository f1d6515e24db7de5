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

from dataclasses import replace
from itertools import groupby, pairwise
import json
import math

import numpy as np
import pytest

from benchmarks.evaluate.claims import check
from benchmarks.evaluate.drive import drive, WorldSelector
from benchmarks.evaluate.figures import Figures, gap_share, measure, record
from benchmarks.evaluate.runs import (
    DROPS_PERCENT,
    FAULTS,
    NONE,
    Run,
    SEEDS,
    table,
    TRIALS,
    WAYS,
)
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from benchmarks.evaluate.summary import Spread, summary
from benchmarks.evaluate.tf_record import TfRecord
from benchmarks.evaluate.window_errors import window_errors
from benchmarks.evaluate.worlds import BUILDINGS, world
from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.core.measures.evaluation import Trajectory
from mapanything_ros.core.reconstructor import Reconstructor

CONFIG = from_values(Config, {
    'tf.odom_frame': 'odom', 'window.size': 4, 'window.overlap': 2, 'map.voxel_m': 0.05,
    'keyframes.min_translation_m': 0.15, 'keyframes.min_sharpness': 0.0, 'map.min_views': 1})
TYPICAL = Run('corridor', 'typical', 'sim3', 'odometry')


@pytest.fixture(scope='module')
def place():
    """Give the first metres of the corridor, with odometry that does not drift."""
    made = world('corridor', images=42)
    start = np.linalg.inv(made.world_from_camera[0])
    return replace(made, odom_from_camera=start @ made.world_from_camera)


class Witness(SimulatedBackend):

    def __init__(self, place, fail=()):
        super().__init__(place, Faults(), 0)
        self.windows, self.fail, self.odometry = [], fail, []

    def prepare(self, keyframe):
        self.odometry.append(keyframe.odom_from_camera)
        return keyframe

    def infer(self, keyframes):
        self.windows.append([keyframe.id for keyframe in keyframes])
        if len(self.windows) in self.fail:
            raise ReconstructionError('on purpose')
        return super().infer(keyframes)


def driven(place, drops_percent, fail=()):
    backend = Witness(place, fail)
    return drive(place, Reconstructor(CONFIG, backend), CONFIG, drops_percent), backend.windows


def test_without_load_every_window_reaches_the_backend(place):
    outcome, windows = driven(place, 0)
    assert windows == [list(range(start, start + 4)) for start in range(0, 39, 2)]
    assert (outcome.taken, outcome.dropped) == (20, 0)
    assert len(outcome.reconstructor.trajectory()) == 42
    assert outcome.tf.faults() == []


def test_a_stamp_that_goes_back_shows_in_the_record_of_tf(place):
    record = TfRecord(CONFIG)
    record.image(2, 'camera', np.eye(4))
    record.image(1, 'camera', np.eye(4))
    assert record.faults() == ['map_to_odom: camera at 1 comes after 2']


def test_a_dropped_window_leaves_a_gap_and_the_next_one_shares_nothing(place):
    backend = Witness(place)
    outcome = drive(place, Reconstructor(CONFIG, backend), CONFIG, 30)
    windows = backend.windows
    assert outcome.dropped > 0
    assert len(outcome.submaps) == outcome.taken == len(windows)
    gaps = [(a, b) for a, b in pairwise(windows) if b[0] != a[0] + 2]
    assert gaps
    for before, after in gaps:
        # What was new in the dropped window is lost, and what was new with it.
        assert after[0] > before[-1] + 1 and after[-1] - after[0] == 3
    mapped = {number for window in windows for number in window}
    assert len(outcome.reconstructor.trajectory()) == len(mapped) < 42
    assert driven(place, 30)[1] == windows
    steps = sum(after[0] - before[-1] for before, after in gaps)
    assert gap_share(place, outcome, backend) == pytest.approx(steps / 41, rel=0.01)


def test_the_share_of_dropped_windows_is_exact(place):
    outcome, _ = driven(place, 10)
    assert abs(outcome.dropped - 0.1 * (outcome.dropped + outcome.taken)) <= 1


def test_a_window_that_failed_is_tried_again_with_the_next_keyframe(place):
    outcome, windows = driven(place, 0, fail={2})
    assert windows[:3] == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert outcome.rejected == ['on purpose']


def test_windows_at_perfect_odometry_make_the_true_path_and_map(place):
    outcome, _ = driven(place, 30)
    truth = Trajectory(place.stamps_ns, place.odom_from_camera)
    path = outcome.reconstructor.trajectory()
    stamps_ns = np.array([stamp_ns for stamp_ns, _ in path])
    np.testing.assert_allclose(
        np.stack([pose for _, pose in path]), truth.take(stamps_ns).poses, atol=1e-3)
    pose = place.world_from_camera[0]
    points = outcome.reconstructor.map_points().xyz @ pose[:3, :3].T + pose[:3, 3]
    # A voxel's mean lies a little off where two walls meet.
    assert np.median(place.distance(points)) < 1e-3
    assert np.quantile(place.distance(points), 0.99) < 0.05


def test_without_odometry_the_same_keyframes_come_and_have_none(place):
    seen = []
    for config in (CONFIG, replace(CONFIG, tf=replace(CONFIG.tf, odom_frame=''))):
        # Half the images are too near the last to be keyframes.
        config = replace(config, keyframes=replace(config.keyframes, min_translation_m=0.3))
        backend = Witness(place)
        selector = WorldSelector(place, config.keyframes)
        outcome = drive(place, Reconstructor(config, backend, selector), config)
        assert outcome.tf.faults() == []
        seen.append(backend)
    with_odometry, without = seen
    assert with_odometry.windows == without.windows
    assert with_odometry.truth == without.truth and len(without.truth) < len(place)
    assert all(pose is None for pose in without.odometry)
    assert all(pose is not None for pose in with_odometry.odometry)


def test_what_is_measured_is_what_was_put_in(monkeypatch, place):
    monkeypatch.setattr('benchmarks.evaluate.figures.world', lambda name: place)
    monkeypatch.setitem(FAULTS, 'typical', Faults(scale=0.02))
    figures = measure(Run('corridor', 'typical', 'sim3'))
    assert figures.coverage == 1 and figures.segments == 1 and not figures.rejected
    # What 2 % a window leave of the scale of all.
    assert 0.002 < figures.scale_p90 < 0.02
    assert abs(figures.scale_error) < 0.02
    assert figures.odometry_m == pytest.approx(0, abs=1e-9)
    assert figures.rotation_deg < 0.3
    assert 0.002 < figures.position_m < 0.2
    assert 0.002 < figures.map_p90_m < 0.2
    exact = measure(Run('corridor', 'typical', 'odometry'))
    assert exact.position_m == pytest.approx(0, abs=1e-9)
    alone = measure(Run('corridor', 'typical', 'sim3', odometry=NONE))
    assert alone.coverage == 1 and alone.segments == 1
    # What is wrong with a path of one scale, a similarity mends.
    assert alone.aligned_m < 0.01
    slipped = [measure(Run('corridor', 'typical', 'odometry', odometry='slip', seed=seed))
               for seed in (1, 2)]
    assert 0.1 < slipped[0].position_m != slipped[1].position_m


def test_figures_go_to_json_and_what_is_unknown_is_null():
    written = json.loads(json.dumps(record(TYPICAL, Figures(coverage=0.5)), allow_nan=False))
    assert written['method'] == 'sim3' and written['coverage'] == 0.5
    assert written['position_m'] is None


def test_a_backend_beats_odometry_within_a_window_but_for_its_scale():
    errors = window_errors('corridor', Faults(scale=0.3, rotation_deg=0.05), (1, 2))
    assert errors.shape_m < errors.odometry_m < errors.backend_m
    assert errors.backend_deg < errors.odometry_deg
    assert errors.backend_is_better(anchored=True)
    assert not errors.backend_is_better(anchored=False)


def test_the_table_has_each_way_with_each_share_of_drops_and_the_trials_six_times():
    worlds = [*BUILDINGS, 'bags/kitchen']
    runs = list(table(worlds))
    ways = 1 + len(DROPS_PERCENT) * len(WAYS)
    assert len(runs) == len(set(runs)) == len(SEEDS) * (
        3 * ways + 2 * len(TRIALS)) == len({(run.row, run.seed) for run in runs})
    assert SEEDS == (1, 2, 3, 4, 5, 6)
    # The seeds of a row follow each other, and the rows of a world, which is rendered once.
    for of in (lambda run: run.row, lambda run: run.world):
        assert len(list(groupby(runs, of))) == len({of(run) for run in runs})
    assert {run.place for run in runs} == {*BUILDINGS, 'kitchen'}
    trials = {run.case for run in runs if run.odometry != 'drifting' or run.faults != 'typical'}
    assert {'sim3+model, no odometry', 'sim3+odometry+loops, slip', 'sim3+odometry, jump',
            'sim3+odometry, window bias', 'sim3+model, scale drift'} <= trials


GOOD = Figures(
    length_m=60.0, position_m=0.2, aligned_m=0.1, rotation_deg=1.0, odometry_m=1.0,
    map_median_m=0.05, coverage=1.0, gaps=0.0, scale_error=0.005, segments=1, windows=10)


def of_seeds(run, *figures):
    return [(replace(run, seed=seed), found) for seed, found in enumerate(figures, 1)]


def test_a_row_is_the_root_mean_square_over_its_seeds_and_their_spread():
    found = [replace(GOOD, position_m=0.3, scale_error=-0.03),
             replace(GOOD, position_m=0.4, scale_error=0.04)]
    assert Spread.of(found, 'position_m') == Spread(pytest.approx(math.sqrt(0.125)), 0.3, 0.4)
    assert Spread.of(found, 'scale_error').low == -0.03
    lost = replace(TYPICAL, world='bags/kitchen', drops_percent=30)
    said = summary([
        *of_seeds(TYPICAL, *found), *of_seeds(lost, GOOD, replace(GOOD, position_m=math.nan))])
    row = said['corridor']['sim3+odometry']['0']
    assert row == pytest.approx({
        'seeds': 2, 'position_m': math.sqrt(0.125), 'rotation_deg': 1.0, 'map_m': 0.05,
        'scale': math.sqrt(0.00125), 'aligned_m': 0.1, 'coverage': 1.0})
    # What one seed has nothing to say about is not the mean of the others.
    assert said['kitchen']['sim3+odometry']['30']['position_m'] is None
    json.dumps(said, allow_nan=False)


def verdicts(*results):
    return [claim.verdict for claim in check(results)]


def test_nothing_is_held_that_was_not_checked():
    assert verdicts() == ['not checked'] * 9


LOOPS = replace(TYPICAL, loops=True)


@pytest.mark.parametrize(('run', 'wrong', 'claim'), [
    (TYPICAL, {'position_m': 2.0}, 0),
    (replace(TYPICAL, drops_percent=10), {'segments': 2}, 1),
    # Of 0.2 m without drops and the root of a tenth of odometry's 1 m.
    (replace(TYPICAL, drops_percent=10), {'gaps': 0.1, 'position_m': 1.5 * math.sqrt(0.14)}, 2),
    (LOOPS, {'loops': 3, 'position_m': 0.22}, 3),
    (LOOPS, {'loops': 3, 'rotation_deg': math.nan}, 3),
    (LOOPS, {'loops': 3, 'position_m': 0.31}, 4),
    (LOOPS, {'loops': 0}, 5),
    (replace(TYPICAL, faults='promised'), {'position_m': 0.31}, 7),
    (replace(TYPICAL, faults='promised'), {'scale_error': -0.011}, 8),
    (LOOPS, {'tf_faults': ('odom has two parents',)}, 6),
], ids=['odometry', 'segments', 'drops', 'loops', 'nan', 'disaster', 'none found', 'promise',
        'scale', 'tf'])
def test_each_claim_can_break(run, wrong, claim):
    good = replace(GOOD, loops=3 if run.loops else 0)
    assert verdicts((TYPICAL, GOOD), (run, good))[claim] == 'held'
    claims = check([(TYPICAL, GOOD), (run, replace(good, **wrong))])
    assert claims[claim].verdict == 'not held'
    assert claims[claim].broken[0].startswith((run.row, '1 runs: their errors are 1.50'))


def loops_verdicts(*positions_m):
    """Judge loop closure by the seeds' positions with it, which are 0.2 m without."""
    found = [replace(GOOD, loops=3, position_m=position_m) for position_m in positions_m]
    results = [*of_seeds(TYPICAL, *[GOOD] * len(found)), *of_seeds(LOOPS, *found)]
    return verdicts(*results)[3:5]


def test_loops_are_judged_over_seeds_but_no_seed_may_be_a_disaster():
    # One seed is a quarter worse, and all together better.
    assert loops_verdicts(0.25, 0.05, 0.05) == ['held', 'held']
    assert loops_verdicts(0.22, 0.22, 0.22) == ['not held', 'held']
    # Five good seeds do not make up for a ruined map.
    assert loops_verdicts(0.4, *[0.05] * 5) == ['held', 'not held']


def test_odometry_is_compared_over_seeds():
    assert verdicts(*of_seeds(TYPICAL, *[
        replace(GOOD, position_m=m) for m in (1.1, 0.1, 0.1)]))[0] == 'held'
    assert verdicts(*of_seeds(TYPICAL, *[
        replace(GOOD, position_m=m) for m in (1.9, 0.1, 0.1)]))[0] == 'not held'
