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

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.evaluate import buildings
from benchmarks.evaluate.odometry import Drift, drifted, jumping, slipping, stretching
from benchmarks.evaluate.walks import walk
from benchmarks.evaluate.worlds import BUILDINGS, INTRINSICS, SIZE, world


@pytest.fixture(scope='module', params=BUILDINGS)
def place(request):
    """Give the first metres of a rendered world."""
    return world(request.param, images=6)


@pytest.fixture(scope='module', params=BUILDINGS)
def building(request):
    return BUILDINGS[request.param]()


def in_world(place, index, pixels):
    """Give the (N,3) points that pixels (N,2) of an image truly show."""
    depth_m = place.render(index)[1][pixels[:, 1], pixels[:, 0]].astype(float)
    k = place.intrinsics
    rays = np.c_[(pixels - k[:2, 2]) / k[[0, 1], [0, 1]], np.ones(len(pixels))]
    pose = place.world_from_camera[index]
    return rays * depth_m[:, None] @ pose[:3, :3].T + pose[:3, 3]


def in_image(place, index, points):
    camera_from_world = np.linalg.inv(place.world_from_camera[index])
    local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    return local[:, :2] / local[:, 2:] * place.intrinsics[[0, 1], [0, 1]] + place.intrinsics[:2, 2]


def test_depth_lies_on_the_true_surface(place):
    height, width = place.render(0)[1].shape
    assert (width, height) == SIZE == place.size
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2).reshape(-1, 2)
    for index in (0, 5):
        assert (place.render(index)[1] > 0).all()
        assert place.distance(in_world(place, index, pixels)).max() < 1e-3


def test_points_beside_the_surface_are_as_far_as_they_were_moved(place):
    points = in_world(place, 0, np.array([[80, 60], [30, 60], [120, 30]]))
    eye = place.world_from_camera[0, :3, 3]
    nearer = place.distance(points + 0.1 * (eye - points))
    assert (nearer > 0.01).all()
    assert (nearer <= 0.1 * np.linalg.norm(eye - points, axis=1) + 1e-3).all()


def test_pictures_hold_features_that_match_where_geometry_says(place):
    sift = cv2.SIFT_create()
    (here, words), (there, others) = (
        sift.detectAndCompute(place.render(index)[0], None) for index in (0, 3))
    matches = cv2.BFMatcher(crossCheck=True).match(words, others)
    assert len(matches) > 50
    pixels = np.array([here[match.queryIdx].pt for match in matches])
    found = np.array([there[match.trainIdx].pt for match in matches])
    expected = in_image(place, 3, in_world(place, 0, np.rint(pixels).astype(int)))
    still_seen = ((expected >= 0) & (expected < place.size)).all(axis=1)
    right = np.linalg.norm(expected - found, axis=1)[still_seen] < 1.5
    assert right.sum() > 40
    assert right.mean() > 0.6


def test_a_walk_is_60_m_of_keyframes_and_comes_back_to_where_it_was(building):
    poses = building.world_from_camera
    steps_m = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert len(poses) > 300 and steps_m.sum() > 60
    np.testing.assert_allclose(steps_m, 0.2, atol=0.01)
    late = poses[250:]
    near = np.linalg.norm(late[:, None, :3, 3] - poses[None, :50, :3, 3], axis=2) < 0.3
    alike = np.einsum('ni,mi->nm', late[:, :3, 2], poses[:50, :3, 2]) > np.cos(np.radians(15))
    assert (near & alike).any(axis=1).sum() > 20


def test_a_walk_keeps_clear_of_walls_and_looks_ahead_with_the_horizon_level(building):
    poses = building.world_from_camera
    assert building.distance(poses[:, :3, 3]).min() > 0.3
    ahead = np.diff(poses[:, :3, 3], axis=0)
    cosines = np.einsum('ni,ni->n', ahead, poses[:-1, :3, 2]) / np.linalg.norm(ahead, axis=1)
    assert cosines.min() > np.cos(np.radians(30))
    assert (poses[:, 2, 1] < np.cos(np.radians(170))).all()


