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

"""Keyframes on disk come back as they were."""

from dataclasses import replace
import errno
from pathlib import Path

import numpy as np
import pytest

from mapanything_ros.core.errors import ExportError, InputError
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore


def record(keyframe_id: int, stamp_ns: int) -> KeyframeRecord:
    random = np.random.default_rng(keyframe_id)
    depth_m = random.uniform(0.5, 5.0, (6, 8)).astype(np.float32)
    depth_m[2, 3] = np.nan
    pose = np.eye(4)
    pose[:3, 3] = random.normal(size=3)
    return KeyframeRecord(
        keyframe_id, stamp_ns, f'{keyframe_id}.jpg',
        random.integers(0, 256, (6, 8, 3), dtype=np.uint8),
        np.array([[7.1, 0, 3.5], [0, 7.2, 2.5], [0, 0, 1]]), depth_m,
        random.random((6, 8), dtype=np.float32), pose, frame_id='camera_optical',
        odom_from_camera=2 * pose, base_from_camera=3 * pose)


def check_equal(found: KeyframeRecord, expected: KeyframeRecord) -> None:
    for name in ('id', 'stamp_ns', 'name', 'frame_id'):
        assert getattr(found, name) == getattr(expected, name)
    for name in ('rgb', 'intrinsics', 'depth_m', 'confidence', 'map_from_camera',
                 'odom_from_camera', 'base_from_camera'):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype


def test_keyframes_come_back_to_the_bit_and_in_order_of_their_stamps(tmp_path):
    store = KeyframeStore(tmp_path / 'keyframes')
    late, early = record(4, 1_700_000_000_123_456_789), record(7, 1_700_000_000_123_456_788)
    store.add(late)
    store.add(early)
    store.close()
    opened = KeyframeStore.open(tmp_path / 'keyframes')
    assert len(opened) == 2 and opened.ids() == [7, 4]
    for found, expected in zip(opened, [early, late], strict=True):
        check_equal(found, expected)
    check_equal(opened[4], late)


def test_poses_can_change_after_the_fact(tmp_path):
    store = KeyframeStore(tmp_path)
    store.add(record(0, 10))
    store.add(record(1, 20))
    moved = np.eye(4)
    moved[:3, 3] = 1, 2, 3
    store.update_poses({1: moved, 99: np.eye(4)})
    store.close()
    trajectory = KeyframeStore.open(tmp_path).trajectory()
    assert [stamp_ns for stamp_ns, _ in trajectory] == [10, 20]
    np.testing.assert_array_equal(trajectory[0][1], record(0, 10).map_from_camera)
    np.testing.assert_array_equal(trajectory[1][1], moved)


def stretched(pose: np.ndarray, factor: float) -> np.ndarray:
    return pose @ np.diag([factor, factor, factor, 1.0])


def test_a_pose_that_stretches_scales_the_depth_that_came(tmp_path):
    """The first was written at twice the size of when it came, and is three times that now."""
    store, first, second = KeyframeStore(tmp_path), record(0, 10), record(1, 20)
    store.add(first, 2.0)
    store.add(second)
    store.update_poses({
        0: stretched(first.map_from_camera, 3.0), 1: stretched(second.map_from_camera, 0.5)})
    store.close()
    for found in (store, KeyframeStore.open(tmp_path)):
        np.testing.assert_allclose(found[0].depth_m, 1.5 * first.depth_m, rtol=1e-6)
        np.testing.assert_allclose(found[1].depth_m, 0.5 * second.depth_m, rtol=1e-6)
        for (_, pose), before in zip(found.trajectory(), (first, second), strict=True):
            np.testing.assert_allclose(pose, before.map_from_camera, atol=1e-12)
    # What comes again is as large as it is said to be.
    store.add(first, 3.0)
    check_equal(store[0], first)
    store.update_poses({0: stretched(first.map_from_camera, 3.0)})
    np.testing.assert_allclose(store[0].depth_m, first.depth_m, rtol=1e-6)


