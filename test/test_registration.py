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

import numpy as np
import open3d as o3d
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.registration import fit_rigid, Pairs, register

TRUE = np.eye(4)
TRUE[:3, :3] = Rotation.from_euler('xyz', [0.4, -0.7, 1.1]).as_matrix()
TRUE[:3, 3] = [1.0, -2.0, 0.5]


def moved(points, transform=TRUE):
    return points @ transform[:3, :3].T + transform[:3, 3]


@pytest.fixture
def random():
    return np.random.default_rng(7)


def pairs_of(source, target, weight=None):
    count = len(source)
    return Pairs(
        source, target, np.ones(count) if weight is None else weight, np.full(count, 0.1))


def angle_deg(transform):
    return np.degrees(Rotation.from_matrix(transform[:3, :3]).magnitude())


def test_a_weighted_fit_equals_scipys(random):
    source = random.normal(size=(50, 3))
    target = moved(source) + random.normal(scale=0.05, size=(50, 3))
    weight = random.uniform(0.1, 2.0, 50)
    found = fit_rigid(source, target, weight)
    centre, goal = (np.average(p, axis=0, weights=weight) for p in (source, target))
    expected, _ = Rotation.align_vectors(target - goal, source - centre, weights=weight)
    np.testing.assert_allclose(found[:3, :3], expected.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(found[:3, 3], goal - expected.apply(centre), atol=1e-12)


def test_a_fit_is_never_a_mirror():
    source = np.eye(3)
    found = fit_rigid(source, source * [1.0, 1.0, -1.0], np.ones(3))
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1.0)


@pytest.mark.parametrize('share', [0.0, 0.2, 0.4])
def test_wrong_pairs_do_not_pull(random, share):
    source = random.uniform(-2, 2, (500, 3))
    target = moved(source) + random.normal(scale=0.01, size=(500, 3))
    wrong = random.random(500) < share
    target[wrong] += random.normal(scale=2.0, size=(wrong.sum(), 3)) + 1.0
    bad = TRUE.copy()
    bad[:3, 3] += 3.0
    found = register(pairs_of(source, target), [bad, TRUE])
    error = found.target_from_source @ np.linalg.inv(TRUE)
    assert angle_deg(error) < 0.1
    assert np.linalg.norm(error[:3, 3]) < 0.005
    assert found.inliers == pytest.approx(1 - share, abs=0.05)
    # What Open3D makes of the same inliers.
    right = np.flatnonzero(~wrong)
    there = o3d.pipelines.registration.TransformationEstimationPointToPoint()
    expected = there.compute_transformation(
        o3d.geometry.PointCloud(o3d.utility.Vector3dVector(source)),
        o3d.geometry.PointCloud(o3d.utility.Vector3dVector(target)),
        o3d.utility.Vector2iVector(np.stack([right, right], axis=1).astype(np.int32)))
    np.testing.assert_allclose(found.target_from_source, expected, atol=2e-3)


def test_a_guess_near_enough_is_refined(random):
    source = random.uniform(-2, 2, (200, 3))
    guess = TRUE.copy()
    guess[:3, 3] += 0.05
    found = register(pairs_of(source, moved(source)), [guess])
    np.testing.assert_allclose(found.target_from_source, TRUE, atol=1e-6)
    assert found.inliers == 1.0
    assert found.residual_m < 1e-6


def test_nothing_that_meets_is_no_inlier_and_an_infinite_residual(random):
    source = random.uniform(-2, 2, (20, 3))
    found = register(pairs_of(source, random.uniform(90, 99, (20, 3))[::-1] * 7), [TRUE])
    assert found.inliers < 0.2


def test_weight_counts_and_not_numbers(random):
    """Hold 300 pairs of one opinion against 3 of another that weigh more."""
    source = random.uniform(-2, 2, (303, 3))
    shift = np.zeros((303, 3))
    shift[:300] = [0.5, 0.0, 0.0]
    weight = np.r_[np.full(300, 1.0), np.full(3, 1000.0)]
    found = register(pairs_of(source, source + shift, weight), [np.eye(4)])
    np.testing.assert_allclose(found.target_from_source[:3, 3], 0.0, atol=5e-3)
