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
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.places.local_features import LocalFeatures
from mapanything_ros.core.places.loop_verification import verify

SIZE = (320, 240)
K = np.array([[220.0, 0, 159.5], [0, 220.0, 119.5], [0, 0, 1]])
OLDER_FROM_NEWER = np.eye(4)
OLDER_FROM_NEWER[:3, :3] = Rotation.from_euler('xyz', [2, -8, 3], degrees=True).as_matrix()
OLDER_FROM_NEWER[:3, 3] = [0.4, -0.1, 0.2]


def pair(seed, scale=1.0, noise=0.02, count=120):
    """Give what two cameras see of the same points: the newer depth in another unit."""
    rng = np.random.default_rng(seed)
    older = rng.uniform([-1.2, -0.9, 2.5], [1.2, 0.9, 5.0], (count, 3))
    newer = (older - OLDER_FROM_NEWER[:3, 3]) @ OLDER_FROM_NEWER[:3, :3]
    descriptors = rng.integers(0, 255, (count, 128), np.uint8)

    def features(points, unit):
        pixels = (points / points[:, 2:]) @ K[:2].T + rng.normal(0, 0.3, (count, 2))
        depth = unit * points[:, 2:] * (1 + noise * rng.standard_normal((count, 1)))
        rays = np.column_stack([(pixels - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(count)])
        return LocalFeatures(
            pixels.astype(np.float32), (rays * depth).astype(np.float32), descriptors, SIZE, K)

    return features(older, 1.0), features(newer, scale)


@pytest.mark.parametrize('scale', [1.0, 0.2, 7.0])
def test_the_newer_camera_stands_in_the_unit_of_the_older_whatever_the_scale(scale):
    match = verify(*pair(0, scale), 12)
    assert match.inliers > 100
    assert match.scale == pytest.approx(scale, rel=0.01)
    np.testing.assert_allclose(match.older_from_newer, OLDER_FROM_NEWER, atol=0.02)
    # Lengths of the older view alone: the same whatever the newer unit.
    same = verify(*pair(0), 12)
    assert match.sigma_m == pytest.approx(same.sigma_m, rel=0.05)


@pytest.mark.parametrize('noise', [0.005, 0.05])
def test_standard_deviations_are_those_of_the_errors_and_never_much_too_small(noise):
    ratios = []
    for seed in range(30):
        match = verify(*pair(seed, 3.0, noise), 12)
        error = np.linalg.inv(OLDER_FROM_NEWER) @ match.older_from_newer
        turn_rad = Rotation.from_matrix(error[:3, :3]).magnitude()
        ratios.append([
            np.log(match.scale / 3.0) / match.sigma_scale,
            np.linalg.norm(error[:3, 3]) / match.sigma_m / np.sqrt(3),
            turn_rad / match.sigma_rad / np.sqrt(3)])
    assert (np.sqrt(np.mean(np.square(ratios), axis=0)) < 1.2).all()
    spread = [verify(*pair(0, 3.0, each), 12).sigma_scale for each in (0.0, noise)]
    assert spread[0] <= spread[1]
