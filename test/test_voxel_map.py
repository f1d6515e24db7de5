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

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.config import MapConfig
from mapanything_ros.core.datatypes import Prediction
from mapanything_ros.core.map.voxel_map import POINTS_PER_VOXEL, VIEWS_KEPT, VoxelMap

SIDE = 24
K = np.array([[20.0, 0, 11.5], [0, 20, 11.5], [0, 0, 1]])


def view(number, depth_m, rgb=100, confidence=1.0, mask=True):
    """Give what a keyframe predicts; numbers stand for whole images."""
    def image(value, dtype, *channels):
        return torch.from_numpy(np.array(np.broadcast_to(value, (SIDE, SIDE, *channels)), dtype))

    return Prediction(
        number, image(rgb, np.uint8, 3), image(depth_m, np.float32),
        image(confidence, np.float32), image(mask, bool), K, np.eye(4))


def pixel(row, column):
    """Give a mask of one pixel."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[row, column] = True
    return mask


def at(x=0.0, y=0.0, z=0.0, turn_deg=0.0):
    """Give map_from_camera."""
    pose = shifted(x, y, z)
    pose[:3, :3] = Rotation.from_euler(
        'zyx', [turn_deg, turn_deg / 3, 5], degrees=True).as_matrix()
    return pose


def shifted(x, y=0.0, z=0.0):
    """Give map_from_camera of a camera that is not turned."""
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def turned(angle):
    """Give map_from_camera of a camera that is turned about its y axis, radians."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0, angle, 0]).as_matrix()
    return pose


def bumpy(number):
    """Give a keyframe that sees a surface of its own."""
    rng = np.random.default_rng(number)
    shape = SIDE, SIDE
    return view(
        number, 2 + 0.3 * rng.random(shape), rng.integers(0, 256, (*shape, 3)), rng.random(shape),
        rng.random(shape) < 0.8)


def path(number):
    return at(0.1 * number, -0.05 * number, 0.02 * number, 7.0 * number)


def filled(config, poses):
    voxels = VoxelMap(config)
    for number, pose in poses.items():
        voxels.insert(bumpy(number), pose)
    return voxels


def assert_same(one, other):
    assert len(one.xyz) > 100
    np.testing.assert_array_equal(one.xyz, other.xyz)
    np.testing.assert_array_equal(one.rgb, other.rgb)


FINE = MapConfig(voxel_m=0.1, min_views=1)


def test_pixels_of_a_voxel_are_averaged_by_confidence():
    voxels = VoxelMap(MapConfig(voxel_m=1.0, min_views=1))
    depth_m = np.where(pixel(12, 13), 2.4, 2.0)
    rgb = np.where(pixel(12, 12)[..., None], [100, 0, 0], 0)
    confidence = np.where(pixel(12, 13), 0.75, 0.25)
    voxels.insert(
        view(0, depth_m, rgb, confidence, pixel(12, 12) | pixel(12, 13)), np.eye(4))
    points = voxels.points()
    mean = 0.25 * np.array([0.05, 0.05, 2.0]) + 0.75 * np.array([0.18, 0.06, 2.4])
    np.testing.assert_allclose(points.xyz, [mean], atol=2e-5)
    assert points.rgb.tolist() == [[25, 0, 0]]


def test_keyframes_are_averaged_by_confidence():
    voxels = VoxelMap(MapConfig(voxel_m=1.0, min_views=1))
    voxels.insert(view(0, 2.2, 40, 0.25, pixel(12, 12)), np.eye(4))
    voxels.insert(view(1, 2.6, 80, 0.75, pixel(12, 12)), np.eye(4))
    points = voxels.points()
    np.testing.assert_allclose(points.xyz, [[0.0625, 0.0625, 2.5]], atol=2e-5)
    assert points.rgb.tolist() == [[70, 70, 70]]


