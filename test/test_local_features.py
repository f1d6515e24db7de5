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
from scenes import INTRINSICS, look, SIZE
import torch

from mapanything_ros.core.datatypes import Keyframe, Prediction
from mapanything_ros.core.places.local_features import extract, MAX_FEATURES, MAX_WIDTH_PX


def keyframe(rgb, intrinsics):
    return Keyframe(3, 3, 'camera', rgb, intrinsics)


def view(truth, mask=None):
    depth_m = torch.from_numpy(truth.depth_m)
    return Prediction(
        3, torch.from_numpy(truth.rgb), depth_m, torch.ones_like(depth_m),
        depth_m > 0 if mask is None else torch.from_numpy(mask), INTRINSICS, np.eye(4))


def expected_points(features, truth):
    """Give the true points at the features' places, whatever size of picture they are on."""
    rays = np.linalg.inv(features.intrinsics) @ np.vstack(
        [features.pixels.T, np.ones(len(features))])
    column, row = np.rint((INTRINSICS @ rays)[:2]).astype(int)
    return (rays * truth.depth_m[row, column]).T


@pytest.mark.parametrize('scale', [1, 2, 4], ids=['same', 'twice', 'reduced'])
def test_features_lie_on_the_surface_whatever_the_size_of_the_picture(scale):
    truth = look('sideways', 0)
    width, height = SIZE
    rgb = cv2.resize(truth.rgb, (scale * width, scale * height), interpolation=cv2.INTER_CUBIC)
    intrinsics = INTRINSICS.copy()
    intrinsics[:2] *= scale
    intrinsics[:2, 2] += 0.5 * scale - 0.5
    features = extract(keyframe(rgb, intrinsics), view(truth))
    assert features.size[0] == min(scale * width, MAX_WIDTH_PX)
    assert 50 < len(features) <= MAX_FEATURES
    np.testing.assert_allclose(features.points_m, expected_points(features, truth), rtol=1e-4)
    # A picture that was made smaller shows the same things at the same places.
    centre = features.intrinsics @ np.linalg.inv(INTRINSICS)
    ratio = features.size[0] / width
    np.testing.assert_allclose(centre[:2, :2], ratio * np.eye(2), atol=1e-9)
    np.testing.assert_allclose(centre[:2, 2], 0.5 * ratio - 0.5, atol=1e-9)


def test_without_intrinsics_the_picture_and_the_camera_are_the_backends():
    truth = look('sideways', 0)
    features = extract(keyframe(np.zeros((7, 9, 3), np.uint8), None), view(truth))
    assert features.size == SIZE
    np.testing.assert_array_equal(features.intrinsics, INTRINSICS)
    np.testing.assert_allclose(features.points_m, expected_points(features, truth), rtol=1e-4)


def test_what_the_mask_drops_has_no_features():
    truth = look('sideways', 0)
    mask = np.zeros(truth.depth_m.shape, bool)
    mask[:, 200:] = True
    features = extract(keyframe(truth.rgb, INTRINSICS), view(truth, mask))
    assert len(features) > 20
    assert features.pixels[:, 0].min() > 199


def test_the_strongest_of_those_with_a_depth_are_kept_strongest_first():
    truth = look('sideways', 0)
    rng = np.random.default_rng(0)
    height, width = truth.depth_m.shape
    noise = rng.integers(0, 255, (height // 3, width // 3, 3), np.uint8)
    rgb = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    # What is strong has no depth, and the rest is weak.
    rgb[:, 160:] = (rgb[:, 160:] // 2) + 60
    mask = truth.depth_m > 0
    mask[:, :160] = False
    features = extract(keyframe(rgb, INTRINSICS), view(truth, mask))
    assert len(features) == MAX_FEATURES
    strength = {
        point.pt: point.response for point in cv2.SIFT_create().detect(
            cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        if mask[round(point.pt[1]), round(point.pt[0])]}
    kept = [strength[tuple(pixel)] for pixel in features.pixels.tolist()]
    assert kept == sorted(kept, reverse=True)
    assert min(kept) >= sorted(strength.values())[-2 * MAX_FEATURES]


def test_a_blank_picture_has_no_features():
    truth = look('sideways', 0)
    features = extract(keyframe(np.zeros_like(truth.rgb), INTRINSICS), view(truth))
    assert len(features) == 0
    assert features.unit_descriptors().shape == (0, 128)


def test_descriptors_are_unit_rows():
    truth = look('sideways', 0)
    rows = extract(keyframe(truth.rgb, INTRINSICS), view(truth)).unit_descriptors()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