def test_walls_do_not_look_alike_on_the_four_sides_of_the_corridor():
    building = buildings.corridor()
    x, y = buildings.OUTER_M
    sides = [(4.0, 1.0, 0), (x - 1, 4.0, 90), (x - 4, y - 1, 180), (1.0, y - 4, 270)]
    means = []
    for place_x, place_y, yaw in sides:
        pose = walk([(place_x, place_y), (place_x + np.cos(np.radians(yaw)),
                                          place_y + np.sin(np.radians(yaw)))], 0.9)[0]
        scene = buildings.Building(building.scene, pose[None])
        means.append(scene.render(0, INTRINSICS, *SIZE).rgb[:, :60].mean(axis=(0, 1)))
    gaps = [np.abs(a - b).max() for i, a in enumerate(means) for b in means[:i]]
    assert min(gaps) > 20


def test_waypoints_that_end_too_soon_are_refused():
    with pytest.raises(ValueError, match=r'the waypoints lead 2\.0 m, the walk takes 3\.0 m'):
        walk([(0, 0), (2, 0)], 3.0)


def test_odometry_goes_1_to_2_percent_astray_and_knows_which_way_is_down(building):
    truth = building.world_from_camera
    errors = []
    for seed in range(10):
        odometry = drifted(truth, Drift(), seed)
        moved = truth[0] @ np.linalg.inv(odometry[0]) @ odometry
        errors.append(np.sqrt(((moved - truth)[:, :3, 3] ** 2).sum(axis=1).mean()) / 61)
        np.testing.assert_allclose(odometry[:, 2, :3], truth[:, 2, :3], atol=1e-12)
        np.testing.assert_allclose(odometry[:, :2, 3][0], 0, atol=1e-12)
        assert odometry[0, 2, 3] == pytest.approx(truth[0, 2, 3])
    assert 0.005 < np.median(errors) < 0.02


def test_odometry_without_drift_is_the_truth_from_another_origin(building):
    truth = building.world_from_camera
    odometry = drifted(truth, Drift(0, 0, 0, 0), seed=1)
    odom_from_world = odometry[0] @ np.linalg.inv(truth[0])
    np.testing.assert_allclose(odometry, odom_from_world @ truth, atol=1e-9)
    level = Rotation.from_matrix(odom_from_world[:3, :3]).as_rotvec()
    np.testing.assert_allclose(level[:2], 0, atol=1e-12)


def lengths_m(poses):
    return np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)


def test_wheels_that_slip_report_other_lengths_over_a_few_stretches(building):
    truth = building.world_from_camera
    odometry = slipping(truth, np.random.default_rng(1))
    np.testing.assert_array_equal(odometry[:, :3, :3], truth[:, :3, :3])
    np.testing.assert_array_equal(odometry[0], truth[0])
    factors = lengths_m(odometry) / lengths_m(truth)
    assert set(np.round(factors, 9)) == {0.5, 1.0, 1.5}
    slipped = np.abs(factors - 1) > 0.1
    assert slipped.mean() == pytest.approx(4 * 0.04, rel=0.1)
    # Two stretches of each kind, apart.
    assert (np.diff(np.flatnonzero(slipped)) > 1).sum() == 3
    other = slipping(truth, np.random.default_rng(2))
    assert np.abs(other - odometry).max() > 0.1


def test_lengths_of_worn_tyres_wander_slowly(building):
    truth = building.world_from_camera
    factors = np.array([
        lengths_m(stretching(truth, np.random.default_rng(seed))) / lengths_m(truth)
        for seed in range(100)])
    logs = np.log(factors)
    assert np.abs(np.diff(logs, axis=1)).max() < 0.01
    assert logs[:, -1].std() == pytest.approx(0.01 * np.sqrt(6.1), rel=0.2)


def test_odometry_that_jumps_is_right_again_from_there_on_and_level(building):
    truth = building.world_from_camera
    odometry = jumping(truth, np.random.default_rng(1))
    np.testing.assert_allclose(odometry[:, 2], truth[:, 2], atol=1e-9)
    steps, true_steps = (np.linalg.inv(poses[:-1]) @ poses[1:] for poses in (odometry, truth))
    jumps = np.flatnonzero(np.abs(steps - true_steps).max(axis=(1, 2)) > 1e-9)
    assert len(jumps) == 2
    for step in jumps:
        off = np.linalg.inv(true_steps[step]) @ steps[step]
        turned = Rotation.from_matrix(off[:3, :3]).magnitude()
        assert np.degrees(turned) == pytest.approx(20.0)
        assert np.linalg.norm(
            steps[step, :3, 3] - true_steps[step, :3, 3]) == pytest.approx(0.5)