def test_every_point_is_near_a_pixel_and_every_pixel_near_a_point():
    seen, pose = bumpy(3), path(3)
    voxels = filled(FINE, {3: pose})
    pixels = seen.points_in_camera()[seen.mask].numpy() @ pose[:3, :3].T + pose[:3, 3]
    distance = np.linalg.norm(voxels.points().xyz[:, None] - pixels, axis=-1)
    # Two averages, each within one voxel of 0.1 m.
    assert distance.min(axis=0).max() < 2 * 0.1 * 3 ** 0.5
    assert distance.min(axis=1).max() < 0.1 * 3 ** 0.5
    assert np.median(distance.min(axis=1)) < 1e-5


def test_what_the_mask_drops_is_not_in_the_map():
    voxels = VoxelMap(FINE)
    voxels.insert(view(0, 2.0, mask=pixel(0, 0)), np.eye(4))
    np.testing.assert_allclose(voxels.points().xyz, [[-1.15, -1.15, 2.0]], atol=1e-5)
    voxels.insert(view(1, 2.0, mask=False), np.eye(4))
    assert len(voxels) == 1


def test_the_map_does_not_depend_on_the_order_of_the_keyframes():
    poses = {number: path(number) for number in range(8)}
    assert_same(
        filled(FINE, poses).points(), filled(FINE, dict(reversed(poses.items()))).points())


@pytest.mark.parametrize('moved', [[2], [1, 4, 6], range(8)], ids=['one', 'some', 'all'])
def test_reposing_gives_to_the_bit_the_map_that_inserting_there_gives(moved):
    poses = {number: path(number) for number in range(8)}
    config = MapConfig(voxel_m=0.1, min_views=2)
    voxels = filled(config, poses)
    there = {number: at(0.3, 0.1, turn_deg=2.0) @ poses[number] for number in moved}
    before = voxels.points()
    voxels.repose({**there, 99: np.eye(4)})
    assert_same(voxels.points(), filled(config, {**poses, **there}).points())
    assert len(before) != len(voxels.points())
    voxels.repose(poses)
    assert_same(voxels.points(), before)


@pytest.mark.parametrize('gone', [[3], [0, 1, 2, 5, 6]], ids=['one', 'most'])
def test_what_is_forgotten_is_out_of_the_map_to_the_bit_and_does_not_come_back(gone):
    poses = {number: path(number) for number in range(8)}
    rest = {number: pose for number, pose in poses.items() if number not in gone}
    voxels = filled(FINE, poses)
    voxels.hide([gone[0]])
    voxels.forget([*gone, 99])
    voxels.repose({number: at(0.3) for number in gone})
    voxels.show(gone)
    fresh = filled(FINE, rest)
    assert_same(voxels.points(), fresh.points())
    assert voxels._points == fresh._points and len(voxels) == len(fresh)
    voxels.insert(bumpy(gone[0]), poses[gone[0]])
    assert_same(voxels.points(), filled(FINE, {**rest, gone[0]: poses[gone[0]]}).points())


def test_what_moves_by_no_more_than_the_tolerance_stays_where_it_is_to_the_bit():
    poses = {number: path(number) for number in range(4)}
    voxels = filled(FINE, poses)
    voxels.updates()
    there = {
        0: shifted(0.04) @ poses[0], 1: shifted(0.06) @ poses[1],
        # The farthest point is 2.7 m away.
        2: poses[2] @ turned(0.01), 3: poses[3] @ turned(0.04)}
    voxels.repose(there, 0.05)
    assert_same(voxels.points(), filled(
        FINE, {0: poses[0], 1: there[1], 2: poses[2], 3: there[3]}).points())
    voxels.updates()
    voxels.repose({0: poses[0], 2: poses[2]}, 0.05)
    assert len(voxels.updates()) == 0


def test_small_moves_add_up_until_they_are_more_than_the_tolerance():
    voxels = filled(FINE, {0: np.eye(4), 1: np.eye(4)})
    for step in (1, 2):
        voxels.repose({0: shifted(0.02 * step), 1: shifted(0.02 * step)}, 0.05)
        assert_same(voxels.points(), filled(FINE, {0: np.eye(4), 1: np.eye(4)}).points())
    voxels.repose({0: shifted(0.06)}, 0.05)
    assert_same(voxels.points(), filled(FINE, {0: shifted(0.06), 1: np.eye(4)}).points())


