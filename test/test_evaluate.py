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
from itertools import pairwise
import json
import math

import numpy as np
import pytest

from benchmarks.evaluate.claims import check
from benchmarks.evaluate.drive import drive
from benchmarks.evaluate.figures import Figures, gap_share, measure, record
from benchmarks.evaluate.runs import FAULTS, Run, table
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from benchmarks.evaluate.tf_record import TfRecord
from benchmarks.evaluate.unaligned import Unaligned
from benchmarks.evaluate.window_errors import window_errors
from benchmarks.evaluate.worlds import world
from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.core.evaluation import Trajectory

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
        self.windows, self.fail = [], fail

    def infer(self, keyframes):
        self.windows.append([keyframe.id for keyframe in keyframes])
        if len(self.windows) in self.fail:
            raise ReconstructionError('on purpose')
        return super().infer(keyframes)


def driven(place, drops_percent, fail=()):
    backend = Witness(place, fail)
    return drive(place, Unaligned(CONFIG, backend), CONFIG, drops_percent), backend.windows


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
    outcome = drive(place, Unaligned(CONFIG, backend), CONFIG, 30)
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
        np.stack([pose for _, pose in path]), truth.take(stamps_ns).poses, atol=1e-9)
    pose = place.world_from_camera[0]
    points = outcome.reconstructor.map_points().xyz @ pose[:3, :3].T + pose[:3, 3]
    # A voxel's mean lies a little off where two walls meet.
    assert np.median(place.distance(points)) < 1e-3
    assert np.quantile(place.distance(points), 0.99) < 0.05


def test_what_is_measured_is_what_was_put_in(monkeypatch, place):
    monkeypatch.setattr('benchmarks.evaluate.figures.world', lambda name: place)
    monkeypatch.setitem(FAULTS, 'typical', Faults(scale=0.1))
    figures = measure(Run('corridor', 'typical', 'unaligned'))
    assert figures.coverage == 1 and figures.segments == 1 and not figures.rejected
    assert 0.05 < figures.scale_p90 < 0.3
    assert abs(figures.scale_error) < 0.1
    assert figures.odometry_m == pytest.approx(0, abs=1e-9)
    assert figures.rotation_deg == pytest.approx(0, abs=1e-3)
    assert 0.01 < figures.position_m < 0.2
    assert 0.01 < figures.map_p90_m < 1.0
    exact = measure(Run('corridor', 'typical', 'odometry'))
    assert exact.position_m == pytest.approx(0, abs=1e-9)


def test_figures_go_to_json_and_what_is_unknown_is_null():
    written = json.loads(json.dumps(record(TYPICAL, Figures(coverage=0.5)), allow_nan=False))
    assert written['method'] == 'sim3' and written['coverage'] == 0.5
    assert written['position_m'] is None


def test_a_backend_beats_odometry_within_a_window_but_for_its_scale():
    errors = window_errors('corridor', Faults(scale=0.3, rotation_deg=0.05), 1)
    assert errors.shape_m < errors.odometry_m < errors.backend_m
    assert errors.backend_deg < errors.odometry_deg
    assert errors.backend_is_better(anchored=True)
    assert not errors.backend_is_better(anchored=False)


def test_the_table_has_each_way_with_each_share_of_drops():
    runs = list(table(['corridor', 'two_rooms'], (0, 10, 30), seed=1))
    assert len(runs) == len(set(runs)) == 2 * 3 * (2 + 2 * 2 * 2)


GOOD = Figures(
    length_m=60.0, position_m=0.2, aligned_m=0.1, rotation_deg=1.0, odometry_m=1.0,
    map_median_m=0.05, coverage=1.0, gaps=0.0, scale_error=0.005, segments=1, windows=10)


def verdicts(*results):
    return [claim.verdict for claim in check(results)]


def test_nothing_is_held_that_was_not_checked():
    assert verdicts() == ['not checked'] * 8


@pytest.mark.parametrize(('run', 'wrong', 'claim'), [
    (TYPICAL, {'position_m': 1.1}, 0),
    (replace(TYPICAL, drops_percent=10), {'segments': 2}, 1),
    # Of 0.2 m without drops and the root of a tenth of odometry's 1 m.
    (replace(TYPICAL, drops_percent=10), {'gaps': 0.1, 'position_m': 1.5 * math.sqrt(0.14)}, 2),
    (replace(TYPICAL, loops=True), {'loops': 3, 'position_m': 0.22}, 3),
    (replace(TYPICAL, loops=True), {'loops': 3, 'rotation_deg': math.nan}, 3),
    (replace(TYPICAL, loops=True), {'loops': 0}, 4),
    (replace(TYPICAL, faults='promised'), {'position_m': 0.31}, 6),
    (replace(TYPICAL, faults='promised'), {'scale_error': -0.011}, 7),
    (replace(TYPICAL, loops=True), {'tf_faults': ('odom has two parents',)}, 5),
], ids=['odometry', 'segments', 'drops', 'loops', 'nan', 'none found', 'promise', 'scale', 'tf'])
def test_each_claim_can_break(run, wrong, claim):
    good = replace(GOOD, loops=3 if run.loops else 0)
    assert verdicts((TYPICAL, GOOD), (run, good))[claim] == 'held'
    claims = check([(TYPICAL, GOOD), (run, replace(good, **wrong))])
    assert claims[claim].verdict == 'not held'
    assert claims[claim].broken[0].startswith((str(run), '1 runs: their errors are 1.50'))
