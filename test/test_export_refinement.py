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

"""Refinement brings keyframes nearer to the truth, or leaves them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from stores import record, room_record, store_of

from mapanything_ros.offline.export.refinement import refine

RECORDS = [room_record(index) for index in range(6)]
VOXEL_M = 0.03


def disturbed(seed, shift_m, turn_deg, noise=0.0):
    """Return the keyframes with poses off by these deviations, and relative noise in depth."""
    random = np.random.default_rng(seed)
    made = []
    for one in RECORDS:
        pose = one.map_from_camera.copy()
        turn = Rotation.from_rotvec(np.radians(random.normal(0, turn_deg, 3)))
        pose[:3, :3] = pose[:3, :3] @ turn.as_matrix()
        pose[:3, 3] += random.normal(0, shift_m, 3)
        factor = 1 + noise * random.standard_normal(one.depth_m.shape)
        made.append(replace(
            one, map_from_camera=pose, depth_m=(one.depth_m * factor).astype(np.float32)))
    return made


def errors(poses):
    """Return metres and degrees, root mean squares, once the first pose is on the truth."""
    truth_from_map = RECORDS[0].map_from_camera @ np.linalg.inv(poses[0])
    off = [
        np.linalg.inv(one.map_from_camera) @ truth_from_map @ pose
        for one, pose in zip(RECORDS, poses, strict=True)]
    turns = Rotation.from_matrix([pose[:3, :3] for pose in off]).magnitude()
    shifts = np.linalg.norm([pose[:3, 3] for pose in off], axis=1)
    return np.sqrt(np.mean(shifts ** 2)), np.degrees(np.sqrt(np.mean(turns ** 2)))


def test_poses_that_are_off_come_nearer_to_the_truth(tmp_path):
    records = disturbed(1, 0.012, 0.4, noise=0.005)
    store = store_of(tmp_path, records)
    made = refine(store, VOXEL_M)
    before, after = (errors(poses) for poses in (
        [one.map_from_camera for one in records], list(made.poses.values())))
    assert made.after_m < 0.9 * made.before_m
    assert after[0] < 0.4 * before[0] and after[1] < 0.4 * before[1]
    assert list(made.poses) == [one.id for one in records]
    # The path as a whole stays where it was.
    drift = np.mean([
        made.poses[one.id][:3, 3] - one.map_from_camera[:3, 3] for one in records], axis=0)
    assert np.linalg.norm(drift) < 0.005


def test_two_runs_are_equal_to_the_bit(tmp_path):
    records = disturbed(1, 0.012, 0.4)
    first, second, third = (
        refine(store_of(tmp_path / name, records), VOXEL_M).poses for name in 'abc')
    assert first and all(
        np.array_equal(pose, other[number])
        for other in (second, third) for number, pose in first.items())


@pytest.mark.parametrize('noise', [0.0, 0.02])
def test_poses_that_are_right_stay(tmp_path, noise):
    made = refine(store_of(tmp_path, disturbed(2, 0.0, 0.0, noise)), VOXEL_M)
    assert made.poses == {} and made.after_m == made.before_m > 0


def test_a_window_that_is_off_as_a_whole_is_brought_back(tmp_path):
    offset = np.eye(4)
    offset[:3, 3] = 0.04, -0.03, 0.02
    records = RECORDS[:3] + [
        replace(one, map_from_camera=offset @ one.map_from_camera) for one in RECORDS[3:]]
    made = refine(store_of(tmp_path, records), VOXEL_M)
    before = errors([one.map_from_camera for one in records])
    assert errors(list(made.poses.values()))[0] < 0.4 * before[0]


def test_keyframes_that_see_nothing_in_common_stay(tmp_path):
    away = RECORDS[0].map_from_camera.copy()
    away[:3, 3] += 50
    far = replace(RECORDS[1], map_from_camera=away)
    blank = record(
        7, RECORDS[2].rgb, np.full((240, 320), np.nan), RECORDS[2].intrinsics,
        RECORDS[2].map_from_camera)
    assert refine(store_of(tmp_path / 'a', [RECORDS[0], far, blank]), VOXEL_M).poses == {}
    assert refine(store_of(tmp_path / 'b', RECORDS[:1]), VOXEL_M).poses == {}
    assert refine(store_of(tmp_path / 'c', []), VOXEL_M).poses == {}