def test_nothing_is_farther_from_where_it_belongs_than_the_tolerance():
    rng = np.random.default_rng(0)
    seen = bumpy(0)
    points = seen.points_in_camera()[seen.mask].double().numpy()
    stayed = 0
    for _ in range(200):
        pose = np.eye(4)
        size = rng.uniform(0, 0.03)
        pose[:3, :3] = rng.normal(1, size / 3) * Rotation.from_rotvec(
            rng.normal(0, size / 3, 3)).as_matrix()
        pose[:3, 3] = rng.normal(0, size, 3)
        voxels = filled(FINE, {0: np.eye(4)})
        voxels.repose({0: pose}, 0.05)
        if voxels._keyframes[0].map_from_camera is not pose:
            moved_m = np.linalg.norm(points @ pose[:3, :3].T + pose[:3, 3] - points, axis=1)
            assert moved_m.max() <= 0.05
            stayed += 1
    assert 20 < stayed < 180


def test_reposing_moves_points_with_their_camera():
    voxels = VoxelMap(FINE)
    voxels.insert(view(0, 2.0, mask=pixel(12, 12)), np.eye(4))
    quarter = np.eye(4)
    quarter[:3, :3] = Rotation.from_euler('y', 90, degrees=True).as_matrix()
    quarter[:3, 3] = 1.0, 0.0, 0.0
    voxels.repose({0: quarter})
    np.testing.assert_allclose(voxels.points().xyz, [[3.0, 0.05, -0.05]], atol=1e-5)


def test_a_scaled_scene_is_the_scene_inserted_at_that_scale():
    """To within the rounding of the keyframe's own voxels, which are scaled with it."""
    poses, factor = {number: path(number) for number in range(4)}, 1.1
    scaled = np.diag([factor, factor, factor, 1.0])
    voxels, there = filled(FINE, poses), VoxelMap(FINE)
    voxels.repose({number: pose @ scaled for number, pose in poses.items()})
    for number, pose in poses.items():
        seen = bumpy(number)
        there.insert(replace(seen, depth_m=factor * seen.depth_m), pose)
    one, other = voxels.points().xyz, there.points().xyz
    distance = np.linalg.norm(one[:, None] - other, axis=-1)
    assert max(distance.min(axis=0).max(), distance.min(axis=1).max()) < 2 * 0.11 * 3 ** 0.5
    assert np.median(distance.min(axis=1)) < 0.01
    voxels.repose(poses)
    assert_same(voxels.points(), filled(FINE, poses).points())


@pytest.mark.parametrize('apart', [[3], [0, 1, 2, 3, 4]], ids=['one', 'most'])
def test_what_is_hidden_is_not_in_the_map_and_comes_back_where_it_was_moved(apart):
    poses = {number: path(number) for number in range(8)}
    rest = {number: pose for number, pose in poses.items() if number not in apart}
    there = {number: at(0.3) @ poses[number] for number in apart}
    voxels = filled(FINE, poses)
    voxels.hide([*apart, 99])
    assert_same(voxels.points(), filled(FINE, rest).points())
    assert len(voxels) == len(voxels.points())
    voxels.updates()
    voxels.repose(there)
    voxels.hide(apart)
    assert len(voxels.updates()) == 0
    voxels.show([*apart, 99])
    assert_same(voxels.points(), filled(FINE, {**poses, **there}).points())
    update = voxels.updates()
    assert 0 < len(update) <= len(voxels)


