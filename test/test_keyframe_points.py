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
import torch

from mapanything_ros.core.datatypes import Prediction
from mapanything_ros.core.map.keyframe_points import FULL_WEIGHT, MAX_WEIGHT, reduce_view

HEIGHT, WIDTH = 30, 40
K = np.array([[40.0, 0, 19.5], [0, 40, 14.5], [0, 0, 1]])
MANY = 10**6


def view(confidence=1.0):
    """Give a keyframe that sees a slanted wall, 1 to 4 m away."""
    depth_m = torch.linspace(1, 4, WIDTH).expand(HEIGHT, WIDTH)
    rgb = torch.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3) % 256
    return Prediction(
        0, rgb.byte(), depth_m, torch.full((HEIGHT, WIDTH), confidence),
        torch.ones(HEIGHT, WIDTH, dtype=torch.bool), K, np.eye(4))


def test_where_voxels_are_small_every_pixel_stays_as_it_is():
    seen = view(confidence=0.5)
    points = reduce_view(seen, 1e-4, 0.0, MANY)
    pixels = seen.points_in_camera().reshape(-1, 3).numpy()
    order, expected = (np.lexsort(xyz.round(3).T) for xyz in (points.xyz, pixels))
    np.testing.assert_allclose(points.xyz[order], pixels[expected], atol=1e-6)
    np.testing.assert_array_equal(
        points.rgb[order], seen.rgb.reshape(-1, 3).numpy()[expected])
    assert set(points.weight) == {FULL_WEIGHT // 2}


def test_averaging_keeps_the_weight_and_leaves_one_point_a_voxel():
    points = reduce_view(view(confidence=0.25), 0.2, 0.0, MANY)
    assert points.weight.sum() == HEIGHT * WIDTH * FULL_WEIGHT // 4
    assert len(np.unique(np.floor(points.xyz / 0.2), axis=0)) == len(points) < HEIGHT * WIDTH / 3


@pytest.mark.parametrize(('confidence', 'weight'), [(0.0, 300), (1.0, MAX_WEIGHT)])
def test_a_voxel_never_weighs_nothing_nor_more_than_is_told(confidence, weight):
    # The camera is in the corner of four voxels, each of which takes 300 pixels.
    assert reduce_view(view(confidence), 100.0, 0.0, MANY).weight.tolist() == [weight] * 4


def test_scale_multiplies_the_depth_and_some_voxels_are_some_points():
    points = reduce_view(view(), 0.2, 0.0, MANY)
    double = np.diag([2.0, 2.0, 2.0, 1.0])
    key, sums = points.voxel_sums(double, 0.4)
    plain_key, plain_sums = points.voxel_sums(np.eye(4), 0.2)
    np.testing.assert_array_equal(key, plain_key)
    np.testing.assert_array_equal(sums, plain_sums)
    part = points.within(key[::3], double, 0.4)
    assert 0 < len(part) < len(points)
    for found, expected in zip(
            part.voxel_sums(double, 0.4), (key[::3], sums[::3]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_no_point_is_out_of_reach_and_none_beyond_the_radius():
    points = reduce_view(view(), 0.01, 0.0, MANY)
    distance = np.linalg.norm(points.xyz, axis=1)
    assert points.reach_m == distance.max() > 4.0
    near = reduce_view(view(), 0.01, 2.5, MANY)
    assert near.reach_m <= 2.5
    assert abs(len(near) - (distance <= 2.5).sum()) < 0.02 * len(near)
