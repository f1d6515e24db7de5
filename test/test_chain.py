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

"""The path behind the horizon is where its steps and the loops say, segment by segment."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from mapanything_ros.core.estimation.chain import Chain
from mapanything_ros.core.estimation.factors import POSE_DOUBT
from mapanything_ros.core.estimation.similarity import difference, scale_of
from mapanything_ros.core.estimation.smoother import Fixed
from mapanything_ros.core.places.loop_edge import LoopEdge

# Of steps and of loops: radians, metres, logarithm of scale.
STEP, LOOP = (0.004, 0.01, 0.002), (0.005, 0.02, 0.01)


def similarity(turn=(0, 0, 0), shift=(0, 0, 0), scale=1.0):
    matrix = np.eye(4)
    matrix[:3, :3] = scale * Rotation.from_rotvec(turn).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def stretch(factor):
    return similarity(scale=factor)


def rigid(pose):
    return pose @ stretch(1 / scale_of(pose))


def ring(count, *, turn_rad=STEP[0], bias_rad=0.002, growth=1.0):
    """Give true poses along two laps of a wavy ring of 20 m, and the same with drift."""
    rng = np.random.default_rng(3)
    angles = 4 * np.pi * np.arange(count) / count
    true = [similarity([0, 0, a], [3 * np.cos(a), 3 * np.sin(a), 0.3 * np.sin(3 * a)])
            for a in angles]
    drifted = [true[0]]
    for before, after in pairwise(true):
        error = similarity(
            rng.normal(0, turn_rad, 3) + [0, 0, bias_rad], rng.normal(0, STEP[1], 3), growth)
        drifted.append(drifted[-1] @ np.linalg.inv(before) @ after @ error)
    return true, drifted


def fixed(poses, units=None, sigmas=STEP, after=None):
    """Give keyframes by id as the smoother leaves them, in a row behind the pose ``after``."""
    covariance = np.diag(np.repeat(sigmas, [3, 3, 1]) ** 2)
    motions = [
        None if a is None else np.linalg.inv(a) @ b for a, b in pairwise([after, *poses.values()])]
    return [
        Fixed(number, pose, motion, covariance, 1.0 if units is None else units[number])
        for (number, pose), motion in zip(poses.items(), motions, strict=True)]


def chain_of(poses, **options):
    """Give a chain of one segment, to which keyframes came in a few at a time."""
    chain = Chain()
    chain.metric.add(1)
    row = fixed(dict(enumerate(poses)), **options)
    for start in range(0, len(row), 4):
        chain.add(row[start:start + 4], 1)
    return chain


def loop(true, older, newer, error=None):
    measured = np.linalg.inv(true[older]) @ true[newer]
    return edge(older, newer, measured if error is None else measured @ error)


def edge(older, newer, motion, scale=1.0, sigmas=LOOP):
    turn, place, of_scale = sigmas
    return LoopEdge(older, newer, motion, place, turn, scale, of_scale)


def close(chain, edges):
    """Take in loops of keyframes that are all behind the horizon."""
    return chain.close(edges, [], 1)


def position_rmse(poses, true):
    return np.sqrt(np.mean([
        ((poses[i][:3, 3] - pose[:3, 3]) ** 2).sum() for i, pose in enumerate(true)]))


def apart(one, other):
    """Return how far two paths are apart at most, in (7,) of any kind."""
    assert list(one) == list(other)
    return max(np.abs(difference(one[number], other[number])).max() for number in one)


def assert_unmoved(chain, poses):
    assert list(chain.poses) == list(range(len(poses)))
    for number, pose in chain.poses.items():
        np.testing.assert_array_equal(pose, poses[number])


def full_least_squares(drifted, loops):
    """Solve for every keyframe at once with scipy, from the same uncertainties."""
    steps = [np.linalg.inv(a) @ b for a, b in pairwise(drifted)]
    of_step, of_loop = (np.repeat(sigmas, [3, 3, 1]) for sigmas in (STEP, LOOP))

    def poses(x):
        return [drifted[0], *(
            pose @ similarity(move[:3], move[3:6], np.exp(move[6]))
            for pose, move in zip(drifted[1:], x.reshape(-1, 7), strict=True))]

    def residuals(x):
        found = poses(x)
        chain = [
            difference(step, np.linalg.inv(a) @ b) / of_step
            for step, (a, b) in zip(steps, pairwise(found), strict=True)]
        ties = [
            difference(e.similarity, np.linalg.inv(found[e.older]) @ found[e.newer]) / of_loop
            for e in loops]
        # Geman and McClure's loss as a square; doubt is by axis.
        doubt = np.sqrt(7) * POSE_DOUBT
        doubted = [tie * doubt / np.hypot(doubt, np.linalg.norm(tie)) for tie in ties]
        return np.concatenate(chain + doubted)

    return dict(enumerate(poses(
        least_squares(residuals, np.zeros(7 * len(steps)), max_nfev=10).x)))


def test_what_became_known_of_the_scale_on_the_way_is_no_drift():
    """Of a map without drift half was fixed before it was known to be 8 % too small."""
    true, _ = ring(40)
    small = [similarity(scale=0.92) @ pose for pose in true]
    first = fixed(dict(enumerate(small[:20])))
    # It goes on where the small one has ended, the right step from there.
    end = rigid(small[19]) @ stretch(1.0)
    poses = {n: end @ np.linalg.inv(true[19]) @ true[n] for n in range(20, 40)}
    chain = Chain()
    chain.metric.add(1)
    chain.add(first, 1)
    chain.add([replace(each, claims=[(0.0, 0.02)]) for each in fixed(poses, after=end)], 1)
    found, *_ = close(chain, [loop(true, i - 20, i) for i in (22, 28, 34)])
    scales = [scale_of(pose) for pose in found.values()]
    np.testing.assert_allclose(scales, 1.0, rtol=0.005)
    for number in range(40):
        np.testing.assert_allclose(
            difference(np.linalg.inv(true[0]) @ true[number],
                       np.linalg.inv(found[0]) @ found[number])[:6], 0.0, atol=0.02)


@pytest.mark.parametrize('claimed', [True, False], ids=['windows say it', 'nothing does'])
def test_a_loop_leaves_the_scale_to_what_all_windows_say_of_it(claimed):
    """The first keyframe's is 10 % too large; it counts where nothing else is said."""
    true, drifted = ring(40)
    poses = [stretch(1.1) @ pose for pose in drifted]
    rng, row = np.random.default_rng(0), fixed(dict(enumerate(poses)))
    if claimed:
        row = [
            replace(each, claims=[(rng.normal(0, 0.02) - np.log(scale_of(each.pose)), 0.02)])
            for each in row]
    chain = Chain()
    chain.metric.add(1)
    chain.add(row, 1)
    found, *_ = close(chain, [loop(true, i - 20, i) for i in (22, 28, 34)])
    scales = [scale_of(pose) for pose in found.values()]
    # Each of 40 errs by 2 %, all of them by 0.3 %.
    np.testing.assert_allclose(
        scales, 1.0 if claimed else 1.1, rtol=0.01)
    # Where the map begins it stays, whatever its scale.
    np.testing.assert_allclose(rigid(found[0]), rigid(poses[0]), atol=1e-3)


