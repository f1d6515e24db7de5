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

"""Covariances of poses are as large as the errors that they stand for."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.config import AlignmentConfig, ScaleConfig
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.estimation.estimator import Estimator, MODEL_SIGMA
from mapanything_ros.core.estimation.noise import FIRST_RAD, FIRST_SHARE
from mapanything_ros.core.estimation.smoother import HORIZON

RGB = np.zeros((20, 20, 3), np.uint8)
K = np.array([[20.0, 0.0, 9.5], [0.0, 20.0, 9.5], [0.0, 0.0, 1.0]])
DEPTH = 3.0
POSITION, ROTATION = slice(0, 3), slice(3, 6)


def pose(number):
    """Give the true pose of a camera that goes about a bend, looking ahead of it."""
    matrix = np.eye(4)
    angle = 0.04 * number
    forward = Rotation.from_euler('z', angle) * Rotation.from_matrix(
        [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    matrix[:3, :3] = forward.as_matrix()
    matrix[:3, 3] = [7.5 * np.sin(angle), 7.5 * (1.0 - np.cos(angle)), 0.1 * np.sin(number)]
    return matrix


def disturbed(matrix, rng, turn, place):
    error = np.eye(4)
    error[:3, :3] = Rotation.from_rotvec(turn * rng.standard_normal(3)).as_matrix()
    error[:3, 3] = place * rng.standard_normal(3)
    return matrix @ error


class Drive:
    """Windows that err by so much in each view and in their scale, and odometry that drifts."""

    def __init__(self, seed, turn, share, odometry=True, trust=False, scale=MODEL_SIGMA):
        self.rng = np.random.default_rng(seed)
        self.turn, self.share, self.scale = turn, share, scale
        self.estimator = Estimator(AlignmentConfig(), ScaleConfig(), trust)
        self.odometry = pose(0) if odometry else None
        self.drifts = not trust
        self.keyframes, self.found = [], {}

    def keyframe(self):
        number = len(self.keyframes)
        if number and self.odometry is not None:
            step = np.linalg.inv(pose(number - 1)) @ pose(number)
            if self.drifts:
                # About the vertical and ahead: y and z of the camera.
                size = np.linalg.norm(step[:3, 3]) + DEPTH * 0.04
                step = step @ np.block([
                    [Rotation.from_euler(
                        'y', 0.02 * np.sqrt(size) * self.rng.standard_normal()).as_matrix(),
                     np.array([[0, 0, 0.03 * np.sqrt(size) * self.rng.standard_normal()]]).T],
                    [np.zeros((1, 3)), np.ones((1, 1))]])
            self.odometry = self.odometry @ step
        return Keyframe(
            number, number, 'camera', RGB, K,
            odom_from_camera=None if self.odometry is None else self.odometry.copy())

    def window(self, first):
        """Place the next window; take down poses and covariances of its new keyframes."""
        while len(self.keyframes) < first + 6:
            self.keyframes.append(self.keyframe())
        scale = np.exp(self.scale * self.rng.standard_normal())
        source = Scale('model') if self.scale == MODEL_SIGMA else Scale('depth', 1.0, self.scale)
        seen = {
            n: disturbed(pose(n), self.rng, self.turn, self.share * DEPTH)
            for n in range(first, first + 6)}
        views = []
        for number, camera in seen.items():
            world_from_camera = np.linalg.inv(seen[first]) @ camera
            world_from_camera[:3, 3] *= scale
            views.append(Prediction(
                number, torch.from_numpy(RGB), torch.full((20, 20), scale * DEPTH),
                torch.ones(20, 20), torch.ones(20, 20, dtype=torch.bool), K, world_from_camera))
        try:
            submap = self.estimator.place(
                WindowPrediction(tuple(views), source), self.keyframes[-6:])
        except AlignmentError:
            return
        for number in submap.new_ids:
            self.found[number] = submap.poses[number], submap.covariances[number]

    def go(self, windows):
        for index in range(windows):
            self.window(3 * index)
        return self

    def errors(self):
        """Return the error (6,) of each keyframe but the first, and its covariance, by id."""
        first = min(self.found)
        map_from_world = self.found[first][0] @ np.linalg.inv(pose(first))
        return {
            number: (error_of(found, map_from_world @ pose(number)), covariance)
            for number, (found, covariance) in self.found.items() if number != first}


def error_of(found, truth):
    """Return the error (6,) of a pose in the order of PoseWithCovariance, along the map's axes."""
    turn = Rotation.from_matrix(found[:3, :3] @ truth[:3, :3].T).as_rotvec()
    return np.concatenate([found[:3, 3] - truth[:3, 3], turn])


def nees(pairs, part):
    """Return the normalised error squared by degree of freedom, 1 on average if all is right."""
    return float(np.mean([
        error[part] @ np.linalg.solve(covariance[part, part], error[part]) / 3.0
        for error, covariance in pairs]))


@pytest.mark.parametrize(('turn', 'share', 'factor'), [
    (FIRST_RAD, FIRST_SHARE, 2.0), (0.003, 0.003, 4.0), (0.01, 0.01, 4.0)],
    ids=['as assumed', 'better', 'worse'])
