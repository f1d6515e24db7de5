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
import open3d as o3d
import pytest

from mapanything_ros.sample.room import Room

WIDTH, HEIGHT = 320, 240
INTRINSICS = np.array([[260.0, 0, 161.3], [0, 259.0, 118.7], [0, 0, 1]])
DISTORTION = np.array([-0.03, 0.01, 0.0005, -0.0003, 0.002])


@pytest.fixture(scope='module')
def room() -> Room:
    return Room(seed=0)


def looking(eye: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """Return world_from_camera (4, 4) of a level camera that looks at `target`."""
    ahead = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(ahead, right), ahead, eye], axis=1)
    return pose


VIEWS = [looking((2.4, 3.0, 1.4), (2.5, 0.6, 0.8)), looking((1.1, 2.0, 1.4), (4.5, 2.3, 0.9)),
         looking((3.6, 1.2, 1.3), (0.9, 3.2, 0.7)), looking((2.5, 2.0, 1.2), (2.4, 2.1, 2.5))]


def back_projected(depth_m: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """Return the points (H, W, 3) in the world of an undistorted depth image."""
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    ways = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(INTRINSICS).T
    return ways * depth_m[..., None] @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]


def projected(points: np.ndarray, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (..., 2) and depths (...) of world points."""
    local = (points - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    image = local @ INTRINSICS.T
    return image[..., :2] / image[..., 2:], local[..., 2]


@pytest.mark.parametrize('view', range(len(VIEWS)))
def test_depth_agrees_with_an_independent_ray_cast_of_the_mesh(room, view):
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(room.mesh()))
    # Open3D shoots through (u + 0.5, v + 0.5), so the principal point moves by half a pixel.
    shifted = INTRINSICS + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    rays = scene.create_rays_pinhole(
        o3d.core.Tensor(shifted), o3d.core.Tensor(np.linalg.inv(VIEWS[view])), WIDTH, HEIGHT)
    expected = scene.cast_rays(rays)['t_hit'].numpy()
    difference = np.abs(room.render(VIEWS[view], INTRINSICS, WIDTH, HEIGHT).depth_m - expected)
    # A ray that grazes an edge may fall to either side of it.
    assert np.mean(difference > 1e-5) < 1e-3
    assert expected.min() > 0.5 and expected.max() < 6


def test_the_depth_is_on_the_surface(room):
    for pose in VIEWS:
        points = back_projected(room.render(pose, INTRINSICS, WIDTH, HEIGHT).depth_m, pose)
        distance_m = room.distance(points.reshape(-1, 3))
        # The distance query is less exact at slivers such as the rims of boards.
        assert np.percentile(distance_m, 99) < 1e-5 and distance_m.max() < 1e-3


def test_distances_are_metres_to_the_nearest_surface(room):
    points = np.array([[2.5, 3.2, 2.4], [2.5, 2.9, 2.3], [0.05, 0.9, 2.3], [4.7, 0.1, 2.35]])
    assert room.distance(points) == pytest.approx([0.1, 0.2, 0.05, 0.1], abs=1e-6)


@pytest.mark.parametrize('view', range(3))
def test_two_views_see_the_same_depth_and_colour_where_neither_is_occluded(room, view):
    pose = VIEWS[view]
    moved = pose.copy()
    moved[:3, 3] += pose[:3, 0] * 0.2 + pose[:3, 1] * 0.05
    one = room.render(pose, INTRINSICS, WIDTH, HEIGHT, supersample=4)
    two = room.render(moved, INTRINSICS, WIDTH, HEIGHT, supersample=4)
    pixels, depth_m = projected(back_projected(one.depth_m, pose), moved)
    maps = pixels.astype(np.float32)
    seen_m = cv2.remap(two.depth_m, maps, None, cv2.INTER_LINEAR, borderValue=-1)
    inside = ((pixels > 1) & (pixels < (WIDTH - 2, HEIGHT - 2))).all(axis=-1)
    visible = inside & (np.abs(seen_m / depth_m - 1) < 0.005)
    assert visible.sum() > 0.8 * inside.sum() and inside.mean() > 0.6
    # Neither view sees through what the other one sees.
    nearest_m = cv2.erode(two.depth_m, np.ones((3, 3), np.uint8))
    nearest_m = cv2.remap(nearest_m, maps, None, cv2.INTER_NEAREST, borderValue=0)
    assert np.mean(nearest_m[inside] > depth_m[inside] * 1.005) < 0.001
    blurred = [cv2.GaussianBlur(v.rgb, (0, 0), 1.2).astype(np.float32) for v in (one, two)]
    colour = cv2.remap(blurred[1], maps, None, cv2.INTER_LINEAR)
    difference = np.abs(colour - blurred[0])[visible]
    assert np.median(difference) < 4 and np.percentile(difference, 90) < 14
    # The picture varies enough for that agreement to mean something.
    wrong = np.abs(np.roll(colour, 8, axis=1) - blurred[0])[visible]
    assert np.median(wrong) > 4 * np.median(difference)


def test_a_distorted_picture_undistorts_to_the_pinhole_picture(room):
    pose = VIEWS[1]
    bent = room.render(pose, INTRINSICS, WIDTH, HEIGHT, DISTORTION * 4, supersample=4)
    plain = room.render(pose, INTRINSICS, WIDTH, HEIGHT, supersample=4)
    inner = (slice(12, -12), slice(12, -12))

    def difference(picture: np.ndarray) -> float:
        return float(np.abs(picture.astype(float) - plain.rgb)[inner].mean())

    straight = cv2.undistort(bent.rgb, INTRINSICS, DISTORTION * 4)
    assert difference(straight) < 8
    assert difference(bent.rgb) > 2.5 * difference(straight)


def test_distorted_depth_lies_on_the_surface_along_the_distorted_rays(room):
    pose = VIEWS[2]
    depth_m = room.render(pose, INTRINSICS, WIDTH, HEIGHT, DISTORTION).depth_m
    pixels = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    xy = cv2.undistortPointsIter(
        pixels.astype(float), INTRINSICS, DISTORTION, None, None, criteria).reshape(-1, 2)
    local = np.column_stack([xy, np.ones(len(xy))]) * depth_m.reshape(-1, 1)
    points = local @ pose[:3, :3].T + pose[:3, 3]
    distance_m = room.distance(points)
    assert np.percentile(distance_m, 99) < 1e-5 and distance_m.max() < 1e-3
    # Forwards through the distortion the points come back to their pixels.
    back, _ = cv2.projectPoints(local, np.zeros(3), np.zeros(3), INTRINSICS, DISTORTION)
    assert np.abs(back - pixels).max() < 1e-6


def test_nothing_is_hit_outside_and_depth_is_zero_there(room):
    outside = looking((2.5, 10.0, 1.0), (2.5, 20.0, 1.0))
    view = room.render(outside, INTRINSICS, WIDTH, HEIGHT)
    assert not view.depth_m.any()
    assert not view.rgb.any()


def test_every_direction_has_texture_to_match(room):
    for heading in np.radians(np.arange(0, 360, 30)):
        ahead = np.array([np.cos(heading), np.sin(heading), -0.25])
        eye = np.array([2.45, 1.95, 1.3]) - 0.9 * ahead * (1, 1, 0)
        view = room.render(looking(tuple(eye), tuple(eye + ahead)),
                           np.diag([2.0, 2, 1]) @ INTRINSICS, 2 * WIDTH, 2 * HEIGHT)
        grey = cv2.cvtColor(view.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        assert len(cv2.SIFT_create().detect(grey.astype(np.uint8))) > 800
        deviation = np.sqrt(np.maximum(
            0, cv2.blur(grey ** 2, (21, 21)) - cv2.blur(grey, (21, 21)) ** 2))
        assert np.mean(deviation < 2.5) < 0.01
        assert 40 < grey.mean() < 200


def test_the_same_seed_gives_the_same_room_and_another_seed_another(room):
    again, other = Room(seed=0), Room(seed=1)
    views = [r.render(VIEWS[1], INTRINSICS, WIDTH, HEIGHT) for r in (room, again, other)]
    assert np.array_equal(views[0].rgb, views[1].rgb)
    assert np.array_equal(views[0].depth_m, views[1].depth_m)
    assert np.mean(views[0].rgb != views[2].rgb) > 0.5
    assert np.mean(views[0].depth_m != views[2].depth_m) > 0.02
