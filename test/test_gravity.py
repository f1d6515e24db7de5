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

"""Gravity from a second at rest, and a map that it levels."""

import math

from helpers import BODY_FROM_OPTICAL, rigid
from imu import angle_deg, CALIBRATED, G, HZ, NOISE, OFFSET, UP
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.config import AlignmentConfig, ScaleConfig
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.estimation.estimator import Estimator
from mapanything_ros.core.estimation.gravity import levelled, RestDetector

STEP_NS = 10**9 // HZ
STILL = np.zeros(3)


def feed(detector, forces, rates=None, start_ns=10**18):
    for index, force in enumerate(forces):
        rate = STILL if rates is None else rates[index]
        detector.add(start_ns + index * STEP_NS, force, rate)
    return detector


def at_rest(seconds=1.1, up=UP, noise=NOISE, seed=0):
    rng = np.random.default_rng(seed)
    return G * up + noise * rng.standard_normal((int(seconds * HZ), 3))


def test_a_second_at_rest_tells_up_to_a_tenth_of_a_degree():
    errors = []
    for seed in range(20):
        up = Rotation.random(random_state=seed).apply(UP)
        rest = feed(RestDetector(), at_rest(up=up, seed=seed)).rest
        assert 10**9 <= rest.end_ns - rest.start_ns < 10**9 + 2 * STEP_NS
        errors.append(angle_deg(rest.up, up))
    assert max(errors) < 0.1


@pytest.mark.parametrize(('offset', 'deg'), [(CALIBRATED, 0.7), (OFFSET, 6.5)])
def test_what_is_left_is_the_offset_of_the_accelerometer(offset, deg):
    assert math.degrees(math.asin(np.linalg.norm(offset) / G)) < deg
    for seed in range(20):
        up = Rotation.random(random_state=seed).apply(UP)
        detector = feed(RestDetector(), at_rest(up=up, seed=seed) + offset)
        assert detector.problem == ''
        assert angle_deg(detector.rest.up, up) < deg


def test_less_than_a_second_tells_nothing_and_is_no_problem():
    detector = feed(RestDetector(), at_rest(0.99))
    assert (detector.rest, detector.problem) == (None, '')


def test_a_sensor_that_is_shaken_is_not_at_rest_until_a_second_later():
    detector = feed(RestDetector(), at_rest(2.0, noise=0.5))
    assert detector.rest is None
    assert 'not at rest' in detector.problem and 'spread by 0.8' in detector.problem
    later = 10**18 + 2 * 10**9
    assert feed(detector, at_rest(0.8), start_ns=later).rest is None
    assert feed(detector, at_rest(0.3), start_ns=later + 8 * 10**8).rest is not None
    assert detector.problem == ''


def test_a_robot_that_begins_to_move_is_no_longer_at_rest():
    detector = feed(RestDetector(), at_rest())
    assert detector.rest is not None
    bumps = at_rest(0.3, noise=2.0)
    assert feed(detector, bumps, start_ns=10**18 + 11 * 10**8).rest is None


def test_a_robot_that_tips_over_slowly_is_not_at_rest_without_a_gyro_too():
    angles = np.radians(15) * np.arange(2 * HZ) / HZ
    tipping = G * np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], axis=1)
    assert 'not at rest' in feed(RestDetector(), tipping).problem


def test_a_robot_that_turns_on_the_spot_is_not_at_rest():
    turning = np.tile([0.0, 0.0, 0.5], (2 * HZ, 1))
    detector = feed(RestDetector(), at_rest(2.0), turning)
    assert detector.rest is None and 'turns by 0.50 rad/s' in detector.problem


@pytest.mark.parametrize(('forces', 'words'), [
    (at_rest() / G, 'count in g'),
    (at_rest() - G * UP, 'with gravity'),
    (at_rest() * 2, 'sends 19.6'),
])
def test_what_is_not_gravity_is_said(forces, words):
    detector = feed(RestDetector(), forces)
    assert detector.rest is None and words in detector.problem


@pytest.mark.parametrize('rest', [at_rest(3.0)])
def test_a_number_that_is_not_finite_or_a_gap_begins_the_second_anew(rest):
    for bad in (np.nan, np.inf):
        detector = feed(RestDetector(), rest)
        broken = rest[0].copy()
        broken[1] = bad
        detector.add(10**18 + 3 * 10**9, broken, STILL)
        assert detector.rest is None and 'not finite' in detector.problem
    for stamp_ns in (10**18 + 4 * 10**9, 10**18):
        detector = feed(RestDetector(), rest)
        detector.add(stamp_ns, rest[0], STILL)
        assert detector.rest is None and 'gap' in detector.problem