def test_what_is_hidden_counts_among_the_points_and_goes_as_the_oldest():
    config = MapConfig(voxel_m=0.02, max_points=1000, min_views=1)
    voxels = VoxelMap(config)
    voxels.insert(bumpy(0), np.eye(4))
    voxels.hide([0])
    assert len(voxels) == len(voxels.points()) == 0
    for number in range(1, 40):
        voxels.insert(bumpy(number), shifted(10.0 * number))
        # The voxels are bounded by what is shown, and nothing hidden goes for that.
        assert 0 in voxels._keyframes
    parts = list(range(1, 40))
    for number in range(40, 80):
        voxels.insert(bumpy(number), shifted(10.0 * number))
        voxels.hide([number])
    assert voxels._points <= POINTS_PER_VOXEL * 1000
    assert 0 not in voxels._keyframes and 79 in voxels._keyframes
    assert not parts & voxels._keyframes.keys()


def test_radius_reaches_as_far_as_what_is_scaled():
    config = MapConfig(voxel_m=0.05, min_views=1, radius_m=4.0)
    voxels = VoxelMap(config)
    voxels.insert(view(0, 2.0, mask=pixel(12, 12)), shifted(0.0, z=-4.5))
    voxels.repose({0: shifted(0.0, z=-4.5) @ np.diag([2.0, 2.0, 2.0, 1.0])})
    voxels.insert(view(1, 2.0, mask=pixel(0, 0)), shifted(0.0))
    assert len(voxels.points()) == 2


def test_a_keyframe_that_comes_again_replaces_itself():
    poses = {number: path(number) for number in range(4)}
    voxels = filled(FINE, poses)
    voxels.insert(bumpy(2), at(1.0))
    assert_same(voxels.points(), filled(FINE, {**poses, 2: at(1.0)}).points())


def test_what_too_few_keyframes_saw_is_kept_but_not_shown():
    voxels = VoxelMap(MapConfig(voxel_m=0.1, min_views=2))
    voxels.insert(view(0, 2.0, mask=pixel(12, 12) | pixel(0, 0)), np.eye(4))
    assert len(voxels.points()) == 0
    voxels.insert(view(1, 2.02, mask=pixel(12, 12)), np.eye(4))
    assert len(voxels) == 2
    np.testing.assert_allclose(voxels.points().xyz, [[0.05025, 0.05025, 2.01]], atol=1e-5)


def test_updates_are_what_came_or_changed():
    voxels = VoxelMap(MapConfig(voxel_m=0.1, min_views=2))
    voxels.insert(view(0, 2.0, mask=pixel(12, 12) | pixel(0, 0) | pixel(0, 23)), np.eye(4))
    voxels.insert(view(1, 2.02, mask=pixel(12, 12) | pixel(0, 0)), np.eye(4))
    assert len(voxels.updates()) == len(voxels.points()) == 2
    assert len(voxels.updates()) == 0
    voxels.insert(view(2, 2.04, mask=pixel(12, 12)), np.eye(4))
    np.testing.assert_allclose(voxels.updates().xyz, [[0.0505, 0.0505, 2.02]], atol=1e-5)
    voxels.repose({2: shifted(5.0)})
    np.testing.assert_allclose(voxels.updates().xyz, [[0.05025, 0.05025, 2.01]], atol=1e-5)
    voxels.insert(view(3, 2.0, mask=pixel(0, 23)), np.eye(4))
    voxels.clear()
    assert len(voxels.updates()) == 0


@pytest.mark.parametrize('moved', [[2], range(6)], ids=['one', 'all'])
def test_what_was_moved_there_and_back_is_not_told_again(moved):
    poses = {number: path(number) for number in range(6)}
    voxels = filled(FINE, poses)
    voxels.updates()
    voxels.repose({number: at(0.3) @ poses[number] for number in moved})
    voxels.repose(poses)
    voxels.hide(moved)
    voxels.show(moved)
    voxels.insert(bumpy(2), poses[2])
    assert len(voxels.updates()) == 0
    voxels.repose({2: at(0.3) @ poses[2]})
    assert 0 < len(voxels.updates()) < len(voxels)


