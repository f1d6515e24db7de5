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

"""The first guess of where a window is: right where most of its views are."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.estimation.registration import register
from mapanything_ros.core.estimation.similarity import difference, scale_of, stretched

DEPTH = 3.0


def pose(number):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', [0.2, 0.1 * number, -0.1]).as_matrix()
    matrix[:3, 3] = [0.3 * number, 0.1 * np.sin(number), 1.0]
    return matrix


def moved(number, x_m=0.0, yaw_deg=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('z', yaw_deg, degrees=True).as_matrix()
    matrix[0, 3] = x_m
    return pose(number) @ matrix


def disturbed(pose, rng, turn, place):
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(turn * rng.standard_normal(3)).as_matrix()
    error[:3, 3] = place * rng.standard_normal(3)
    return pose @ error


def truth(scale):
    """Return a ``map_from_world``."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', [0.4, -0.7, 1.1]).as_matrix()
    matrix[:3, 3] = [1.0, -2.0, 0.5]
    return stretched(matrix, scale)


def views_of(poses, map_from_world):
    """Return how a window sees poses, rigid and in its own unit."""
    world_from_map = np.linalg.inv(map_from_world)
    return {
        number: stretched(world_from_map @ pose, scale_of(map_from_world))
        for number, pose in poses.items()}


@pytest.mark.parametrize('scale', [1.0, 0.04, 25.0])
def test_a_window_is_found_where_it_is_whatever_its_unit(scale):
    poses = {number: pose(number) for number in range(5)}
    # The guess of the scale is not asked.
    found = register(views_of(poses, truth(scale)), poses, DEPTH / scale, None)
    np.testing.assert_allclose(found, truth(scale), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('wrong', [
    {2: moved(2, x_m=3.0)}, {0: moved(0, yaw_deg=90.0)},
    {0: moved(0, x_m=-9.0), 5: moved(5, x_m=9.0, yaw_deg=180.0)}], ids=['shift', 'turn', 'two'])
def test_wrong_views_do_not_pull(wrong):
    views = views_of({number: pose(number) for number in range(6)} | wrong, truth(2.0))
    poses = {number: pose(number) for number in range(6)}
    found = register(views, poses, DEPTH / 2.0, None)
    np.testing.assert_allclose(found, truth(2.0), rtol=1e-9, atol=1e-9)


def test_views_that_err_a_little_give_a_guess_that_errs_a_little():
    """A quarter of a degree and 2 cm each: the guess is within two degrees and 10 cm."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        seen = {
            number: disturbed(pose(number), rng, np.radians(0.25), 0.02) for number in range(6)}
        poses = {number: pose(number) for number in range(6)}
        error = difference(truth(2.0), register(
            views_of(seen, truth(2.0)), poses, DEPTH / 2.0, None))
        assert np.degrees(np.linalg.norm(error[:3])) < 2.0
        # In the window's unit, at its origin, 2 m from the cameras.
        assert np.linalg.norm(error[3:6]) < 0.1 and abs(error[6]) < 0.1, error


def test_only_what_both_know_is_compared():
    poses = {number: pose(number) for number in (2, 3, 7)}
    views = views_of({number: pose(number) for number in (1, 2, 3, 4)}, truth(2.0))
    np.testing.assert_allclose(
        register(views, poses, DEPTH / 2.0, None), truth(2.0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('numbers', [[3], [3, 4, 5]], ids=['alone', 'turning'])
def test_where_no_distance_tells_the_scale_the_given_one_is_taken(numbers):
    poses = {number: pose(number) for number in numbers}
    for place in poses.values():
        place[:3, 3] = pose(3)[:3, 3]
    views = views_of(poses, truth(2.0))
    found = register(views, poses, DEPTH / 2.0, None, 2.0)
    np.testing.assert_allclose(found, truth(2.0), rtol=1e-9, atol=1e-9)
    # The camera stays where it is, and what it sees is three times as large.
    larger = register(views, poses, DEPTH / 2.0, None, 6.0)
    assert scale_of(larger) == pytest.approx(6.0)
    for number in numbers:
        np.testing.assert_allclose(
            stretched(larger @ stretched(views[number], 1.0), 1 / 6.0)[:3, :3],
            poses[number][:3, :3], atol=1e-9)


def test_short_distances_say_nothing_about_scale():
    """Two centimetres, of which noise is one, where things are 3 m away."""
    poses = {0: pose(0), 1: moved(0, x_m=0.02)}
    views = {0: pose(0), 1: moved(0, x_m=0.04)}
    assert scale_of(register(views, poses, DEPTH, None, 1.1)) == pytest.approx(1.1)


def test_the_scale_of_poses_does_not_matter():
    """A pose has odometry's unit; where its camera is, and how turned, is all that is asked."""
    poses = {number: stretched(pose(number), 0.5 + number) for number in range(4)}
    views = views_of({number: pose(number) for number in range(4)}, truth(2.0))
    np.testing.assert_allclose(
        register(views, poses, DEPTH / 2.0, None), truth(2.0), rtol=1e-9, atol=1e-9)


def test_a_scale_that_is_known_is_kept_whatever_distances_say():
    poses = {number: pose(number) for number in range(4)}
    views = views_of(poses, truth(2.0))
    assert scale_of(register(views, poses, DEPTH / 2.0, 3.0)) == pytest.approx(3.0)