def test_loops_undo_drift_as_a_full_least_squares_would():
    true, drifted = ring(16, turn_rad=0.0005, bias_rad=0.0, growth=1.001)
    rng = np.random.default_rng(0)
    loops = [
        loop(true, i - 8, i, similarity(rng.normal(0, LOOP[0], 3), rng.normal(0, LOOP[1], 3)))
        for i in (9, 11, 13, 15)]
    chain = chain_of(drifted)
    found, *_ = close(chain, loops)
    expected = full_least_squares(drifted, loops)
    moved = apart(found, dict(enumerate(drifted)))
    assert moved > 0.02
    assert apart(found, expected) < 0.03 * moved
    assert apart(chain.poses, found) < 1e-9


def test_loops_undo_drift():
    true, drifted = ring(60)
    found, *_ = close(chain_of(drifted), [loop(true, i, i + 30) for i in range(0, 30, 6)])
    assert position_rmse(found, true) < 0.3 * position_rmse(drifted, true)


def test_loops_that_agree_hold_however_much_worse_the_path_is_than_its_steps_say():
    true, drifted = ring(60, turn_rad=0.01, bias_rad=0.02)
    chain = chain_of(drifted)
    found, *_ = close(chain, [loop(true, i, i + 30) for i in range(0, 30, 6)])
    assert chain.removed == 0
    assert position_rmse(found, true) < 0.3 * position_rmse(drifted, true)