def test_what_looks_as_before_is_not_told_again():
    voxels = VoxelMap(FINE)
    voxels.insert(view(0, 2.0, mask=pixel(12, 12) | pixel(0, 0)), np.eye(4))
    voxels.updates()
    voxels.insert(view(1, 2.0, mask=pixel(12, 12)), np.eye(4))
    assert len(voxels.updates()) == 0
    voxels.insert(view(2, 2.0, rgb=40, mask=pixel(12, 12)), np.eye(4))
    assert voxels.updates().rgb.tolist() == [[80, 80, 80]]


def test_updates_added_up_are_the_map():
    voxels, seen = VoxelMap(FINE), {}
    for number in range(6):
        voxels.insert(bumpy(number), path(number))
        update = voxels.updates()
        cells = np.floor(update.xyz.astype(float) / 0.1).astype(int).tolist()
        seen.update(zip(map(tuple, cells), update.xyz.tolist(), strict=True))
    assert sorted(seen.values()) == sorted(voxels.points().xyz.tolist())


def test_the_voxels_are_bounded_and_the_oldest_keyframes_go_first():
    config = MapConfig(voxel_m=0.02, max_points=1000, min_views=1)
    voxels = VoxelMap(config)
    poses = {number: shifted(10.0 * number) for number in range(7)}
    for number, pose in poses.items():
        voxels.insert(bumpy(number), pose)
        assert len(voxels) <= 1000
    assert_same(voxels.points(), filled(config, {6: poses[6], 5: poses[5]}).points())


def test_a_keyframe_of_too_many_points_keeps_the_heaviest():
    voxels = VoxelMap(MapConfig(voxel_m=0.001, max_points=1000, min_views=1))
    wide = torch.arange(40 * 40).reshape(40, 40)
    voxels.insert(Prediction(
        0, torch.zeros(40, 40, 3, dtype=torch.uint8), torch.full((40, 40), 2.0),
        (wide >= 600) * 0.5 + 0.25, torch.ones(40, 40, dtype=torch.bool), K, np.eye(4)),
        np.eye(4))
    assert len(voxels) == 1000
    assert voxels.points().xyz[:, 1].min() == pytest.approx((15 - 11.5) / 20 * 2, abs=1e-5)


PARTS = 4


def wall(number, at_x, strays=0):
    """Give a keyframe, and its pose, that sees 2.3 by 2.3 m of a wall, and points of its own."""
    depth_m = np.full((SIDE, SIDE), 2.05)
    depth_m[0, :strays] = 3.0 + 0.2 * number
    return view(number, depth_m), shifted(at_x)


def two_rooms(config, laps, strays=0):
    """Pass room A and go round in room B; give the map, and that of A before."""
    voxels = VoxelMap(config)
    for number in range(PARTS):
        voxels.insert(*wall(number, 0.6 * number, strays))
    room_a = voxels.points()
    for number in range(PARTS, PARTS * (1 + laps)):
        voxels.insert(*wall(number, 50.0 + 0.6 * (number % PARTS), strays))
        assert voxels._points <= POINTS_PER_VOXEL * config.max_points
        assert len(voxels) <= config.max_points
    return voxels, room_a


def cells(cloud):
    """Give the voxels of 0.1 m that hold the points of a cloud."""
    return set(map(tuple, np.floor(cloud.xyz.astype(float) / 0.1).astype(int).tolist()))


def test_patrolling_a_room_for_ten_times_the_bound_does_not_forget_another():
    config = MapConfig(voxel_m=0.1, max_points=2500, min_views=1)
    laps = 10 * POINTS_PER_VOXEL * config.max_points // (PARTS * SIDE**2)
    voxels, room_a = two_rooms(config, laps)
    once, _ = two_rooms(config, 1)
    assert len(once) < config.max_points
    assert cells(voxels.points()) == cells(once.points()) > cells(room_a)
    # What is kept of room A is still that of its own keyframes.
    voxels.repose({number: shifted(0.6 * number - 50.0) for number in range(PARTS)})
    assert (voxels.points().xyz[:, 0] < -40.0).sum() > 0.9 * len(room_a)


