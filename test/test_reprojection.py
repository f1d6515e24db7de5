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

"""Depth in another camera is what that camera sees, as exact depth of a rendered room tells."""

import math

from helpers import BODY_FROM_OPTICAL, rigid
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.box_room import BoxRoom
from mapanything_ros.core.frames.reprojection import reproject_depth

PLACES = [([0.8, 0.8, 1.3], 40), ([2.5, 0.6, 1.2], 80), ([4.0, 0.9, 1.4], 140)]
# As in a RealSense: 15 mm apart and turned a bit; and two cameras that somebody has bolted on.
SIDE_BY_SIDE = rigid(
    Rotation.from_euler('xyz', [0.3, -0.4, 0.2], degrees=True), [0.015, 0.0004, 0.0002])
APART = rigid(Rotation.from_euler('xyz', [1, -2, 1], degrees=True), [0.06, 0.01, 0.02])
ON_ITS_SIDE = rigid(Rotation.from_euler('z', 90, degrees=True), [0.05, 0.0, 0.0])


def camera(focal_px: float, width: int, height: int) -> tuple[np.ndarray, int, int]:
    return np.array(
        [[focal_px, 0, width / 2 - 0.5], [0, 1.01 * focal_px, height / 2 - 0.2], [0, 0, 1.0]]
    ), width, height


VGA, SMALL, TINY = camera(600, 640, 480), camera(300, 320, 240), camera(150, 160, 120)
# Depth and colour of a RealSense D435 at half their sizes.
DEPTH, COLOR = camera(210, 424, 240), camera(460, 640, 360)


@pytest.fixture(scope='module')
def room() -> BoxRoom:
    return BoxRoom()


def looked_from(position: list[float], heading_deg: float) -> np.ndarray:
    turn = Rotation.from_euler('ZYX', [heading_deg, 14, 0], degrees=True)
    return rigid(turn, position) @ BODY_FROM_OPTICAL


def cracks(depth_m: np.ndarray) -> float:
    """Return the share of unknown pixels that lie between two known ones."""
    known = np.pad(depth_m > 0, 1)
    between = known[1:-1, :-2] & known[1:-1, 2:] | known[:-2, 1:-1] & known[2:, 1:-1]
    return float((between & (depth_m == 0)).mean())


@pytest.mark.parametrize(('own', 'target', 'image_from_depth', 'known', 'median'), [
    (SMALL, SMALL, SIDE_BY_SIDE, 0.98, 0.001), (DEPTH, COLOR, SIDE_BY_SIDE, 0.99, 0.0015),
    (TINY, VGA, APART, 0.93, 0.002), (VGA, SMALL, APART, 0.94, 0.002),
    (SMALL, SMALL, ON_ITS_SIDE, 0.7, 0.0015)])
def test_the_depth_is_that_of_the_other_camera(
        room, own, target, image_from_depth, known, median):
    for place in PLACES:
        pose = looked_from(*place)
        (k, width, height), (image_k, *image_size) = own, target
        depth_m = room.render(pose @ image_from_depth, k, width, height)[1]
        truth_m = room.render(pose, image_k, *image_size)[1]
        found_m = reproject_depth(depth_m, k, image_from_depth, image_k, image_size[::-1])
        assert found_m.shape == truth_m.shape and found_m.dtype == np.float32
        assert (found_m > 0).mean() > known
        assert cracks(found_m) < 0.001
        ratio = (found_m / truth_m)[found_m > 0]
        assert np.median(np.abs(ratio - 1)) < median
        assert np.quantile(np.abs(ratio - 1), 0.95) < 0.008
        assert (ratio < 0.9).mean() < 0.003, 'near things grow'
        assert (ratio > 1.1).mean() < 0.001, 'far things shine through near ones'


def test_the_same_camera_changes_nothing(room):
    k, width, height = SMALL
    depth_m = room.render(looked_from(*PLACES[0]), k, width, height)[1]
    depth_m[50:70, 80:90] = 0
    found_m = reproject_depth(depth_m, k, np.eye(4), k, (height, width))
    assert np.array_equal(found_m, depth_m)


def test_what_is_near_hides_what_is_far_and_what_was_not_seen_stays_unknown():
    """A pole at 1 m before a wall at 4 m, by a camera 0.1 m to the right of the image's."""
    k, width, height = SMALL
    depth_m = np.full((height, width), 4.0, np.float32)
    depth_m[:, 150:160] = 1.0
    apart = np.eye(4)
    apart[0, 3] = 0.1
    found_m = reproject_depth(depth_m, k, apart, k, (height, width))
    row = found_m[height // 2]
    # The pole moves by 30 px, the wall by 7.5.
    assert (row[180:190] == 1).all()
    assert (row[158:167] == 0).all(), 'the pole hid this part of the wall'
    assert (row[10:157] == 4).all() and (row[191:] == 4).all()
    assert (row[169:179] == 4).all()
    assert (row[:7] == 0).all(), 'beyond the edge of the depth image'


def test_each_pixel_lies_where_depth_image_proc_registers_it(room):
    """Its register, without filling: each pixel's centre, rounded; the nearest counts."""
    (k, width, height), (image_k, image_width, image_height) = DEPTH, COLOR
    depth_m = room.render(looked_from(*PLACES[1]) @ SIDE_BY_SIDE, k, width, height)[1]
    registered = np.full((image_height, image_width), math.inf)
    for v in range(0, height, 3):
        for u in range(0, width, 3):
            z = float(depth_m[v, u])
            point = [(u - k[0, 2]) * z / k[0, 0], (v - k[1, 2]) * z / k[1, 1], z, 1]
            x, y, there_m, _ = SIDE_BY_SIDE @ point
            column = math.floor(image_k[0, 0] * x / there_m + image_k[0, 2] + 0.5)
            row = math.floor(image_k[1, 1] * y / there_m + image_k[1, 2] + 0.5)
            if 0 <= column < image_width and 0 <= row < image_height:
                registered[row, column] = min(registered[row, column], there_m)
    found_m = reproject_depth(
        depth_m, k, SIDE_BY_SIDE, image_k, (image_height, image_width))
    there = np.isfinite(registered)
    assert there.sum() > 5000
    assert (found_m[there] > 0).all()
    assert (found_m[there] <= registered[there] * (1 + 1e-6)).all(), 'none is hidden by a farther'
    assert (np.abs(found_m / registered - 1)[there] < 0.005).mean() > 0.99


@pytest.mark.parametrize('image_from_depth', [
    np.eye(4), rigid(Rotation.from_euler('y', 180, degrees=True), [0, 0, 0]),
    rigid(Rotation.identity(), [0, 0, -3.0])])
def test_nothing_is_seen_of_nothing_or_of_what_is_behind(image_from_depth):
    k, width, height = TINY
    depth_m = np.zeros((height, width), np.float32)
    if not np.array_equal(image_from_depth, np.eye(4)):
        depth_m[:] = 2.5
    assert not reproject_depth(depth_m, k, image_from_depth, k, (height, width)).any()


@pytest.mark.parametrize('focal_px', [20, 150])
@pytest.mark.parametrize('shift', [0.0, -1e-30, 0.01])
def test_depth_that_cannot_be_measured_is_unknown(focal_px, shift):
    k, width, height = camera(focal_px, 160, 120)
    depth_m = np.full((height, width), 3e38, np.float32)
    depth_m[::2] = 1e-30
    there = rigid(Rotation.from_euler('y', 30, degrees=True), [shift, 0, shift])
    found_m = reproject_depth(depth_m, k, there, k, (height, width))
    assert found_m.max() < 0.02, 'nothing but what the camera stands in front of'