def test_a_camera_can_be_put_elsewhere_without_its_depth_also_once_opened(tmp_path):
    store, before = KeyframeStore(tmp_path), record(0, 10)
    store.add(before, 2.0)
    store.update_poses({0: stretched(before.map_from_camera, 3.0)})
    store.close()
    moved = np.eye(4)
    moved[:3, 3] = 1, 2, 3
    for found in (store, KeyframeStore.open(tmp_path)):
        found.place({0: moved})
        np.testing.assert_array_equal(found[0].map_from_camera, moved)
        np.testing.assert_allclose(found[0].depth_m, 1.5 * before.depth_m, rtol=1e-6)


def test_what_is_forgotten_leaves_no_file(tmp_path):
    store = KeyframeStore(tmp_path)
    for number in range(3):
        store.add(record(number, 10 * number))
    store.forget([1, 99])
    store.update_poses({1: np.eye(4)})
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        '000000.npz', '000002.npz', 'index.json']
    opened = KeyframeStore.open(tmp_path)
    assert store.ids() == opened.ids() == [0, 2]
    store.add(record(1, 10))
    check_equal(store[1], record(1, 10))


def test_a_store_takes_in_another_with_its_scales(tmp_path):
    whole, part = KeyframeStore(tmp_path / 'whole'), KeyframeStore(tmp_path / 'part')
    whole.add(record(5, 50))
    part.add(record(0, 10), 2.0)
    part.add(record(1, 20))
    part.update_poses({1: stretched(record(1, 20).map_from_camera, 4.0)})
    whole.absorb(part)
    assert [path.name for path in tmp_path.iterdir()] == ['whole']
    assert not len(part) and whole.ids() == [0, 1, 5]
    check_equal(whole[0], record(0, 10))
    check_equal(whole[5], record(5, 50))
    np.testing.assert_allclose(whole[1].depth_m, 4.0 * record(1, 20).depth_m, rtol=1e-6)
    whole.update_poses({
        number: stretched(record(number, 0).map_from_camera, 3.0) for number in (0, 1)})
    whole.close()
    opened = KeyframeStore.open(tmp_path / 'whole')
    for number, factor in ((0, 1.5), (1, 3.0), (5, 1.0)):
        np.testing.assert_allclose(
            opened[number].depth_m, factor * record(number, 0).depth_m, rtol=1e-6)


def test_a_store_can_move_and_go(tmp_path):
    store = KeyframeStore(tmp_path / 'a')
    store.add(record(0, 10))
    store.move(tmp_path / 'b')
    check_equal(store[0], record(0, 10))
    assert [path.name for path in tmp_path.iterdir()] == ['b']
    store.remove()
    assert not len(store) and not list(tmp_path.iterdir())


def test_what_is_not_known_stays_unknown(tmp_path):
    store = KeyframeStore(tmp_path)
    store.add(replace(record(0, 10), odom_from_camera=None))
    assert store[0].odom_from_camera is None and store[0].base_from_camera is not None


def test_all_lengths_can_be_scaled_after_the_fact(tmp_path):
    store = KeyframeStore(tmp_path)
    store.add(record(0, 10))
    store.rescale(3.0)
    store.rescale(0.5)
    store.close()
    found, before = KeyframeStore.open(tmp_path)[0], record(0, 10)
    np.testing.assert_allclose(found.depth_m, 1.5 * before.depth_m, rtol=1e-6)
    np.testing.assert_allclose(
        found.map_from_camera[:3, 3], 1.5 * before.map_from_camera[:3, 3])
    np.testing.assert_array_equal(
        found.map_from_camera[:, :3], before.map_from_camera[:, :3])


def test_a_folder_without_keyframes_says_so(tmp_path):
    with pytest.raises(InputError, match='holds no keyframes of a finished reconstruction'):
        KeyframeStore.open(tmp_path)


def test_a_damaged_keyframe_is_named(tmp_path):
    store = KeyframeStore(tmp_path)
    store.add(record(3, 10))
    path = tmp_path / '000003.npz'
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r'000003\.npz cannot be read'):
        list(store)


def test_a_full_disk_says_which_file(tmp_path, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    store = KeyframeStore(tmp_path)
    monkeypatch.setattr(np, 'savez_compressed', full)
    with pytest.raises(ExportError, match=r'000003\.npz could not be written: No space left'):
        store.add(record(3, 10))
    assert not len(store)


def test_a_place_that_cannot_hold_a_folder_says_so(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ExportError, match='could not be written'):
        KeyframeStore(Path(tmp_path / 'file' / 'keyframes'))