def test_what_one_keyframe_alone_has_seen_gives_way_before_any_place_that_is_shown():
    config, laps, strays = MapConfig(voxel_m=0.1, max_points=2500, min_views=2), 30, SIDE
    assert PARTS * laps * strays > config.max_points
    voxels, room_a = two_rooms(config, laps, strays)
    twice, _ = two_rooms(config, 2, strays)
    assert cells(voxels.points()) == cells(twice.points()) > cells(room_a)


def test_what_gives_way_does_not_depend_on_who_looks_on():
    config = MapConfig(voxel_m=0.1, max_points=1000, min_views=2)
    quiet, watched = VoxelMap(config), VoxelMap(config)
    for number in range(40):
        for voxels in (quiet, watched):
            voxels.insert(bumpy(number), shifted(0.05 * number))
        watched.points()
        watched.updates()
    assert quiet._points < sum(len(filled(FINE, {n: np.eye(4)})) for n in range(40)) / 2
    assert_same(watched.points(), quiet.points())


def test_of_a_place_seen_often_the_newest_keyframes_stay():
    config = MapConfig(voxel_m=0.1, max_points=1000, min_views=1)
    voxels = VoxelMap(config)
    for number in range(100):
        voxels.insert(view(number, 2.03, rgb=100 + number), np.eye(4))
    before = voxels.points()
    assert before.rgb.min() > 180
    assert len(voxels._keyframes) >= VIEWS_KEPT
    # What is left can be moved, and taken away, without a trace.
    voxels.repose({number: shifted(50.0) for number in range(100)})
    assert voxels.points().xyz[:, 0].min() > 40.0
    voxels.repose({number: np.eye(4) for number in range(100)})
    assert_same(voxels.points(), before)


def test_what_is_farther_than_the_radius_from_the_newest_camera_goes():
    config = MapConfig(voxel_m=0.05, min_views=1, radius_m=4.0)
    voxels = VoxelMap(config)
    for number in range(30):
        voxels.insert(bumpy(number), shifted(0.5 * number))
        xyz = voxels.points().xyz
        assert np.linalg.norm(xyz - [0.5 * number, 0, 0], axis=1).max() <= 4.0
    # What the keyframes within reach show is all there.
    everything = filled(MapConfig(voxel_m=0.05, min_views=1), {
        number: shifted(0.5 * number) for number in range(30)}).points().xyz
    near = everything[np.linalg.norm(everything - [14.5, 0, 0], axis=1) <= 4.0]
    np.testing.assert_array_equal(voxels.points().xyz, near)
    # And of the others nothing is kept.
    voxels.insert(view(30, 100.0), shifted(100.0))
    assert len(voxels) == len(voxels.points()) == 0


def test_negative_coordinates_fall_in_their_own_voxels():
    voxels = VoxelMap(MapConfig(voxel_m=1.0, min_views=1))
    voxels.insert(view(0, 0.5, mask=pixel(11, 11) | pixel(11, 12)), np.eye(4))
    np.testing.assert_allclose(
        voxels.points().xyz, [[-0.0125, -0.0125, 0.5], [0.0125, -0.0125, 0.5]], atol=2e-5)


@pytest.mark.parametrize('far', [1e9, np.inf, np.nan])
def test_points_beyond_what_a_key_can_hold_are_left_out(far):
    voxels = VoxelMap(MapConfig(voxel_m=0.01, min_views=1))
    depth_m = np.full((SIDE, SIDE), far)
    depth_m[12, 12] = 2.0
    voxels.insert(view(0, depth_m), np.eye(4))
    np.testing.assert_allclose(voxels.points().xyz, [[0.05, 0.05, 2.0]], atol=1e-6)
    voxels.repose({0: shifted(1e9)})
    assert len(voxels) == 0
    voxels.repose({0: np.eye(4)})
    assert len(voxels) == 1


def test_clear_forgets_everything():
    voxels = filled(FINE, {0: np.eye(4), 1: at(0.1)})
    voxels.clear()
    assert len(voxels) == len(voxels.points()) == 0
    voxels.insert(bumpy(5), np.eye(4))
    assert_same(voxels.points(), filled(FINE, {5: np.eye(4)}).points())