def test_a_levelled_camera_looks_along_x_with_up_along_z():
    rng = np.random.default_rng(3)
    for _ in range(50):
        heading, pitch, roll = rng.uniform([-180, -70, -180], [180, 70, 180])
        world_from_body = rigid(
            Rotation.from_euler('ZYX', [heading, pitch, roll], degrees=True), [0, 0, 0])
        start = rigid(Rotation.random(random_state=1), [0.2, 0.1, 0.5])
        up_in_camera = (world_from_body @ start)[:3, :3].T @ UP
        map_from_camera = levelled(start, up_in_camera)
        map_from_body = map_from_camera @ np.linalg.inv(start)
        assert np.allclose(map_from_camera[:3, :3] @ up_in_camera, UP)
        assert np.allclose(map_from_body[:3, 3], 0), 'the body stays at the origin'
        assert map_from_body[0, 0] > 0 and abs(map_from_body[1, 0]) < 1e-12, 'x is ahead'
        assert np.isclose(np.linalg.det(map_from_body[:3, :3]), 1)


def test_a_camera_that_looks_straight_down_has_the_top_of_its_image_ahead():
    for sign in (1, -1):
        map_from_camera = levelled(BODY_FROM_OPTICAL, np.array([0.0, 0.0, -1.0 * sign]))
        assert np.allclose(map_from_camera[:3, 2], [0, 0, -sign]), 'it looks down (up)'
        assert np.allclose(map_from_camera[:3, 1], [-sign, 0, 0]), 'the image has its top ahead'


# The map


def tilted_pose(number):
    """Return ``world_from_camera`` of a camera that is never level; the world has z up."""
    turn = Rotation.from_euler('xyz', [0.3 + 0.1 * number, 0.4, -0.2 * number])
    return rigid(turn, [0.3 * number, 0.1 * number, 1.0]) @ BODY_FROM_OPTICAL


def place(estimator, numbers, knows_up=(), scale='model', odometry=False):
    """Place a window of exact views, of which some know which way is up."""
    blank = torch.zeros(20, 20, 3, dtype=torch.uint8)
    k = np.array([[20.0, 0.0, 9.5], [0.0, 20.0, 9.5], [0.0, 0.0, 1.0]])
    first_from_world = np.linalg.inv(tilted_pose(numbers[0]))
    views = tuple(
        Prediction(
            n, blank, torch.full((20, 20), 2.0 + n), torch.ones(20, 20),
            torch.ones(20, 20, dtype=torch.bool), k, first_from_world @ tilted_pose(n))
        for n in numbers)
    keyframes = [
        Keyframe(
            n, n, 'camera', blank.numpy(), k,
            odom_from_camera=tilted_pose(n) if odometry else None,
            up_in_camera=tilted_pose(n)[:3, :3].T @ UP if n in knows_up else None)
        for n in numbers]
    submap = estimator.place(WindowPrediction(views, Scale(scale)), keyframes)
    return [
        angle_deg(submap.poses[n][:3, :3] @ tilted_pose(n)[:3, :3].T @ UP)
        for n in numbers]


@pytest.fixture
def estimator():
    return Estimator(AlignmentConfig(), ScaleConfig(), False)


@pytest.mark.parametrize('knows', [0, 1, 2])
def test_any_keyframe_of_the_first_window_levels_the_map_for_good(estimator, knows):
    assert max(place(estimator, [0, 1, 2], {knows})) < 1e-5
    assert max(place(estimator, [2, 3, 4])) < 1e-5
    assert estimator.levelled


def test_without_gravity_the_map_is_as_the_camera_was(estimator):
    assert min(place(estimator, [0, 1, 2])) > 10
    assert not estimator.levelled
    # Too late: the map is there.
    assert min(place(estimator, [2, 3, 4], {3})) > 10


def test_a_map_that_starts_again_in_metres_stays_level(estimator):
    place(estimator, [0, 1, 2], {0}, scale='none')
    assert max(place(estimator, [2, 3, 4])) < 1e-5
    assert estimator.segments == 2 and estimator.levelled


def test_a_map_on_odometry_is_as_level_as_that(estimator):
    place(estimator, [0, 1, 2], {0}, odometry=True)
    assert not estimator.levelled
    np.testing.assert_allclose(estimator.map_from_odom, np.eye(4), atol=1e-9)
