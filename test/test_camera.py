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

from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.camera import Camera

K = np.array([[300.0, 0, 160.5], [0, 290, 118], [0, 0, 1]])
D = np.array([-0.2, 0.05, 0.001, -0.002, 0.01])


def projection(k):
    return np.hstack([k, np.zeros((3, 1))])


def camera(d=D, p=None, model='plumb_bob', k=K):
    return Camera(320, 240, k, d, projection(k) if p is None else p, model)


def grid():
    """Give an image whose two channels are the pixel's own coordinates, smooth everywhere."""
    v, u = np.mgrid[:240, :320].astype(np.float32)
    return np.dstack([u, v])


@pytest.mark.parametrize(('d', 'model'), [
    (D, 'plumb_bob'),
    (np.array([0.1, -0.05, 0.001, 0.002, 0.01, 0.2, 0.01, 0.001]), 'rational_polynomial'),
    (np.array([0.02, -0.01, 0.003, -0.001]), 'equidistant'),
])
@pytest.mark.parametrize('focal', [300.0, 260.0])
def test_a_rectified_pixel_shows_what_the_lens_put_on_it(d, model, focal):
    k = np.array([[focal, 0, 150.0], [0, focal, 110], [0, 0, 1]])
    where = camera(d, projection(k), model).rectify(grid())
    for u, v in [(150, 110), (40, 50), (280, 200)]:
        ray = np.linalg.inv(k) @ [u, v, 1]
        project = cv2.fisheye.projectPoints if model == 'equidistant' else cv2.projectPoints
        pixel = project(ray.reshape(1, 1, 3), np.zeros(3), np.zeros(3), K, d)[0].ravel()
        np.testing.assert_allclose(where[v, u], pixel, atol=0.05)


def test_depth_is_never_averaged_across_an_edge():
    depth_m = np.where(np.arange(320) < 150, 1.0, 5.0).astype(np.float32) * np.ones((240, 1))
    assert set(np.unique(camera().rectify_depth(depth_m.astype(np.float32)))) <= {0.0, 1.0, 5.0}


def test_an_image_without_distortion_is_not_touched():
    image = np.zeros((240, 320, 3), np.uint8)
    assert camera(np.zeros(5)).rectify(image) is image


def test_intrinsics_come_from_p_where_it_is_filled_in():
    p = projection(K * [[0.9], [0.9], [1.0]])
    np.testing.assert_array_equal(camera(p=p).rectified_k, p[:, :3])
    np.testing.assert_array_equal(camera(p=np.zeros((3, 4))).rectified_k, K)


@pytest.mark.parametrize(('change', 'text'), [
    ({'k': np.zeros((3, 3))}, 'not calibrated'),
    ({'d': np.array([np.nan] * 5)}, 'not finite'),
    ({'model': 'mystery'}, "distortion model 'mystery'"),
])
def test_a_calibration_that_cannot_be_used_is_refused(change, text):
    with pytest.raises(InputError, match=text):
        camera(**change)


def test_an_image_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(InputError, match='the image is 64x48 but camera_info is for 320x240'):
        camera().rectify(np.zeros((48, 64, 3), np.uint8))
