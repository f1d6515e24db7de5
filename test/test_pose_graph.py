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

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.datatypes import Prediction, Scale, Submap
from mapanything_ros.core.loop_edge import LoopEdge
from mapanything_ros.core.pose_graph import PoseGraph, STEP_RAD, STEP_SHARE

NOTHING = torch.zeros(1, 1)


def rigid(turn, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def vector(motion):
    return np.r_[Rotation.from_matrix(motion[:3, :3]).as_rotvec(), motion[:3, 3]]


def ring(count, turn_rad=0.004, bias_rad=0.002):
    """Give true poses along two laps of a wavy ring of 20 m, and the same with drift."""
    rng = np.random.default_rng(3)
    angles = 4 * np.pi * np.arange(count) / count
    true = [rigid([0, 0, a], [3 * np.cos(a), 3 * np.sin(a), 0.3 * np.sin(3 * a)]) for a in angles]
    drifted = [true[0]]
    for before, after in pairwise(true):
        error = rigid(rng.normal(0, turn_rad, 3) + [0, 0, bias_rad], rng.normal(0, 0.01, 3))
        drifted.append(drifted[-1] @ np.linalg.inv(before) @ after @ error)
    return true, drifted


def window(poses, residual_m=0.0):
    views = tuple(
        Prediction(number, NOTHING, NOTHING, NOTHING, NOTHING, np.eye(3), pose)
        for number, pose in poses.items())
    return Submap(views, Scale('model'), np.eye(4), residual_m)


def graph_of(poses, size=4):
    graph = PoseGraph()
    for start in range(0, len(poses), size):
        graph.add_window(window(dict(list(enumerate(poses))[start:start + size])))
    return graph


def loop(poses, older, newer, error=None, sigma_m=0.02, sigma_rad=0.005):
    measured = np.linalg.inv(poses[older]) @ poses[newer]
    return LoopEdge(
        older, newer, measured if error is None else measured @ error, sigma_m, sigma_rad,
        1.0, 0.01)


def position_rmse(poses, true):
    return np.sqrt(np.mean([
        ((poses[i][:3, 3] - pose[:3, 3]) ** 2).sum() for i, pose in enumerate(true)]))


def full_least_squares(drifted, loops):
    """Solve for every keyframe at once with scipy, from the same uncertainties."""
    steps = [np.linalg.inv(a) @ b for a, b in pairwise(drifted)]
    weights = [
        1 / np.repeat([STEP_RAD, STEP_SHARE * np.linalg.norm(step[:3, 3])], 3) for step in steps]

    def poses(x):
        return [drifted[0], *(
            pose @ rigid(move[:3], move[3:])
            for pose, move in zip(drifted[1:], x.reshape(-1, 6), strict=True))]

    def residuals(x):
        found = poses(x)
        chain = [
            weight * vector(np.linalg.inv(step) @ np.linalg.inv(a) @ b)
            for weight, step, (a, b) in zip(weights, steps, pairwise(found), strict=True)]
        ties = [
            vector(np.linalg.inv(e.older_from_newer) @ np.linalg.inv(found[e.older])
                   @ found[e.newer]) / np.repeat([e.sigma_rad, e.sigma_m], 3) for e in loops]
        return np.concatenate(chain + ties)

    return poses(least_squares(residuals, np.zeros(6 * len(steps)), max_nfev=8).x)


def test_loops_undo_drift_as_a_full_least_squares_would():
    true, drifted = ring(24, 0.0005, 0.0)
    rng = np.random.default_rng(0)
    loops = [
        loop(true, i - 12, i, rigid(rng.normal(0, 0.005, 3), rng.normal(0, 0.02, 3)))
        for i in range(13, 24, 3)]
    graph = graph_of(drifted)
    graph.add_loops(loops)
    poses = graph.optimize()
    expected = full_least_squares(drifted, loops)
    moved = max(np.linalg.norm(poses[i][:3, 3] - drifted[i][:3, 3]) for i in poses)
    difference = max(np.linalg.norm(poses[i][:3, 3] - expected[i][:3, 3]) for i in poses)
    assert difference < 0.03 * moved
    assert position_rmse(poses, true) < 0.5 * position_rmse(drifted, true)


def test_loops_that_agree_hold_however_much_worse_the_path_is_than_its_steps_say():
    true, drifted = ring(60, 0.01, 0.02)
    graph = graph_of(drifted)
    graph.add_loops([loop(true, i, i + 30) for i in range(0, 30, 6)])
    poses = graph.optimize()
    assert graph.removed == 0
    assert position_rmse(poses, true) < 0.3 * position_rmse(drifted, true)


def test_the_first_keyframe_stays_and_what_follows_the_last_loop_moves_with_it():
    true, drifted = ring(60)
    graph = graph_of(drifted)
    graph.add_loops([loop(true, 5, 35), loop(true, 10, 40)])
    poses = graph.optimize()
    assert list(poses) == list(range(60))
    np.testing.assert_allclose(poses[0], drifted[0], atol=1e-9)
    assert np.linalg.norm(poses[59][:3, 3] - drifted[59][:3, 3]) > 0.05
    np.testing.assert_allclose(
        np.linalg.inv(poses[40]) @ poses[59], np.linalg.inv(drifted[40]) @ drifted[59], atol=1e-9)
    for pose in poses.values():
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize('between', [[], [(8, 38)]], ids=['at once', 'later'])
def test_a_false_loop_among_true_ones_is_removed_and_leaves_no_trace(between):
    true, drifted = ring(60)
    honest, deceived = graph_of(drifted), graph_of(drifted)
    loops = [loop(true, i, i + 30) for i in (2, 8, 14, 20, 26)]
    honest.add_loops(loops)
    expected = honest.optimize()
    deceived.add_loops(loops)
    if between:
        deceived.optimize()
    deceived.add_loops([LoopEdge(5, 22, np.eye(4), 0.02, 0.005, 1.0, 0.01)])
    poses = deceived.optimize()
    assert deceived.removed == 1
    if between:
        assert poses == {}  # nothing new holds, nothing moves
    else:
        for number, pose in expected.items():
            np.testing.assert_allclose(poses[number], pose, atol=0.005)


def test_loops_that_contradict_each_other_alone_move_nothing():
    _, drifted = ring(40)
    graph = graph_of(drifted)
    graph.add_loops([
        LoopEdge(0, 30, rigid([0, 0, 0], [1, 0, 0]), 0.01, 0.005, 1.0, 0.01),
        LoopEdge(0, 30, rigid([0, 0, 0], [-1, 0, 0]), 0.01, 0.005, 1.0, 0.01)])
    assert graph.optimize() == {}
    assert graph.removed == 2
    assert graph.optimize() == {}


def test_without_loops_nothing_moves():
    assert graph_of(ring(10)[1]).optimize() == {}
    assert PoseGraph().optimize() == {}


def straight(lengths):
    return [rigid([0, 0, 0], [x, 0, 0]) for x in np.cumsum([0, *lengths])]


def stretches(poses):
    return np.diff([poses[i][0, 3] for i in range(len(poses))])


def test_a_gap_that_odometry_bridged_gives_way_before_the_steps_of_windows_do():
    lengths = [0.2, 0.2, 2.0, 0.2, 0.2]
    graph = graph_of(straight(lengths), size=3)
    graph.add_loops([LoopEdge(0, 5, rigid([0, 0, 0], [3.0, 0, 0]), 0.001, 0.001, 1.0, 0.01)])
    change = stretches(graph.optimize()) - lengths
    assert change.sum() == pytest.approx(0.2, abs=0.002)
    assert change[2] > 0.19
    np.testing.assert_allclose(change[[0, 1, 3, 4]], change[0], atol=1e-4)


def test_a_window_that_joined_badly_gives_way_where_it_joined():
    poses = dict(enumerate(straight([0.2] * 5)))
    graph = PoseGraph()
    graph.add_window(window({i: poses[i] for i in (0, 1, 2)}))
    graph.add_window(window({i: poses[i] for i in (2, 3, 4, 5)}, residual_m=0.1))
    graph.add_loops([LoopEdge(0, 5, rigid([0, 0, 0], [1.1, 0, 0]), 0.001, 0.001, 1.0, 0.01)])
    change = stretches(graph.optimize()) - 0.2
    assert change.argmax() == 2
    assert change[2] > 0.8 * change.sum()


@pytest.mark.parametrize('told', [True, False], ids=['odometry', 'no odometry'])
def test_a_step_that_odometry_contradicts_gives_way_first(told):
    rng = np.random.default_rng(5)
    straight_on = straight([0.2] * 11)
    # What odometry says: straight on too, but for its noise.
    odometry = [pose @ rigid(rng.normal(0, 0.002, 3), [0, 0, 0]) for pose in straight_on]
    bend = rigid([0, 0, 0.05], [0, 0, 0])
    bent = [*straight_on[:8], *(
        straight_on[7] @ bend @ np.linalg.inv(straight_on[7]) @ pose for pose in straight_on[8:])]
    graph = PoseGraph()
    for start in range(0, 12, 4):
        ids = range(start, start + 4)
        graph.add_window(
            window({i: bent[i] for i in ids}), {i: odometry[i] for i in ids} if told else None)
    graph.add_loops([LoopEdge(0, 11, straight_on[11], 0.001, 0.001, 1.0, 0.01)])
    poses = graph.optimize()
    turns = np.array([
        vector(np.linalg.inv(poses[i]) @ poses[i + 1])[2] - vector(np.linalg.inv(a) @ b)[2]
        for i, (a, b) in enumerate(pairwise(bent))])
    if told:
        assert turns[7] == pytest.approx(-0.05, abs=0.003)
        assert position_rmse(poses, straight_on) < 0.25 * position_rmse(bent, straight_on)
    else:
        assert np.abs(turns).max() < 0.025


def test_a_keyframe_that_comes_late_finds_its_place_between_its_neighbours():
    poses = dict(enumerate(straight([0.2] * 4)))
    graph = PoseGraph()
    graph.add_window(window({i: poses[i] for i in (0, 1, 3, 4)}))
    graph.add_window(window({i: poses[i] for i in (1, 2, 3)}))
    assert len(graph) == 5
    graph.add_loops([LoopEdge(0, 4, rigid([0, 0, 0], [0.9, 0, 0]), 0.001, 0.001, 1.0, 0.01)])
    np.testing.assert_allclose(stretches(graph.optimize()), 0.225, atol=0.001)


def test_a_loop_of_a_keyframe_that_no_window_placed_is_refused():
    steps = straight([0.2] * 3)
    with pytest.raises(ValueError, match='no window has placed keyframe 0 or 99'):
        graph_of(steps).add_loops([LoopEdge(0, 99, np.eye(4), 0.01, 0.01, 1.0, 0.01)])
    with pytest.raises(ValueError, match='a loop goes back, not from 1 to 2'):
        graph_of(steps).add_loops([LoopEdge(2, 1, np.eye(4), 0.01, 0.01, 1.0, 0.01)])


def test_clear_forgets_the_path_and_its_loops():
    true, drifted = ring(40)
    graph = graph_of(drifted)
    graph.add_loops([loop(true, 0, 20)])
    graph.clear()
    assert len(graph) == 0
    assert graph.optimize() == {}
    graph.add_window(window({7: true[7]}))
    assert len(graph) == 1
