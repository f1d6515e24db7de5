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
from functools import lru_cache

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.config import LoopClosureConfig
from mapanything_ros.core.datatypes import Keyframe, Prediction
from mapanything_ros.core.places.loop_closure import LoopClosure
from mapanything_ros.sample.room import Room

WIDTH, HEIGHT = 160, 120
K = np.array([[110.0, 0.0, 79.5], [0.0, 110.0, 59.5], [0.0, 0.0, 1.0]])
HALF_K = np.array([[55.0, 0.0, 39.5], [0.0, 55.0, 29.5], [0.0, 0.0, 1.0]])
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
LAP, COUNT = 40, 56
CONFIG = LoopClosureConfig(enabled=True, min_gap_m=4.5)
HALL = (2.0, 2.5)


def camera(position, yaw):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('z', yaw).as_matrix() @ OPTICAL
    pose[:3, 3] = position
    return pose


def prediction(number, rgb, depth_m, descriptor=None):
    """Predict at half the size, exactly."""
    half = (WIDTH // 2, HEIGHT // 2)
    known = cv2.resize((depth_m > 0).astype(np.float32), half, interpolation=cv2.INTER_AREA) == 1
    return Prediction(
        number, torch.from_numpy(cv2.resize(rgb, half, interpolation=cv2.INTER_AREA)),
        torch.from_numpy(cv2.resize(depth_m, half, interpolation=cv2.INTER_AREA)),
        torch.ones(*known.shape), torch.from_numpy(known), HALF_K, np.eye(4), descriptor)


@lru_cache(maxsize=1)
def lap_and_a_half():
    """Walk a circle of 5 m in the sample room, looking outward; give poses and views."""
    room, poses, views = Room(seed=0), [], []
    for number in range(COUNT):
        angle = 2 * np.pi * number / LAP
        wave = 0.03 * np.sin(1.3 * number)
        pose = camera([2.5 + 0.8 * np.cos(angle), 2 + 0.8 * np.sin(angle), 1.3 + wave], angle)
        seen = room.render(pose, K, WIDTH, HEIGHT)
        poses.append(pose)
        views.append((seen.rgb, seen.depth_m))
    return poses, views


def drifting(poses):
    """Turn each step a little too far."""
    bend = camera([0, 0, 0], 0.003) @ np.linalg.inv(camera([0, 0, 0], 0.0))
    drifted, error = [], np.eye(4)
    for pose in poses:
        drifted.append(error @ pose)
        error = bend @ error
    return drifted


def run(loops, poses, views, numbers=None, segment=0, **changes):
    edges = []
    for number in range(len(poses)) if numbers is None else numbers:
        rgb, depth_m = views[number]
        keyframe = Keyframe(number, number, 'camera', rgb, K)
        edges += loops.add(
            replace(keyframe, **changes), prediction(number, rgb, depth_m), poses[number],
            segment)
    return edges


def assert_true(edges, poses, limit_m=0.03, limit_deg=1.0):
    """Each loop is close to the truth, and knows how close."""
    for edge in edges:
        truth = np.linalg.inv(poses[edge.older]) @ poses[edge.newer]
        error = np.linalg.inv(truth) @ edge.older_from_newer
        assert np.linalg.norm(error[:3, 3]) < limit_m, edge
        assert Rotation.from_matrix(error[:3, :3]).magnitude() < np.radians(limit_deg), edge
        assert edge.fits(poses[edge.older], poses[edge.newer])


def paint(rng, height, width):
    """Paint blotches and rectangles that features stick to."""
    picture = np.full((height, width, 3), 120, np.float32)
    for size in (5, 12, 30):
        noise = rng.normal(0, 14, (height // size + 2, width // size + 2, 3))
        picture += cv2.resize(noise.astype(np.float32), (width, height))
    for _ in range(height * width // 1200):
        x, y = rng.integers(0, (width, height)).tolist()
        w, h = rng.integers(4, 20, 2).tolist()
        cv2.rectangle(picture, (x, y), (x + w, y + h), rng.uniform(20, 235, 3).tolist(), -1)
    return np.clip(picture, 0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def hall(period_m, length_m=60):
    """Walk 24 m down a hall whose looks repeat themselves; give poses and views."""
    rng = np.random.default_rng(1)
    texel_m = 0.025
    walls = [paint(rng, 100, round(length_m / texel_m)) for _ in range(4)]
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    poses, views = [], []
    for number in range(64):
        position = np.array([0.375 * number, 1.0 + 0.1 * np.sin(number), 1.3])
        pose = camera(position, 0.4 + 0.02 * np.sin(2 * number))
        rays = np.stack([(u - 79.5) / 110, (v - 59.5) / 110, np.ones_like(u)], axis=-1)
        rays = rays @ pose[:3, :3].T
        reach = [
            (np.where(rays[..., axis] > 0, HALL[axis - 1], 0.0) - position[axis])
            / rays[..., axis] for axis in (1, 2)]
        depth = np.minimum(*reach)
        points = position + depth[..., None] * rays
        side = np.where(reach[0] < reach[1], rays[..., 1] > 0, 2 + (rays[..., 2] > 0))
        across = np.where(reach[0] < reach[1], points[..., 2], points[..., 1])
        column = (points[..., 0] % period_m / texel_m).astype(int)
        row = np.clip(across / texel_m, 0, 99).astype(int)
        rgb = np.stack(walls)[side.astype(int), row, column]
        poses.append(pose)
        views.append((rgb, np.where(depth < 12, depth, 0).astype(np.float32)))
    return poses, views


def test_a_second_lap_is_found_everywhere_and_every_loop_is_true():
    poses, views = lap_and_a_half()
    loops = LoopClosure(CONFIG)
    edges = run(loops, drifting(poses), views)
    assert_true(edges, poses)
    # One for each 5 keyframes of the second lap, and the first came with two that had waited.
    assert len(edges) >= 5
    assert {edge.newer - edge.older for edge in edges} <= set(range(LAP - 5, LAP + 6))
    assert loops.statistics()['loop_closed'] == len(edges)


def test_the_same_keyframes_give_the_same_loops():
    poses, views = lap_and_a_half()
    first, second = (run(LoopClosure(CONFIG), poses, views) for _ in range(2))
    assert [(e.older, e.newer) for e in first] == [(e.older, e.newer) for e in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.older_from_newer, other.older_from_newer)


def test_without_intrinsics_the_picture_of_the_backend_serves():
    poses, views = lap_and_a_half()
    edges = run(LoopClosure(CONFIG), poses, views, intrinsics=None)
    assert_true(edges, poses, limit_m=0.1, limit_deg=3.0)
    assert edges


def test_one_lap_is_no_loop():
    poses, views = lap_and_a_half()
    loops = LoopClosure(CONFIG)
    assert run(loops, poses[:34], views) == []


def test_a_loop_waits_until_others_tell_the_same():
    poses, views = lap_and_a_half()
    loops = LoopClosure(replace(CONFIG, min_consistent=3))
    waiting = 0
    for number in range(COUNT):
        edges = run(loops, poses, views, [number])
        if edges:
            break
        waiting = loops.statistics().get('loop_unconfirmed', 0)
    assert waiting == 2
    assert [edge.newer for edge in edges] == sorted({edge.newer for edge in edges})
    assert len(edges) == 3
    assert loops.statistics()['loop_unconfirmed'] == 0


def test_a_hall_that_repeats_itself_gives_no_loop():
    loops = LoopClosure(CONFIG)
    assert run(loops, *hall(3.0)) == []
    assert loops.statistics()['loop_refused_ambiguous'] > 20


def test_two_places_that_look_the_same_far_apart_are_no_loop():
    loops = LoopClosure(CONFIG)
    assert run(loops, *hall(15.0)) == []
    assert loops.statistics()['loop_refused_drift'] > 10


def test_the_same_places_would_have_been_found_had_the_path_come_back():
    poses, views = hall(15.0)
    back = [pose.copy() for pose in poses]
    for pose in back:
        pose[0, 3] %= 15.0
    edges = run(LoopClosure(CONFIG), back, views)
    assert_true(edges, back)
    assert edges


@pytest.mark.parametrize('factor, reason', [(1.6, 'scale'), (1.1, None)])
def test_a_place_of_another_scale_is_refused(factor, reason):
    poses, views = lap_and_a_half()
    views = [
        (rgb, depth_m * np.float32(factor if number >= 30 else 1))
        for number, (rgb, depth_m) in enumerate(views)]
    loops = LoopClosure(CONFIG)
    edges = run(loops, poses, views)
    assert bool(edges) is (reason is None)
    if reason:
        assert loops.statistics()[f'loop_refused_{reason}'] > 5


def test_features_in_one_corner_alone_are_no_evidence():
    poses, views = lap_and_a_half()
    cornered = []
    for rgb, depth_m in views:
        depth_m = depth_m.copy()
        depth_m[:, WIDTH // 2:] = 0
        depth_m[HEIGHT // 2:] = 0
        cornered.append((rgb, depth_m))
    loops = LoopClosure(replace(CONFIG, min_inliers=6))
    assert run(loops, poses, cornered) == []
    assert loops.statistics()['loop_refused_spread'] > 0


@pytest.mark.parametrize('across', [0, LAP // 2], ids=['right', 'wrong'])
def test_the_descriptor_of_the_backend_is_used_where_there_is_one(across):
    poses, views = lap_and_a_half()
    loops = LoopClosure(replace(CONFIG, min_gap_m=2.5))
    edges = []
    for number, (rgb, depth_m) in enumerate(views):
        # A wrong one says that it looks as it does on the other side of the ring.
        angle = 2 * np.pi * (number if number < 34 else number + across) / LAP
        descriptor = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)
        edges += loops.add(
            Keyframe(number, number, 'camera', rgb, K),
            prediction(number, rgb, depth_m, descriptor), poses[number])
    assert_true(edges, poses)
    assert bool(edges) is (across == 0)


def test_a_picture_without_features_or_depth_is_counted_and_forgotten():
    loops = LoopClosure(CONFIG)
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.ones((HEIGHT, WIDTH), np.float32)
    rgb, depth_m = lap_and_a_half()[1][0]
    assert run(loops, [np.eye(4)] * 2, [blank, (rgb, 0 * depth_m)]) == []
    assert loops.statistics() == {'loop_keyframes_without_features': 2}


def patrol(rounds):
    """Walk a quarter of the ring, then go to and fro in another for so long, then come back."""
    there, beat = list(range(10)), list(range(16, 26))
    return there, [*there, *(beat + beat[::-1]) * rounds, *there]


def test_a_patrol_of_one_place_does_not_forget_another():
    poses, views = lap_and_a_half()
    there, walk = patrol(rounds=15)
    loops = LoopClosure(replace(CONFIG, max_keyframes=30, min_gap_m=2.0))
    edges = run(loops, [poses[i] for i in walk], [views[i] for i in walk])
    assert len(walk) > 10 * 30
    assert len(loops._places) == 30
    back = [edge for edge in edges if edge.newer >= len(walk) - len(there)]
    assert back
    assert all(edge.older < len(there) for edge in back)
    assert_true(edges, [poses[i] for i in walk])


def test_where_no_place_is_near_another_the_oldest_are_forgotten():
    poses, views = hall(60)
    apart = [camera([10.0 * number, 0, 0], 0.0) for number in range(len(poses))]
    loops = LoopClosure(replace(CONFIG, max_keyframes=30))
    run(loops, apart, views)
    assert list(loops._places) == list(range(len(poses) - 30, len(poses)))


def other_segment(poses, views, scale, start):
    """From a keyframe on, give a map of its own: another frame, another unit."""
    shift = camera([9.0, -4.0, 2.0], 1.1)
    stretch = np.diag([scale] * 3 + [1.0])
    poses, views = list(poses), list(views)
    for number in range(start, len(poses)):
        poses[number] = stretch @ shift @ poses[number] @ np.linalg.inv(stretch)
        views[number] = views[number][0], views[number][1] * np.float32(scale)
    return poses, views, np.linalg.inv(stretch @ shift)


@pytest.mark.parametrize('scale', [1.0, 2.5, 0.3])
def test_a_place_of_another_segment_joins_them_whatever_its_frame_and_scale(scale):
    true, views = lap_and_a_half()
    poses, views, first_from_second = other_segment(true, views, scale, 34)
    loops = LoopClosure(CONFIG)
    assert run(loops, poses, views, range(34)) == []
    edges = run(loops, poses, views, range(34, COUNT), segment=1)
    # No path between them is long enough, nor any pose near.
    assert len(edges) >= 3
    assert_true(edges, true)
    for edge in edges:
        assert edge.older < 34 <= edge.newer
        assert abs(np.log(edge.scale / scale)) < 3 * edge.sigma_scale
        joined = poses[edge.older] @ edge.similarity @ np.linalg.inv(poses[edge.newer])
        np.testing.assert_allclose(
            joined[:3, :3], first_from_second[:3, :3], atol=0.03 / scale)


def test_segments_that_were_joined_are_one_with_places_of_both():
    true, views = lap_and_a_half()
    poses, scaled, first_from_second = other_segment(true, views, 2.5, 20)
    loops = LoopClosure(CONFIG)
    run(loops, poses, scaled, range(20))
    run(loops, poses, scaled, range(20, LAP), segment=1)
    # As a graph would have them: similarities, from the unit that each view came in.
    loops.repose({number: first_from_second @ poses[number] for number in range(20, LAP)},
                 dict.fromkeys(range(20, LAP), 0))
    # The path is as long as if it had been one all the time.
    whole_m = np.linalg.norm(np.diff([pose[:3, 3] for pose in true[:LAP]], axis=0), axis=1).sum()
    assert loops._path_m == pytest.approx(whole_m, rel=0.01)
    edges = run(loops, true, views, range(LAP, COUNT))
    edges += run(loops, [*true, *true], [*views, *views], range(COUNT + 20, COUNT + LAP))
    assert_true(edges, [*true, *true])
    assert any(edge.older < 20 for edge in edges)
    second = [edge for edge in edges if 20 <= edge.older < LAP]
    assert second
    for edge in second:
        assert edge.scale == pytest.approx(1 / 2.5, rel=0.03)


def test_a_segment_in_a_hall_that_repeats_itself_is_not_joined():
    poses, views = hall(3.0)
    loops = LoopClosure(CONFIG)
    assert run(loops, poses, views, range(40)) == []
    assert run(loops, poses, views, range(40, len(poses)), segment=1) == []
    assert loops.statistics()['loop_refused_ambiguous'] > 20


def test_clear_forgets_the_places():
    poses, views = lap_and_a_half()
    loops = LoopClosure(CONFIG)
    run(loops, poses, views, range(LAP))
    loops.clear()
    assert run(loops, poses, views, range(LAP, COUNT)) == []


def test_keyframes_that_were_forgotten_are_never_recognised_and_their_loops_are_gone():
    poses, views = lap_and_a_half()
    drifted, loops = drifting(poses), LoopClosure(CONFIG)
    run(loops, drifted, views, range(LAP))
    loops.forget([*range(8), 999])
    edges = run(loops, drifted, views, range(LAP, COUNT))
    assert edges, 'the others are still known'
    assert min(edge.older for edge in edges) >= 8
    assert_true(edges, poses)
    assert loops._closed
    loops.forget([edge.newer for edge in edges])
    assert not loops._closed and not loops._waiting


def test_a_map_that_was_moved_takes_its_places_along():
    poses, views = lap_and_a_half()
    moved = [camera([7.0, -3.0, 1.0], 2.0) @ pose for pose in poses]
    loops = LoopClosure(CONFIG)
    run(loops, poses, views, range(30))
    loops.repose(dict(enumerate(moved[:30])))
    edges = run(loops, moved, views, range(30, COUNT))
    assert_true(edges, poses)
    assert edges


def test_a_move_does_not_lengthen_the_path():
    poses, views = lap_and_a_half()
    loops, rgb, depth_m = LoopClosure(CONFIG), *views[0]
    run(loops, poses, views, range(2))
    # Where there is nothing to see, the camera goes on for 10 m.
    blank = prediction(2, rgb, np.zeros_like(depth_m))
    far = camera([10.0, 0.0, 0.0], 0.0) @ poses[1]
    loops.add(Keyframe(2, 2, 'camera', rgb, K), blank, far)
    before_m = loops._path_m
    shift = camera([0.0, 3.0, 0.0], 1.0)
    loops.repose({number: shift @ pose for number, pose in enumerate([*poses[:2], far])})
    loops.add(Keyframe(3, 3, 'camera', rgb, K), blank, shift @ far)
    assert loops._path_m == pytest.approx(before_m)


def test_a_keyframe_that_has_no_descriptor_yet_can_be_forgotten():
    poses, views = lap_and_a_half()
    loops = LoopClosure(CONFIG)
    run(loops, poses, views, range(5))
    loops.forget([2])
    assert list(loops._places) == [0, 1, 3, 4]