@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_covariances_are_as_large_as_the_errors(turn, share, factor, odometry):
    """
    Within a factor of two; of four where eight windows are too few to learn all of it.

    With odometry they may be twice as large: it errs about one axis, and is thought to about all.
    """
    pairs, lost = [], 0
    for seed in range(8):
        errors = Drive(seed, turn, share, odometry).go(8).errors()
        lost += 26 - len(errors)
        pairs += [errors[number] for number in errors if number > 8]
    assert lost <= 2, 'of 208, which windows that err more than is thought cost at first'
    for _, covariance in pairs:
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-15)
        assert np.linalg.eigvalsh(covariance).min() > 0
    found = {'position': nees(pairs, POSITION), 'rotation': nees(pairs, ROTATION)}
    least = 1 / factor / (1 + odometry)
    assert all(least < each < factor for each in found.values()), found


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
@pytest.mark.parametrize('error', [0.02, 0.05])
def test_windows_that_err_far_more_than_is_thought_are_not_refused_for_it(error, odometry):
    for seed in range(3):
        drive = Drive(seed, error, error, odometry).go(16)
        assert len(drive.found) >= len(drive.keyframes) - 1


def test_an_unknown_scale_shows_along_the_path_and_grows_with_it():
    """Each window's scale is off by a tenth, and the map's by what is left on average."""
    ahead = []
    for seed in range(6):
        drive = Drive(seed, 0.003, 0.003, odometry=False).go(8)
        for number in (8, 26):
            way = drive.found[number][0][:3, 3] - drive.found[0][0][:3, 3]
            way /= np.linalg.norm(way)
            ahead.append(np.sqrt(way @ drive.found[number][1][POSITION, POSITION] @ way))
    near, far = np.reshape(ahead, (-1, 2)).mean(axis=0)
    assert far > 1.3 * near
    length = np.linalg.norm(pose(26)[:3, 3] - pose(0)[:3, 3])
    assert MODEL_SIGMA / np.sqrt(8) < far / length < MODEL_SIGMA


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_they_grow_along_the_path_also_behind_the_horizon_and_without_a_leap(odometry):
    drive = Drive(1, 0.003, 0.005, odometry).go(2 * HORIZON)
    newest = [drive.found[3 * index + 5][1] for index in range(2 * HORIZON)]
    turns = np.array([np.sqrt(np.trace(each[ROTATION, ROTATION])) for each in newest])
    places = np.array([np.sqrt(np.trace(each[POSITION, POSITION])) for each in newest])
    for sizes, least in ((turns, 1.5), (places, 1.15)):
        quarters = sizes.reshape(4, -1).mean(axis=1)
        assert (quarters[1:] > quarters[:-1]).all()
        assert quarters[3] > least * quarters[1], 'goes on behind the horizon'
    leaps = np.maximum(turns[1:] / turns[:-1], turns[:-1] / turns[1:])[HORIZON // 2:]
    assert leaps.max() < 1.15, leaps
    # The way round the bend comes back to where the map began: places may get known better.
    leaps = np.maximum(places[1:] / places[:-1], places[:-1] / places[1:])[HORIZON // 2:]
    assert leaps.max() < 1.25, leaps


def test_covariances_behind_the_horizon_are_as_large_as_the_errors():
    pairs = []
    for seed in range(4):
        errors = Drive(seed, FIRST_RAD, FIRST_SHARE).go(26).errors()
        pairs += [errors[number] for number in errors if number > 3 * HORIZON + 6]
    found = {'position': nees(pairs, POSITION), 'rotation': nees(pairs, ROTATION)}
    # The keyframes of a drive err alike: four drives are four samples.
    assert all(0.2 < each < 2.5 for each in found.values()), found


def test_odometry_that_is_trusted_lets_no_error_add_up():
    drive = Drive(1, 0.003, 0.005, trust=True).go(2 * HORIZON)
    sizes = [np.trace(drive.found[3 * index + 5][1]) for index in range(2 * HORIZON)]
    assert max(sizes[HORIZON:]) < 1.5 * min(sizes[HORIZON:])
    assert max(sizes[HORIZON:]) < max(sizes[:HORIZON])
    for number, (found, covariance) in drive.found.items():
        error = error_of(found, pose(number))
        assert error @ np.linalg.solve(covariance, error) / 6.0 < 1.0


def test_position_comes_first_along_the_map_s_axes_then_rotation():
    """A view errs in its turn and not its place: far ahead along y is where x is uncertain."""
    drive = Drive(3, 0.01, 0.0003, odometry=False, scale=0.01).go(6)
    number = max(drive.found)
    found, covariance = drive.found[number]
    start = drive.found[0][0][:3, 3]
    way = found[:3, 3] - start
    across = np.array([-way[1], way[0], 0.0]) / np.linalg.norm(way[:2])
    ahead = way / np.linalg.norm(way)
    position = covariance[POSITION, POSITION]
    assert across @ position @ across > 3 * (ahead @ position @ ahead)
    # Metres and radians: what has turned by so much about the vertical is aside by at most the
    # length of the way times that.
    aside, turn = np.sqrt(across @ position @ across), np.sqrt(covariance[5, 5])
    assert 0.3 * turn * np.linalg.norm(way) < aside < turn * np.linalg.norm(way)
    # To the left when it has turned to the left.
    cross = across @ covariance[POSITION, 5]
    assert 0.3 < cross / (aside * turn) <= 1.0
