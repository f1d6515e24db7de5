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

"""Two points or a tag tell how large the map truly is."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from stores import box_record, record, store_of

from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.export.known_size import (
    measure_scale,
    parse_reference,
    PointsReference,
    TagReference,
)

INTRINSICS = np.array([[400.0, 0.0, 259.1], [0.0, 400.0, 195.7], [0.0, 0.0, 1.0]])
SIZE_M = 0.16
TAG = TagReference('tag36h11', 7, SIZE_M)


def view_of_tag(index, turn_deg=(0.0, 0.0), distance_m=0.8, number=7, scale=1.0):
    """Render a tag on a board by its homography; the geometry is too small by ``scale``."""
    marker = cv2.aruco.generateImageMarker(
        cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11), number, 400)
    board = np.full((800, 800), 255, np.uint8)
    board[200:600, 200:600] = marker
    rotation = Rotation.from_euler('xy', turn_deg, degrees=True).as_matrix()
    centre = np.array([0.03, -0.02, distance_m])
    # A texel's centre has integer coordinates; the black square ends half a texel outside.
    texel_m = SIZE_M / 400
    board_from_texel = np.array([
        [texel_m, 0, -399.5 * texel_m], [0, texel_m, -399.5 * texel_m], [0, 0, 1.0]])
    plane = np.stack([rotation[:, 0], rotation[:, 1], centre], axis=1)
    size = (518, 392)
    fine = np.diag([4.0, 4.0, 1.0])
    fine[:2, 2] = 1.5
    picture = cv2.warpPerspective(
        board, fine @ INTRINSICS @ plane @ board_from_texel, (4 * size[0], 4 * size[1]),
        flags=cv2.INTER_LINEAR, borderValue=200)
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    v, u = np.mgrid[:size[1], :size[0]]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(INTRINSICS).T
    normal = rotation[:, 2]
    depth_m = (normal @ centre) / (rays @ normal)
    return record(
        index, np.repeat(picture[..., None], 3, axis=2), depth_m / scale, INTRINSICS, np.eye(4))


def test_a_tag_gives_the_scale_from_all_sides(tmp_path):
    views = [
        view_of_tag(0, scale=2.5), view_of_tag(1, (35, 10), scale=2.5),
        view_of_tag(2, (-20, 40), 1.3, scale=2.5), box_record(3)]
    scale = measure_scale(TAG, store_of(tmp_path, views))
    assert scale.source == 'tag' and scale.metric
    assert scale.factor == pytest.approx(2.5, rel=0.005)
    assert 0 <= scale.residual < 0.01


def test_wrong_depth_on_part_of_the_tag_does_not_move_the_scale(tmp_path):
    view = view_of_tag(0, (25, 0))
    random = np.random.default_rng(2)
    depth_m = view.depth_m * random.normal(1, 0.01, view.depth_m.shape).astype(np.float32)
    wrong = random.random(depth_m.shape) < 0.15
    depth_m[wrong] *= 1.4
    depth_m[random.random(depth_m.shape) < 0.3] = np.nan
    scale = measure_scale(TAG, store_of(tmp_path, [replace(view, depth_m=depth_m)]))
    assert scale.factor == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize('view', [
    view_of_tag(0, number=8), view_of_tag(0, distance_m=6.0),
    replace(view_of_tag(0), depth_m=np.full((392, 518), np.nan, np.float32)),
    box_record(0)], ids=['other tag', 'too far', 'no depth', 'no tag'])
def test_a_tag_that_is_not_seen_well_is_an_error_and_not_a_guess(tmp_path, view):
    with pytest.raises(InputError, match=r'no keyframe shows the tag tag36h11:7 large'):
        measure_scale(TAG, store_of(tmp_path, [view]))


def test_two_points_give_the_scale():
    scale = measure_scale(PointsReference((1, 2, 3), (1, 2, 3.5), 0.85), [])
    assert (scale.source, scale.factor) == ('points', pytest.approx(1.7))
    with pytest.raises(InputError, match='are the same'):
        measure_scale(PointsReference((1, 2, 3), (1, 2, 3), 0.85), [])


def test_references_are_read_from_text():
    assert parse_reference('tag36h11:7=0.16') == TAG
    assert parse_reference('aruco4x4:0=0.05') == TagReference('aruco4x4', 0, 0.05)
    assert parse_reference('1,-2,3e-1,0,0,0=0.85') == PointsReference(
        (1.0, -2.0, 0.3), (0.0, 0.0, 0.0), 0.85)


@pytest.mark.parametrize('text', [
    '', '=1', '1,2,3=1', 'tag36h11=0.1', 'tag36h11:x=0.1', 'tag36h12:1=0.1', 'tag36h11:1=0',
    'tag36h11:1=-1', 'tag36h11:1=nan', 'tag36h11:1', '1,2,3,4,5,6=inf', '1,2,3,4,5,nan=1'])
def test_what_cannot_be_read_shows_the_usage(text):
    with pytest.raises(InputError, match=r'is no scale reference: give x,y,z,x,y,z=LENGTH'):
        parse_reference(text)
