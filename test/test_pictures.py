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

from dataclasses import replace

import cv2
from matplotlib.text import Text
import numpy as np
import pytest

from mapanything_ros.core.errors import InputError
from mapanything_ros.offline import pictures
from mapanything_ros.offline.pictures import (
    ColouredMap,
    draw_keyframes,
    draw_top,
    draw_view,
    KeyframePicture,
)
from mapanything_ros.offline.splat import look_from, splat, View

RED, GREEN, BLUE = (220, 30, 20), (20, 200, 30), (20, 40, 210)

ALONG_X = look_from(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]))


def plane(x, y, z, colour, step=0.02):
    """Return the points and colours of a box whose one side is thin."""
    grid = np.meshgrid(*(np.arange(low, high + step / 2, step) for low, high in (x, y, z)))
    points = np.stack([axis.ravel() for axis in grid], axis=1)
    return points, np.tile(np.array(colour, np.uint8), (len(points), 1))


def looking_along_x(x, y, z):
    """Return the pose of a camera that looks along x with z up."""
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:3, 3] = x, y, z
    return pose


@pytest.fixture
def room():
    """Give a floor, a red box in its +x +y corner, and a ceiling; cameras at 1.2 m walk in y."""
    parts = [
        plane((0, 4), (0, 3), (0, 0), GREEN), plane((3, 4), (2, 3), (0.5, 0.5), RED),
        plane((0, 4), (0, 3), (2.4, 2.4), BLUE)]
    cameras = np.stack([looking_along_x(0.5, 0.4 + 0.2 * i, 1.2) for i in range(10)])
    return ColouredMap(
        np.concatenate([p for p, _ in parts]), np.concatenate([c for _, c in parts]), 0.02,
        cameras)


def coverage(picture, colour):
    """Return a mask of pixels whose hue is that of a colour."""
    return (np.abs(picture[..., :3].astype(int) - colour) < 40).all(axis=-1)


def test_a_point_is_drawn_where_it_projects_with_its_colour():
    view = View(ALONG_X, 100, 201, 101)
    point = np.array([[2.0, 0.5, 0.25]])  # left, and up
    picture = splat(point, np.array([RED], np.uint8), 0.05, view)
    y, x = np.nonzero(picture[..., 3] > 200)
    assert (x.mean(), y.mean()) == pytest.approx((100 - 25, 50 - 12.5), abs=0.6)
    np.testing.assert_allclose(picture[y[0], x[0], :3], RED, atol=2)


def test_the_nearer_point_hides_the_farther_whatever_their_order():
    view = View(ALONG_X, 50, 61, 61)
    points = np.array([[1.0, 0, 0], [2.0, 0, 0], [0.5, 0, 0], [-1.0, 0, 0]])
    colours = np.array([GREEN, BLUE, RED, GREEN], np.uint8)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        picture = splat(points[order], colours[order], 0.02, view)
        np.testing.assert_allclose(picture[30, 30, :3], RED, atol=2)


def test_a_wall_has_no_holes_and_ends_where_it_ends():
    points, colours = plane((2, 2), (-0.5, 0.5), (-0.3, 0.3), BLUE)
    view = View(ALONG_X, 400, 301, 201)
    alpha = splat(points, colours, 0.02, view)[..., 3]
    assert (alpha[45:156, 55:246] == 255).all()  # 400 px / 2 m: 200 by 120 pixels, rim aside
    assert not alpha[:, :40].any()
    assert not alpha[:30].any()


def test_the_map_from_above_shows_the_floor_and_not_the_ceiling(room, tmp_path):
    path = tmp_path / 'deep' / 'map_top.png'
    draw_top(path, room, 'title')
    picture = cv2.imread(str(path))[..., ::-1]
    green, red, blue = (coverage(picture, colour) for colour in (GREEN, RED, BLUE))
    assert green.mean() > 0.3
    assert blue.mean() < 0.01
    # x to the right, y up: the box lies in the upper right corner, and is 1/12 of the floor.
    assert red.sum() == pytest.approx((green.sum() + red.sum()) / 12, rel=0.15)
    rows, columns = np.nonzero(green)
    box_rows, box_columns = np.nonzero(red)
    assert np.median(box_rows) < np.median(rows)
    assert np.median(box_columns) > np.median(columns)


def test_the_map_at_an_angle_opens_the_wall_towards_the_viewer(room, tmp_path):
    behind = plane((0, 0), (0, 3), (0, 1.4), BLUE)  # a wall behind the cameras hides the room
    closed = ColouredMap(
        np.concatenate([room.points, behind[0]]), np.concatenate([room.rgb, behind[1]]), 0.02,
        room.cameras)
    draw_view(tmp_path / 'map_view.png', closed, 'title')
    picture = cv2.imread(str(tmp_path / 'map_view.png'))[..., ::-1]
    assert coverage(picture, GREEN).mean() > 0.1
    assert coverage(picture, RED).mean() > 0.005
    assert coverage(picture, BLUE).mean() < 0.02


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize(('size', 'expected'), [
    (1, 'grid of 0.5 m'), (0.03, 'grid of 0.02 m'), (40, 'grid of 20 m')])
def test_the_grid_has_a_round_length_that_is_told(room, tmp_path, monkeypatch, size, expected):
    seen = []
    monkeypatch.setattr(pictures, '_save', lambda figure, path: seen.append(figure))
    draw_view(tmp_path / 'map_view.png', replace(
        room, points=size * room.points, voxel_m=size * room.voxel_m,
        cameras=np.stack([scaled(pose, size) for pose in room.cameras])), 'title')
    assert texts(seen[0]).count(expected) == 1


def scaled(pose, size):
    pose = pose.copy()
    pose[:3, 3] *= size
    return pose


def test_labels_are_whole(tmp_path):
    depth = np.linspace(0.55, 1.8, 60 * 80, dtype=np.float32).reshape(60, 80)
    keyframe = KeyframePicture(
        'k', np.full((60, 80, 3), RED, np.uint8), depth, np.ones((60, 80), np.float32))
    draw_keyframes(tmp_path / 'keyframes.png', [keyframe] * 6, 'title', 'map units')
    picture = cv2.imread(str(tmp_path / 'keyframes.png'))
    for rim in (picture[:, :3], picture[:, -3:], picture[:3], picture[-3:]):
        assert (rim == 255).all()


def test_keyframes_show_what_was_kept(tmp_path):
    depth = np.full((60, 80), 2, np.float32)
    depth[:, 40:] = np.nan
    keyframe = KeyframePicture(
        'k', np.full((60, 80, 3), RED, np.uint8), depth, np.ones((60, 80), np.float32))
    draw_keyframes(tmp_path / 'keyframes.png', [keyframe] * 3, 'title')
    picture = cv2.imread(str(tmp_path / 'keyframes.png'))[..., ::-1]
    image = coverage(picture, RED)
    assert image.sum() > 3000
    # Half of the depth and half of the confidence are grey: together as much as the image.
    assert (picture == 0xc8).all(axis=-1).sum() == pytest.approx(image.sum(), rel=0.1)


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(InputError, match='no map'):
        ColouredMap(np.empty((0, 3)), np.empty((0, 3), np.uint8), 0.02, np.eye(4)[None])
    with pytest.raises(InputError, match='no keyframes'):
        draw_keyframes(tmp_path / 'k.png', [], 'title')
