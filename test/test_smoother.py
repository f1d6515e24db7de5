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

"""The newest part of the path is where all that was said of it puts it."""

from copy import copy
from itertools import pairwise

import gtsam
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.estimation.factors import adjoint, FIXED, from_gtsam, to_gtsam
from mapanything_ros.core.estimation.noise import Noise
from mapanything_ros.core.estimation.similarity import difference, rigid, scale_of, stretched
from mapanything_ros.core.estimation.smoother import HORIZON, Node, Smoother

DEPTH = 3.0
CERTAIN = (0.0, 1e-4)


def pose(number):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', [0.2, 0.1 * number, -0.1]).as_matrix()
    matrix[:3, 3] = [0.3 * number, 0.1 * np.sin(number), 1.0]
    return matrix


def random_similarity(rng, size=1.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(size * rng.standard_normal(3)).as_matrix()
    matrix[:3, 3] = size * rng.standard_normal(3)
    return stretched(matrix, np.exp(size * rng.standard_normal()))


def view(number, first, x_m=0.0, y_m=0.0):
    """Give how a window with the camera of ``first`` as its world sees a keyframe."""
    seen = np.linalg.inv(pose(first)) @ pose(number)
    seen[:2, 3] += [x_m, y_m]
    return seen


def add(smoother, node, map_from_world, poses, odometry):
    expected = {number: map_from_world @ view for number, view in node.views.items()}
    smoother.add(node, expected, scale_of(map_from_world), odometry)
    smoother.poses.update(poses)


def node(number, views, first=(), claims=(CERTAIN,), ties=None):
    return Node(number, views, DEPTH, frozenset(first), claims, ties or {})


def straight(number, numbers, smoother, **kwargs):
    """Add a window that sees keyframes exactly, with guesses that are right."""
    new = set(numbers) - smoother.poses.keys()
    add(
        smoother, node(number, {n: view(n, numbers[0]) for n in numbers}, new, **kwargs),
        pose(numbers[0]), {n: pose(n) for n in new}, {})
    return new


def moved(number, x_m=0.0, yaw_deg=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('z', yaw_deg, degrees=True).as_matrix()
    matrix[0, 3] = x_m
    return pose(number) @ matrix


def first_guess(poses, expected, unit=1.0):
    """Return where a smoother puts a window that sees poses, of which others are expected."""
    smoother = Smoother(Noise())
    map_from_world = stretched(pose(9), unit)
    views = {n: stretched(np.linalg.inv(map_from_world) @ p, unit) for n, p in poses.items()}
    smoother.add(
        Node(1, views, DEPTH / unit, frozenset(views), (), {}), expected, unit, {})
    return smoother.windows[1], map_from_world


@pytest.mark.parametrize('unit', [1.0, 0.04, 25.0])
@pytest.mark.parametrize('wrong', [
    {}, {2: moved(2, x_m=3.0)}, {0: moved(0, yaw_deg=90.0)},
    {0: moved(0, x_m=-9.0), 5: moved(5, x_m=9.0, yaw_deg=180.0)}],
    ids=['none', 'shift', 'turn', 'two'])
def test_a_window_begins_where_most_of_its_views_are_expected(wrong, unit):
    poses = {number: pose(number) for number in range(6)}
    found, true = first_guess(poses | wrong, poses, unit)
    np.testing.assert_allclose(found, true, rtol=1e-9, atol=1e-9)


def test_only_what_is_expected_says_where_a_window_begins():
    expected = {number: pose(number) for number in (2, 3, 7)}
    found, true = first_guess({number: pose(number) for number in (1, 2, 3, 4)}, expected)
    np.testing.assert_allclose(found, true, rtol=1e-9, atol=1e-9)


def test_a_window_begins_with_its_own_scale_whatever_that_of_poses_is():
    """A pose has odometry's unit; where its camera is, and how turned, is all that is asked."""
    poses = {number: pose(number) for number in range(4)}
    expected = {number: stretched(pose(number), 0.5 + number) for number in range(4)}
    found, true = first_guess(poses, expected, 2.0)
    np.testing.assert_allclose(found, true, rtol=1e-9, atol=1e-9)


def retired_and_moving(windows, keep, odometry=False):
    """Drive on and on; return the smoother and what it has retired."""
    smoother, fixed = Smoother(Noise()), []
    for number in range(windows):
        numbers = [2 * number + i for i in range(4)]
        straight(number, numbers, smoother)
        if odometry:
            smoother.odometry.update({n: pose(n) for n in numbers})
        if not number:
            smoother.held[0] = FIXED
        smoother.solve()
        for n in numbers:
            smoother.units.setdefault(n, (number, smoother.scale(smoother.nodes[-1])))
        fixed += smoother.retire(keep)
    return smoother, fixed


# Similarities as GTSAM has them


def test_a_similarity_survives_gtsam_and_means_the_same_there():
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = random_similarity(rng), random_similarity(rng)
        np.testing.assert_allclose(from_gtsam(to_gtsam(one)), one, rtol=1e-9, atol=1e-9)
        point = rng.standard_normal(3)
        np.testing.assert_allclose(
            to_gtsam(one).transformFrom(point), one[:3, :3] @ point + one[:3, 3],
            rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            from_gtsam(to_gtsam(one) * to_gtsam(other)), one @ other, rtol=1e-9, atol=1e-9)
        assert to_gtsam(one).scale() == pytest.approx(scale_of(one))
        assert scale_of(rigid(one)) == pytest.approx(1.0)
        np.testing.assert_allclose(
            rigid(one) @ [0, 0, 0, 1], one @ [0, 0, 0, 1], atol=1e-12)


def test_a_difference_is_the_error_of_gtsam_s_factor_where_it_is_small():
    rng = np.random.default_rng(1)
    for _ in range(50):
        before, measured = random_similarity(rng), random_similarity(rng)
        after = before @ measured @ random_similarity(rng, 1e-4)
        factor = gtsam.BetweenFactorSimilarity3(
            0, 1, to_gtsam(measured), gtsam.noiseModel.Unit.Create(7))
        values = gtsam.Values()
        values.insert(0, to_gtsam(before))
        values.insert(1, to_gtsam(after))
        np.testing.assert_allclose(
            difference(before @ measured, after), factor.unwhitenedError(values), atol=1e-7)


def test_the_adjoint_brings_a_small_motion_to_the_other_side():
    rng = np.random.default_rng(2)
    for _ in range(20):
        similarity, small = random_similarity(rng), random_similarity(rng, 1e-5)
        behind = similarity @ small @ np.linalg.inv(similarity)
        np.testing.assert_allclose(
            adjoint(similarity) @ difference(np.eye(4), small), difference(np.eye(4), behind),
            atol=1e-7)


# Problems with known answers


def test_two_windows_that_differ_a_little_meet_half_way():
    """One has the second keyframe a centimetre to the left, the other as far to the right."""
    smoother = Smoother(Noise())
    for number, aside in enumerate((-0.01, 0.01)):
        views = {0: view(0, 0), 1: view(1, 0, y_m=aside)}
        poses = {} if number else {0: pose(0), 1: pose(1)}
        add(smoother, node(number, views, poses), pose(0), poses, {})
    smoother.held[0] = FIXED
    smoother.solve()
    np.testing.assert_allclose(smoother.poses[1], pose(1), atol=1e-4)
    # Each window has two views, and gives a share of the centimetre to each of them.
    for each in smoother.nodes:
        doubts = smoother.doubts(each)
        assert 0.1 < doubts[1] < 0.01 / smoother.noise.view(DEPTH)[1]


@pytest.mark.parametrize('windows', [1, 4])
def test_the_covariance_is_what_views_err_by_the_number_of_windows(windows):
    smoother = Smoother(Noise())
    for number in range(windows):
        straight(number, [0, 1], smoother)
    smoother.held[0] = FIXED
    smoother.solve()
    turn, place = smoother.noise.view(DEPTH)
    # Both views err; what the first one is turned carries the second one along.
    motion = np.linalg.inv(pose(0)) @ pose(1)
    arm = np.zeros((3, 3))
    for axis in range(3):
        arm[:, axis] = motion[:3, :3].T @ np.cross(np.eye(3)[axis], motion[:3, 3])
    expected = np.zeros((6, 6))
    expected[:3, :3] = 2 * turn ** 2 * np.eye(3)
    expected[3:, 3:] = 2 * place ** 2 * np.eye(3) + turn ** 2 * arm @ arm.T
    found = smoother.covariance(1)[:6, :6]
    np.testing.assert_allclose(
        np.diag(found), np.diag(expected) / windows, rtol=0.05)


@pytest.mark.parametrize('claims', [
    [(np.log(2.0), 0.1), (np.log(2.2), 0.1)], [(np.log(2.0), 0.05), (np.log(2.2), 0.1)]])
def test_what_is_said_of_scale_is_weighted_by_its_variance(claims):
    """Of two windows of the same scale two claims are made."""
    smoother = Smoother(Noise())
    for number, claim in enumerate(claims):
        straight(number, [0, 1, 2], smoother, claims=[claim],
                 ties={0: (0.0, 1e-3)} if number else None)
    smoother.held[0] = 1e2
    smoother.solve()
    weights = [1 / sigma ** 2 for _, sigma in claims]
    expected = np.exp(np.average([scale for scale, _ in claims], weights=weights))
    for each in smoother.nodes:
        assert smoother.scale(each) == pytest.approx(expected, rel=0.01)
    # All is twice as large, seen from the first keyframe.
    step = smoother.poses[2][:3, 3] - smoother.poses[0][:3, 3]
    np.testing.assert_allclose(
        step, expected * (pose(2)[:3, 3] - pose(0)[:3, 3]), rtol=0.02, atol=0.01)


def test_odometry_alone_carries_keyframes_as_far_as_it_says():
    """Two windows that share nothing are as far apart as odometry has them."""
    smoother = Smoother(Noise())
    for number, numbers in enumerate(([0, 1, 2], [5, 6, 7])):
        new = straight(number, numbers, smoother)
        smoother.odometry.update({n: pose(n) for n in new})
        for n in new:
            if n >= 5:
                smoother.poses[n] = pose(n) @ pose(1)
    smoother.windows[1] = smoother.windows[1] @ pose(1)
    smoother.held[0] = FIXED
    smoother.solve()
    for number in (5, 6, 7):
        np.testing.assert_allclose(smoother.poses[number], pose(number), atol=1e-3)


@pytest.mark.parametrize('told', [None, 1e-9, 0.01], ids=['nothing', 'certain', 'uncertain'])
def test_odometry_counts_less_where_it_says_so_and_never_more(told):
    """A window has two keyframes 2 cm farther apart: they share that by their variances."""
    smoother, noise = Smoother(Noise()), Noise()
    odometry = {0: pose(0), 1: pose(1)}
    if told is not None:
        smoother.variances.update({0: np.array([0.5, 7.0]), 1: np.array([0.5, 7.0 + told])})
    farther = np.linalg.inv(pose(0)) @ pose(1)
    length = np.linalg.norm(farther[:3, 3])
    farther[:3, 3] *= 1 + 0.02 / length
    add(smoother, node(1, {0: np.eye(4), 1: farther}, {0, 1}), pose(0), odometry, odometry)
    smoother.held[0] = FIXED
    smoother.solve()
    _, (size,) = smoother.odometry_steps([0, 1])
    by_odometry = max(noise.odometry(size)[1] ** 2, told or 0.0)
    by_views = 2 * noise.view(DEPTH)[1] ** 2
    found = np.linalg.norm(smoother.poses[1][:3, 3] - pose(0)[:3, 3]) - length
    assert found == pytest.approx(0.02 * by_odometry / (by_odometry + by_views), rel=0.1)


def test_keyframes_that_are_held_do_not_move():
    """Whatever a window says of them, which most others contradict or not."""
    smoother = Smoother(Noise())
    straight(0, [0, 1, 2], smoother)
    smoother.held.update(dict.fromkeys([0, 1, 2], FIXED))
    for number, aside in ((1, 0.03), (2, 0.5)):
        views = {n: view(n, 1, y_m=aside * (n == 2)) for n in (1, 2, 3)}
        add(smoother, node(number, views, {3} - smoother.poses.keys()), pose(1), {
            n: pose(n) for n in {3} - smoother.poses.keys()}, {})
    smoother.solve()
    for number in range(3):
        np.testing.assert_allclose(smoother.poses[number], pose(number), atol=1e-3)


def test_a_keyframe_that_is_forgotten_is_nowhere():
    smoother = Smoother(Noise())
    straight(0, [0, 1, 2], smoother)
    straight(1, [1, 2, 3], smoother)
    smoother.held[0] = FIXED
    smoother.solve()
    smoother.forget(2)
    smoother.solve()
    assert smoother.poses.keys() == {0, 1, 3}
    assert all(2 not in each.views for each in smoother.nodes)
    np.testing.assert_allclose(smoother.poses[3], pose(3), atol=1e-6)


def test_a_copy_goes_its_own_way():
    smoother = Smoother(Noise())
    straight(0, [0, 1, 2], smoother)
    smoother.held[0] = FIXED
    smoother.solve()
    other = copy(smoother)
    straight(1, [1, 2, 3], other)
    other.solve()
    other.retire(1)
    other.forget(3)
    assert smoother.poses.keys() == {0, 1, 2} and len(smoother.nodes) == 1
    assert smoother.nodes[0].views.keys() == {0, 1, 2} and smoother.held.keys() == {0}


# Behind the horizon


def test_a_long_way_costs_no_more_than_a_short_one():
    sizes = []
    for windows in (20, 200):
        smoother, fixed = retired_and_moving(windows, keep=4)
        assert len(fixed) == 2 * (windows - 4) + 2, 'all that the windows before the last four saw'
        sizes.append([
            len(smoother.poses), len(smoother.nodes), len(smoother.windows), len(smoother.held),
            len(smoother.units), len(smoother._fixed)])
    assert sizes[0] == sizes[1]
    assert sizes[1][0] <= 12


def test_as_many_windows_as_the_horizon_stay():
    smoother = Smoother(Noise())
    for number in range(HORIZON + 3):
        straight(number, [number, number + 1], smoother)
        if not number:
            smoother.held[0] = FIXED
    smoother.solve()
    smoother.retire()
    assert [each.number for each in smoother.nodes] == list(range(3, HORIZON + 3))


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_what_was_retired_and_what_moves_are_one_row(odometry):
    smoother, fixed = retired_and_moving(30, 4, odometry)
    moving = smoother.moving()
    assert [each.number for each in (*fixed, *moving)] == list(range(62))
    for each in (*fixed, *moving):
        np.testing.assert_allclose(each.pose, pose(each.number), atol=1e-4)
        assert each.unit == pytest.approx(1.0, abs=1e-4)
        if each.number:
            np.testing.assert_allclose(each.covariance, each.covariance.T, atol=1e-9)
            assert np.linalg.eigvalsh(each.covariance).min() > 0
    np.testing.assert_array_equal(fixed[0].covariance, 0)
    # Steps are as uncertain wherever they are in the row, but for the last ones, which few
    # windows have seen.
    sizes = np.array([np.trace(each.covariance[:6, :6]) for each in fixed[5:]])
    assert sizes.max() < 1.5 * sizes.min()


def test_the_covariance_of_a_keyframe_is_that_of_the_steps_to_it():
    """Within a factor of 1.5 of what steps that are independent of each other come to."""
    smoother, fixed = retired_and_moving(30, 4)
    row = [*fixed, *smoother.moving()]
    total = np.zeros((7, 7))
    for before, after in pairwise(row):
        there = adjoint(np.linalg.inv(after.pose) @ before.pose)
        total = there @ total @ there.T + after.covariance
    found = smoother.covariance(row[-1].number)
    ratio = np.sqrt(np.diag(found) / np.diag(total))
    assert (ratio[:6] > 1 / 1.5).all() and (ratio[:6] < 1.5).all(), ratio


def test_what_a_window_places_later_follows_its_scale():
    """A keyframe whose depth came in a scale that its window has no more is as much smaller."""
    smoother = Smoother(Noise())
    straight(0, [0, 1, 2], smoother, claims=[(0.0, 0.1)])
    smoother.held[0] = 1e2
    smoother.solve()
    smoother.units.update(dict.fromkeys([0, 1, 2], (0, smoother.scale(smoother.nodes[0]))))
    assert scale_of(smoother.map_from_view(2)) == pytest.approx(1.0, abs=1e-6)
    straight(1, [0, 1, 2], smoother, claims=[(np.log(0.9), 1e-3)], ties={0: (0.0, 1e-3)})
    smoother.solve()
    assert scale_of(smoother.map_from_view(2)) == pytest.approx(0.9, rel=0.01)
    np.testing.assert_allclose(
        smoother.map_from_view(2)[:3, 3], smoother.poses[2][:3, 3], atol=1e-12)
