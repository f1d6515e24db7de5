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

"""The rendered room of the benchmarks: what is seen from two places is the same surface."""

import cv2
import numpy as np
import pytest

from benchmarks import scene
from benchmarks.box_room import BoxRoom, SIZE_M


@pytest.mark.parametrize('index', [0, 5, 11, 20])
def test_a_pixel_has_the_colour_that_its_point_has_from_elsewhere(index):
    width, height = scene.PHOTO
    k = scene.intrinsics(scene.PHOTO)
    (rgb, depth_m), (other_rgb, other_m) = (
        scene._view(number, scene.PHOTO) for number in (index, index + 1))
    v, u = np.mgrid[:height, :width]
    points = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(k).T * depth_m[..., None]
    other_from_camera = np.linalg.inv(scene.pose(index + 1)) @ scene.pose(index)
    moved = points @ other_from_camera[:3, :3].T + other_from_camera[:3, 3]
    seen = moved @ k.T
    x, y = (seen[..., axis] / seen[..., 2] for axis in (0, 1))
    found_m = cv2.remap(
        other_m, x.astype(np.float32), y.astype(np.float32), cv2.INTER_NEAREST)
    same = (moved[..., 2] > 0) & (np.abs(found_m - moved[..., 2]) < 0.02)
    assert same.mean() > 0.3
    colour = cv2.remap(
        other_rgb, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    difference = np.abs(colour[same].astype(float) - rgb[same])
    assert np.median(difference) < 6, 'of 255; the textures are as fine as pixels'
    assert rgb.std() > 25


def test_every_pixel_shows_something_in_the_room():
    _, depth_m = scene._view(3, scene.PHOTO)
    pose, k = scene.pose(3), scene.intrinsics(scene.PHOTO)
    v, u = np.mgrid[:480, :640]
    points = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(k).T * depth_m[..., None]
    world = points @ pose[:3, :3].T + pose[:3, 3]
    assert (depth_m > 0).all()
    assert (world > -1e-3).all() and (world < np.array(SIZE_M) + 1e-3).all()


def test_two_rooms_are_alike_only_with_one_seed():
    views = [BoxRoom(seed).render(
        scene.pose(0), scene.intrinsics((160, 120)), 160, 120)[0] for seed in (0, 0, 1)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])