def test_the_first_keyframe_stays_and_what_follows_the_last_loop_moves_with_it():
    true, drifted = ring(60)
    found, *_ = close(chain_of(drifted), [loop(true, 5, 35), loop(true, 10, 40)])
    assert list(found) == list(range(60))
    np.testing.assert_allclose(found[0], drifted[0], atol=1e-6)
    assert np.linalg.norm(found[59][:3, 3] - drifted[59][:3, 3]) > 0.05
    np.testing.assert_allclose(
        np.linalg.inv(found[40]) @ found[59], np.linalg.inv(drifted[40]) @ drifted[59], atol=1e-5)


def test_what_the_smoother_still_moves_follows_and_is_not_kept():
    true, drifted = ring(60)
    whole, half = chain_of(drifted), chain_of(drifted[:50])
    loops = [loop(true, 5, 35), loop(true, 10, 55)]
    newest = fixed({number: drifted[number] for number in range(50, 60)}, after=drifted[49])
    found, *_ = half.close(loops, newest, 1)
    assert apart(found, close(whole, loops)[0]) < 1e-6
    assert list(half.poses) == list(range(50))


@pytest.mark.parametrize('later', [False, True], ids=['at once', 'later'])
def test_a_false_loop_among_true_ones_is_removed_and_leaves_no_trace(later):
    true, drifted = ring(60)
    honest, deceived = chain_of(drifted), chain_of(drifted)
    loops = [loop(true, i, i + 30) for i in (2, 8, 14, 20, 26)]
    false = edge(5, 22, np.eye(4))
    close(honest, loops)
    if later:
        close(deceived, loops)
        assert close(deceived, [false]) is None
        assert apart(deceived.poses, honest.poses) < 1e-9
    else:
        close(deceived, [*loops, false])
        assert apart(deceived.poses, honest.poses) < 2e-3
    assert deceived.removed == 1
    # Nor does it come back with the next loop.
    for chain in (honest, deceived):
        close(chain, [loop(true, 29, 59, similarity(shift=[0, 0, 0.1]))])
    assert apart(deceived.poses, honest.poses) < 2e-3


def test_loops_that_contradict_each_other_alone_move_nothing():
    _, drifted = ring(40)
    chain = chain_of(drifted)
    assert close(chain, [
        edge(0, 30, similarity(shift=[1, 0, 0])),
        edge(0, 30, similarity(shift=[-1, 0, 0]))]) is None
    assert chain.removed == 2
    assert_unmoved(chain, drifted)


def test_without_loops_nothing_moves():
    _, drifted = ring(10)
    chain = chain_of(drifted)
    assert close(chain, []) is None
    assert_unmoved(chain, drifted)
    assert Chain().close([], [], 0) is None


def test_a_loop_that_the_path_bears_out_moves_nothing_but_counts_with_later_ones():
    _, drifted = ring(60, turn_rad=0.0, bias_rad=0.0)
    motion = np.linalg.inv(drifted[25]) @ drifted[28]
    agreeing = edge(25, 28, motion, sigmas=(5e-4, 1e-3, 1e-3))
    contradicting = loop(drifted, 20, 28, similarity(shift=[0, 0, 0.15]))
    with_it, without = chain_of(drifted), chain_of(drifted)
    assert close(with_it, [agreeing]) is None
    assert_unmoved(with_it, drifted)
    for chain in (with_it, without):
        assert close(chain, [contradicting]) is not None

    def changed(chain):
        motion = np.linalg.inv(chain.poses[25]) @ chain.poses[28]
        return np.linalg.norm(difference(agreeing.similarity, motion)[3:6])

    assert changed(with_it) < 0.5 * changed(without)


