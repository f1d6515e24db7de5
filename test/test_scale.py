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

import math

import numpy as np
import pytest
import torch

from mapanything_ros.core.datatypes import Keyframe, Prediction
from mapanything_ros.core.estimation.scale import (
    depth_evidence,
    evidence_of_ratios,
    evidence_of_views,
    odometry_evidence,
    SAMPLES_A_VIEW,
)

K = np.array([[40.0, 0.0, 31.5], [0.0, 40.0, 23.5], [0.0, 0.0, 1.0]])
SHAPE = (48, 64)


def at(x_m, y_m=0.0):
    pose = np.eye(4)
    pose[:2, 3] = x_m, y_m
    return pose


def view(number, position, depth_m=None, k=K):
    depth_m = np.full(SHAPE, 2.0) if depth_m is None else depth_m
    return Prediction(
        number, torch.zeros((*depth_m.shape, 3), dtype=torch.uint8),
        torch.tensor(depth_m, dtype=torch.float32), torch.ones(depth_m.shape),
        torch.ones(depth_m.shape, dtype=torch.bool), k, position)


def keyframe(number, odometry=None, depth_m=None, k=K):
    return Keyframe(
        number, number, 'camera', np.zeros((2, 2, 3), np.uint8), k,
        None if depth_m is None else depth_m.astype(np.float32), odometry)


def test_odometry_says_how_much_longer_the_way_was():
    path = [(0.0, 0.0), (0.3, 0.1), (0.6, 0.0), (0.9, 0.2)]
    views = [view(i, at(0.5 * x, 0.5 * y)) for i, (x, y) in enumerate(path)]
    # Turned and shifted: distances do not care.
    world = np.array([[0.0, -1, 0, 5], [1, 0, 0, 7], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = odometry_evidence(
        views, {i: keyframe(i, world @ at(*p)) for i, p in enumerate(path)})
    assert found.factor == pytest.approx(2.0)
    assert found.residual == pytest.approx(0.0, abs=1e-12)
    assert found.source == 'odometry'


def test_one_wrong_pose_hardly_moves_the_scale_and_shows_in_the_residual():
    exact = [view(i, at(0.3 * i)) for i in range(8)]
    wrong = [*exact[:7], view(7, at(5.0))]
    odometry = {i: keyframe(i, at(0.33 * i)) for i in range(8)}
    found = odometry_evidence(wrong, odometry)
    assert found.factor == pytest.approx(1.1, rel=0.03)
    assert found.sigma >= odometry_evidence(exact, odometry).sigma


@pytest.mark.parametrize('path', [[0.0, 0.01, 0.02, 0.03], [0.0, 1.0]], ids=['parked', 'two'])
def test_a_robot_that_hardly_moved_says_nothing(path):
    views = [view(i, at(x)) for i, x in enumerate(path)]
    assert odometry_evidence(views, {i: keyframe(i, at(x)) for i, x in enumerate(path)}) is None


def test_views_without_odometry_say_nothing():
    assert odometry_evidence(
        [view(i, at(i)) for i in range(4)], {i: keyframe(i) for i in range(4)}) is None


def test_depth_is_compared_at_the_pixel_that_looks_the_same_way():
    """The view is a crop of the sensor's image, at half its size."""
    height, width = 120, 160
    sensor_k = np.array([[80.0, 0, 79.0], [0, 80, 59.0], [0, 0, 1]])
    v, u = np.mgrid[:height, :width].astype(float)
    slope = 2.0 + 0.8 * (u - 79.0) / 80 + 0.3 * (v - 59.0) / 80
    v, u = np.mgrid[:SHAPE[0], :SHAPE[1]].astype(float)
    seen = 2.0 + 0.8 * (u - 31.5) / 40 + 0.3 * (v - 23.5) / 40
    slope[:40] = 0.0
    found = depth_evidence(
        [view(0, np.eye(4), seen / 1.25)], {0: keyframe(0, None, slope, sensor_k)})
    assert found.factor == pytest.approx(1.25, rel=1e-5)
    assert found.residual < 1e-5


def test_more_pixels_of_a_picture_make_it_no_surer():
    """Errors of a picture's depth go together: smooth, or of the pose that it was swept at."""
    random = np.random.default_rng(2)
    few, many = (evidence_of_views('depth', [
        1 + random.normal(0, 0.03, count) for _ in range(6)]) for count in (1_000, 30_000))
    assert many.sigma == pytest.approx(few.sigma, rel=0.1)
    assert many.sigma == pytest.approx(0.03 / math.sqrt(6 * SAMPLES_A_VIEW), rel=0.1)


def test_hardly_any_depth_says_nothing():
    depth_m = np.zeros(SHAPE)
    depth_m[:1] = 2.0
    assert depth_evidence([view(0, np.eye(4))], {0: keyframe(0, None, depth_m)}) is None
    assert depth_evidence([view(0, np.eye(4))], {0: keyframe(0)}) is None


def test_evidence_is_as_sure_as_its_spread_and_number_say():
    random = np.random.default_rng(3)
    few, many = (evidence_of_ratios(
        'depth', np.exp(random.normal(0.2, 0.1, n)), n) for n in (30, 300))
    assert few.factor == pytest.approx(math.exp(0.2), rel=0.06)
    assert many.sigma == pytest.approx(0.1 / math.sqrt(300), rel=0.25)
    assert few.sigma == pytest.approx(0.1 / math.sqrt(30), rel=0.5)
