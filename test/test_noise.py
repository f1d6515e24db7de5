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

"""Noise is learned as large as it is, though much of what is compared is wrong."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.estimation.noise import (
    FIRST_RAD,
    FIRST_SHARE,
    LEAST,
    MEMORY,
    Noise,
    ODOMETRY_RAD,
    ODOMETRY_SHARE,
)
from mapanything_ros.core.estimation.similarity import difference

DEPTH = 2.5


def disturbed(pose, rng, turn, place):
    """Return a pose (4,4) with errors of these standard deviations by axis, in its own frame."""
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(turn * rng.standard_normal(3)).as_matrix()
    error[:3, 3] = place * rng.standard_normal(3)
    return pose @ error


def path(step):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('y', 0.1 * step).as_matrix()
    pose[:3, 3] = [0.3 * step, 0.0, 0.1 * step]
    return pose


def motion(rng, step, turn, place):
    """Return how a window has two keyframes in a row, each view with an error of its own."""
    before, after = (disturbed(path(step + i), rng, turn, place) for i in range(2))
    return np.linalg.inv(before) @ after


def learned_of_windows(rng, turn, share, wrong=0.0):
    noise = Noise()
    for step in range(300):
        one, other = (motion(rng, step, turn, share * DEPTH) for _ in range(2))
        if step % 5 < 5 * wrong:
            other = disturbed(other, rng, 1.0, 1.0)
        noise.compare_windows([difference(one, other)], DEPTH)
    return noise


@pytest.mark.parametrize(('turn', 'share'), [(0.002, 0.03), (0.02, 0.01), (0.05, 0.05)])
@pytest.mark.parametrize(('wrong', 'lowest', 'highest'), [(0.0, 0.85, 1.15), (0.4, 0.95, 1.7)])
def test_views_err_as_windows_differ(turn, share, wrong, lowest, highest):
    """Of the rest of 60 % the median is the 83rd percentile: 1.5 times the standard deviation."""
    noise = learned_of_windows(np.random.default_rng(3), turn, share, wrong)
    found = np.array(noise.view(DEPTH)) / [turn, share * DEPTH]
    assert (found > lowest).all() and (found < highest).all(), found


def test_what_views_err_in_their_place_goes_with_the_depth():
    turn, place = learned_of_windows(np.random.default_rng(1), 0.01, 0.02).view(DEPTH)
    farther = learned_of_windows(np.random.default_rng(1), 0.01, 0.02).view(3 * DEPTH)
    assert tuple(farther) == (turn, pytest.approx(3 * place))


@pytest.mark.parametrize(('turn', 'wrong', 'lowest', 'highest'), [
    (0.001, 0.0, 0.8, 1.25), (0.001, 0.4, 0.9, 2.4), (0.02, 0.0, 0.9, 4.0)])
def test_odometry_errs_as_it_differs_from_windows(turn, wrong, lowest, highest):
    """
    About the vertical and ahead, as wheels do, and more where they have gone farther.

    Of the rest of 60 % the median is twice the standard deviation. Windows that err themselves
    make odometry look worse, not better.
    """
    rng, share = np.random.default_rng(5), turn
    noise = learned_of_windows(rng, turn, share)
    rate, along = 0.04, 0.06
    for step in range(MEMORY):
        size = rng.uniform(0.1, 1.5)
        error = np.eye(4)
        error[:3, :3] = Rotation.from_euler(
            'y', rate * np.sqrt(size) * rng.standard_normal()).as_matrix()
        error[0, 3] = along * np.sqrt(size) * rng.standard_normal()
        if step % 5 < 5 * wrong:
            error[0, 3] += 1.0
            error = disturbed(error, rng, 1.0, 0.0)
        true = np.linalg.inv(path(step)) @ path(step + 1)
        seen = motion(rng, step, turn, share * DEPTH)
        noise.compare_odometry([(difference(true @ error, seen), size)], DEPTH)
    for size in (0.2, 2.0):
        found = np.array(noise.odometry(size)) / np.sqrt(size) / [rate, along]
        assert (found > lowest).all() and (found < highest).all(), found


def test_a_few_comparisons_are_no_reason_to_believe_otherwise():
    noise = Noise()
    assert tuple(noise.view(DEPTH)) == (
        pytest.approx(FIRST_RAD), pytest.approx(FIRST_SHARE * DEPTH))
    assert tuple(noise.odometry(4.0)) == (
        pytest.approx(2 * ODOMETRY_RAD), pytest.approx(2 * ODOMETRY_SHARE))
    wild = np.ones(7)
    noise.compare_windows([wild] * 8, DEPTH)
    noise.compare_odometry([(wild, 1.0)] * 8, DEPTH)
    assert noise.view(DEPTH)[0] == pytest.approx(FIRST_RAD)
    assert noise.odometry(1.0)[0] == pytest.approx(ODOMETRY_RAD)


def test_nothing_is_believed_to_be_exact():
    """Not though all agree, nor where odometry seems better than the windows that judge it."""
    noise = Noise()
    exact = np.zeros(7)
    noise.compare_windows([exact] * 300, DEPTH)
    noise.compare_odometry([(exact, 1.0)] * 300, DEPTH)
    assert tuple(noise.view(DEPTH)) == (
        pytest.approx(LEAST * FIRST_RAD), pytest.approx(LEAST * FIRST_SHARE * DEPTH))
    assert tuple(noise.odometry(1.0)) == (
        pytest.approx(LEAST * ODOMETRY_RAD), pytest.approx(LEAST * ODOMETRY_SHARE))


def test_noise_that_changes_is_learned_anew():
    rng = np.random.default_rng(2)
    noise = learned_of_windows(rng, 0.002, 0.002)
    for step in range(MEMORY):
        one, other = (motion(rng, step, 0.02, 0.02 * DEPTH) for _ in range(2))
        noise.compare_windows([difference(one, other)], DEPTH)
    assert tuple(noise.view(DEPTH)) == (
        pytest.approx(0.02, rel=0.15), pytest.approx(0.02 * DEPTH, rel=0.15))