def test_loops_give_the_same_path_one_after_the_other_as_at_once():
    true, drifted = ring(60)
    rng = np.random.default_rng(1)
    loops = [
        loop(true, i, i + 30, similarity(rng.normal(0, LOOP[0], 3), rng.normal(0, LOOP[1], 3)))
        for i in range(2, 30, 9)]
    at_once, bit_by_bit = chain_of(drifted), Chain()
    close(at_once, loops)
    bit_by_bit.metric.add(1)
    corrected, before = np.eye(4), None
    for number, pose in enumerate(drifted):
        bit_by_bit.add(fixed({number: corrected @ pose}, after=before), 1)
        for each in loops:
            if each.newer == number and close(bit_by_bit, [each]):
                corrected = bit_by_bit.poses[number] @ np.linalg.inv(pose)
        before = corrected @ pose
    assert apart(bit_by_bit.poses, at_once.poses) < 5e-3
    assert position_rmse(bit_by_bit.poses, true) < 0.5 * position_rmse(drifted, true)


def test_drift_of_scale_along_a_ring_is_undone_by_loops_that_tell_it():
    """Views came in the scale of the map there, which grew by half on the way."""
    true, drifted = ring(60, growth=1.5 ** (1 / 59))
    units = {number: 1 / scale_of(pose) for number, pose in enumerate(drifted)}
    chain = chain_of(drifted, units=units, sigmas=(*STEP[:2], 0.02))
    assert scale_of(chain.path(1)[59]) == pytest.approx(1.0)
    loops = []
    for i in range(2, 30, 6):
        motion = np.linalg.inv(true[i]) @ true[i + 30]
        # In the unit of the older view.
        motion[:3, 3] /= units[i]
        loops.append(edge(i, i + 30, motion, units[i] / units[i + 30]))
    close(chain, loops)
    assert chain.removed == 0
    views = chain.path(1)
    right = np.array([scale_of(views[i]) / units[i] for i in range(60)])
    np.testing.assert_allclose(right, 1.0, atol=0.04)
    assert position_rmse(views, true) < 0.15 * position_rmse(drifted, true)


# The second half of a path, in a frame and a unit of its own.
ELSEWHERE = similarity([0.5, -1.0, 2.0], [4.0, -3.0, 1.0], 0.4)


def two_segments(*, metric):
    """
    Give true poses, and a chain of two segments: the first is true, the second ELSEWHERE.

    Views came in the scale that the map had.
    """
    true = dict(enumerate(ring(60)[0]))
    chain = Chain()
    chain.metric |= {number for number in (1, 2) if metric[number - 1]}
    chain.add(fixed({n: true[n] for n in range(30)}), 1)
    second = {n: ELSEWHERE @ true[n] for n in range(30, 60)}
    units = dict.fromkeys(second, 1 / 0.4)
    chain.add(fixed({n: second[n] for n in range(30, 50)}, units), 2)
    newest = {n: second[n] for n in range(50, 60)}
    return true, chain, fixed(newest, units, after=second[49])


def joining(true, *pairs, error=None):
    """Give loops between views: those of the second half are 0.4 times as large."""
    return [
        edge(older, newer, motion if error is None else motion @ error, 0.4)
        for older, newer in pairs
        for motion in [np.linalg.inv(true[older]) @ true[newer]]]


@pytest.mark.parametrize('metric', [(True, True), (False, False), (True, False)])
def test_segments_become_one_path_at_the_right_scale_where_loops_join_them(metric):
    true, chain, newest = two_segments(metric=metric)
    assert list(chain.path(1)) == list(range(30))
    assert list(chain.path(2)) == list(range(30, 50))
    found, *_ = chain.close(joining(true, (2, 32), (8, 38), (20, 52)), newest, 2)
    assert chain.joined == {1: 1, 2: 1}
    assert apart(found, true) < 1e-4
    views = chain.path(1)
    assert list(views) == list(range(50)) and not chain.path(2)
    for number, view in views.items():
        np.testing.assert_allclose(rigid(view), true[number], atol=1e-4)
        assert scale_of(view) == pytest.approx(1.0 if number < 30 else 1 / 0.4, rel=1e-4)


def test_a_segment_in_metres_gives_the_map_to_one_that_is_not():
    true, chain, newest = two_segments(metric=(False, True))
    before = dict(chain.poses)
    found, *_ = chain.close(joining(true, (2, 32), (8, 38), (20, 52)), newest, 2)
    assert chain.joined == {1: 2, 2: 2}
    assert apart(found, {n: ELSEWHERE @ pose for n, pose in true.items()}) < 1e-4
    np.testing.assert_allclose(found[30], before[30], atol=1e-6)
    assert list(chain.path(2)) == list(range(50)) and not chain.path(1)


def test_a_segment_that_nothing_joins_stays_and_is_joined_later():
    """A third segment is joined to the first; the second one only afterwards."""
    true, chain, newest = two_segments(metric=(True, True))
    chain.add(newest, 2)
    second = {n: chain.poses[n] for n in range(30, 60)}
    true |= {n: true[n - 60] @ similarity(shift=[0, 0, 0.05]) for n in range(60, 80)}
    away = similarity([0, 1, 0], [9, 9, 9])
    chain.metric.add(3)
    chain.add(fixed({n: away @ true[n] for n in range(60, 80)}), 3)
    assert chain.close([loop(true, 1, 61), loop(true, 12, 72)], [], 3)
    assert chain.joined == {1: 1, 2: 2, 3: 1}
    assert list(chain.path(1)) == [*range(30), *range(60, 80)]
    assert apart({n: chain.poses[n] for n in second}, second) < 1e-6
    assert chain.close(joining(true, (5, 35), (15, 45)), [], 3)
    assert chain.joined == {1: 1, 2: 1, 3: 1}
    assert apart(chain.poses, true) < 1e-3


def test_a_false_loop_between_segments_joins_nothing_where_true_ones_do():
    true, chain, newest = two_segments(metric=(True, True))
    loops = joining(true, (2, 32), (8, 38), (20, 52))
    false = joining(true, (14, 44), error=similarity([0, 0.5, 0], [2.0, 0, 0]))
    # It is the first that is tried.
    found, *_ = chain.close([*false, *loops], newest, 2)
    assert chain.removed == 1
    assert apart(found, true) < 2e-3


def test_how_far_the_last_keyframe_may_be_off_is_what_step_and_loop_leave():
    """Between two keyframes, of which the first is held, information adds up."""
    chain = chain_of([np.eye(4), similarity(shift=[1, 0, 0])], sigmas=(0.2, 1.0, 0.1))
    _, covariance, _ = close(chain, [
        edge(0, 1, similarity(shift=[1.5, 0, 0]), sigmas=(0.02, 0.1, 0.05))])
    expected = np.repeat([
        0.2 ** -2 + 0.02 ** -2, 1.0 ** -2 + 0.1 ** -2, 0.1 ** -2 + 0.05 ** -2], [3, 3, 1]) ** -0.5
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), expected, rtol=0.02)


def test_loops_hold_over_2000_keyframes_and_400_loops_as_over_few():
    true, drifted = ring(2000, turn_rad=0.001, bias_rad=0.0002, growth=1.0001)
    rng = np.random.default_rng(2)
    loops = [
        loop(true, i, i + 1000, similarity(
            rng.normal(0, LOOP[0], 3), rng.normal(0, LOOP[1], 3), np.exp(rng.normal(0, LOOP[2]))))
        for i in range(0, 980, 5)]
    loops += [
        loop(true, i, i + 1010, similarity(
            rng.normal(0, LOOP[0], 3), rng.normal(0, LOOP[1], 3), np.exp(rng.normal(0, LOOP[2]))))
        for i in range(2, 980, 5)]
    false = edge(300, 700, np.eye(4))
    chain = chain_of(drifted)
    found, *_ = close(chain, [*loops, false])
    assert len(loops) > 390
    assert chain.removed == 1
    assert position_rmse(found, true) < 0.3 * position_rmse(drifted, true)
    np.testing.assert_allclose(found[0], drifted[0], atol=1e-4)
