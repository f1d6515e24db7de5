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
import threading

import numpy as np
import pytest
import torch

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config, from_values, WindowConfig
from mapanything_ros.core.datatypes import Frame, Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import (
    ExportError,
    InputError,
    ReconstructionError,
    WindowTooLargeError,
)
from mapanything_ros.core.reconstructor import Reconstructor, REST_NS

RGB = np.full((8, 8, 3), 50, np.uint8)
K = np.array([[8.0, 0, 3.5], [0, 8, 3.5], [0, 0, 1]])
CONFIG = from_values(Config, {
    'pose_source': 'tf', 'tf.odom_frame': 'odom', 'window.size': 3, 'window.overlap': 1,
    'keyframes.min_translation_m': 0.1, 'keyframes.min_sharpness': 0.0, 'map.min_views': 1,
    'map.voxel_m': 0.01})


def pose(number):
    """Give odom_from_camera: the camera moves along odom's x and looks along its z."""
    matrix = np.eye(4)
    matrix[0, 3] = 0.2 * number
    return matrix


def frame(number, rgb=RGB):
    def keyframe(keyframe_id):
        if rgb is None:
            raise InputError('the image cannot be decoded')
        return Keyframe(keyframe_id, number, 'camera', rgb, K, None, pose(number))

    return Frame(number, lambda: RGB[..., 0], keyframe, pose(number))


class WallBackend(Backend):
    """Sees a wall at z = 2, exactly."""

    name = 'wall'

    def __init__(self):
        self.windows = []
        self.failure = None
        self.fits = 10
        self.gate = threading.Event()
        self.gate.set()

    def infer(self, keyframes):
        self.windows.append([k.id for k in keyframes])
        self.gate.wait(10)
        if self.failure:
            raise self.failure
        if len(keyframes) > self.fits:
            raise WindowTooLargeError('too large', self.fits)
        world_from_odom = np.linalg.inv(pose(keyframes[0].stamp_ns))
        return WindowPrediction(tuple(
            Prediction(
                k.id, torch.from_numpy(k.rgb), torch.full((8, 8), 2.0), torch.ones(8, 8),
                torch.ones(8, 8, dtype=torch.bool), K, world_from_odom @ pose(k.stamp_ns))
            for k in keyframes), Scale('odometry'))


@pytest.fixture
def backend():
    return WallBackend()


@pytest.fixture
def reconstructor(backend):
    return Reconstructor(CONFIG, backend)


def feed(reconstructor, numbers):
    submaps = []
    for number in numbers:
        reconstructor.add(frame(number))
        window = reconstructor.take()
        if window:
            submaps.append(reconstructor.process(window))
    return submaps


def test_frames_become_a_path_and_a_map_of_the_wall(reconstructor, backend):
    submaps = feed(reconstructor, range(7))
    assert backend.windows == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert [sorted(s.new_ids) for s in submaps] == [[0, 1, 2], [3, 4], [5, 6]]
    trajectory = reconstructor.trajectory()
    assert [stamp_ns for stamp_ns, _ in trajectory] == list(range(7))
    for stamp_ns, map_from_camera in trajectory:
        np.testing.assert_allclose(map_from_camera, pose(stamp_ns), atol=1e-9)
    points = reconstructor.map_points().xyz
    np.testing.assert_allclose(points[:, 2], 2.0, atol=1e-6)
    # Rays through the outer pixel centres, 3.5 pixels off the axis, at 2 m; then 1.2 m of path.
    assert points[:, 0].min() == pytest.approx(-3.5 / 8 * 2, abs=1e-5)
    assert points[:, 0].max() == pytest.approx(3.5 / 8 * 2 + 1.2, abs=1e-5)


def test_a_keyframe_of_two_windows_shows_what_either_has_seen(reconstructor, backend, monkeypatch):
    """The first window sees its upper half, the second one the lower half."""
    def infer(keyframes, whole=backend.infer):
        window = whole(keyframes)
        rows = slice(0, 4) if len(backend.windows) == 1 else slice(4, 8)
        views = []
        for view in window.views:
            mask = torch.zeros_like(view.mask)
            mask[rows] = True
            views.append(replace(view, mask=mask))
        return replace(window, views=tuple(views))

    monkeypatch.setattr(backend, 'infer', infer)
    _, second = feed(reconstructor, range(5))
    shared = next(view for view in second.views if view.keyframe_id == 2)
    assert shared.keyframe_id not in second.new_ids and shared.mask.all()
    assert [int(view.mask.sum()) for view in second.views] == [64, 32, 32]
    # The lower half (y down) begins where the third camera sees it, not the first.
    points = reconstructor.map_points().xyz
    assert points[points[:, 1] > 0, 0].min() == pytest.approx(-3.5 / 8 * 2 + 0.4, abs=1e-5)


def test_a_frame_that_cannot_be_decoded_is_forgotten_and_the_next_one_works(reconstructor):
    reconstructor.add(frame(0))
    with pytest.raises(InputError):
        reconstructor.add(frame(1, rgb=None))
    assert reconstructor.add(frame(1)).accepted
    assert reconstructor.statistics()['keyframes'] == 2


@pytest.mark.parametrize('failure', [
    ReconstructionError('on purpose'), RuntimeError('CUDA error: unknown error'),
    np.linalg.LinAlgError('Singular matrix')])
def test_a_failed_window_is_retried_with_the_next_keyframe_and_the_map_stays(
    reconstructor, backend, failure
):
    feed(reconstructor, range(3))
    before = len(reconstructor.map_points())
    backend.failure = failure
    with pytest.raises(type(failure)):
        feed(reconstructor, [3, 4])
    assert len(reconstructor.map_points()) == before
    backend.failure = None
    (submap,) = feed(reconstructor, [5])
    assert submap.new_ids == {3, 4, 5}


def wide(backend):
    return Reconstructor(replace(CONFIG, window=WindowConfig(size=6, overlap=2)), backend)


def drain(reconstructor):
    """Process all that waits; return how many windows were too large."""
    refused = 0
    while window := reconstructor.take():
        try:
            reconstructor.process(window)
        except WindowTooLargeError:
            refused += 1
    return refused


def mapped(reconstructor):
    return [stamp_ns for stamp_ns, _ in reconstructor.trajectory()]


def test_a_window_that_is_too_large_comes_again_in_parts_and_no_keyframe_is_lost(backend):
    reconstructor = wide(backend)
    feed(reconstructor, range(6))
    backend.fits = 3
    for number in range(6, 10):
        reconstructor.add(frame(number))
    assert drain(reconstructor) == 1
    reconstructor.add(frame(10))
    assert drain(reconstructor) == 0, 'later windows are as small'
    assert backend.windows == [
        [0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9], [4, 5, 6], [5, 6, 7], [6, 7, 8], [7, 8, 9],
        [8, 9, 10]]
    assert mapped(reconstructor) == list(range(11))
    for stamp_ns, map_from_camera in reconstructor.trajectory():
        np.testing.assert_allclose(map_from_camera, pose(stamp_ns), atol=1e-9)
    assert reconstructor.statistics()['keyframes_dropped'] == 0


def test_keyframes_that_come_while_a_window_is_found_too_large_are_kept(backend):
    reconstructor = wide(backend)
    for number in range(6):
        reconstructor.add(frame(number))
    backend.fits = 2
    window = reconstructor.take()
    for number in range(6, 11):
        reconstructor.add(frame(number))
    with pytest.raises(WindowTooLargeError):
        reconstructor.process(window)
    assert drain(reconstructor) == 0
    assert mapped(reconstructor) == list(range(11))
    assert reconstructor.statistics()['keyframes_dropped'] == 0


def test_where_no_smaller_window_would_do_the_window_is_tried_again(reconstructor, backend):
    feed(reconstructor, range(3))
    backend.fits = 0
    with pytest.raises(WindowTooLargeError):
        feed(reconstructor, [3, 4])
    backend.fits = 10
    (submap,) = feed(reconstructor, [5])
    assert submap.new_ids == {3, 4, 5}
    assert backend.windows[-1] == [3, 4, 5]


def test_a_window_from_before_a_reset_that_was_too_large_does_not_come_again(backend):
    reconstructor = wide(backend)
    for number in range(6):
        reconstructor.add(frame(number))
    backend.fits = 3
    window = reconstructor.take()
    reconstructor.reset()
    with pytest.raises(WindowTooLargeError):
        reconstructor.process(window)
    assert reconstructor.take() is None
    for number in range(10, 13):
        reconstructor.add(frame(number))
    assert drain(reconstructor) == 0
    assert mapped(reconstructor) == [10, 11, 12]


def test_a_reset_while_a_window_is_computed_throws_the_window_away(reconstructor, backend):
    backend.gate.clear()
    for number in range(3):
        reconstructor.add(frame(number))
    window, results = reconstructor.take(), []
    thread = threading.Thread(target=lambda: results.append(reconstructor.process(window)))
    thread.start()
    reconstructor.reset()
    backend.gate.set()
    thread.join(10)
    assert results == [None]
    assert len(reconstructor.map_points()) == len(reconstructor.trajectory()) == 0
    assert len(feed(reconstructor, [0, 1, 2])) == 1


@pytest.fixture
def slow_loops(reconstructor, monkeypatch):
    """Keep the map at work, as closing loops does; give the events that it begins and may end."""
    at_work, done = threading.Event(), threading.Event()
    close_loops = reconstructor._close_loops

    def slow(*arguments):
        at_work.set()
        assert done.wait(10)
        return close_loops(*arguments)

    monkeypatch.setattr(reconstructor, '_close_loops', slow)
    return at_work, done


def test_statistics_do_not_wait_while_the_map_is_at_work(reconstructor, slow_loops):
    at_work, done = slow_loops
    thread = threading.Thread(target=feed, args=(reconstructor, range(3)))
    thread.start()
    assert at_work.wait(10)
    asked = threading.Thread(target=reconstructor.statistics, daemon=True)
    asked.start()
    asked.join(5)
    waits = asked.is_alive()
    done.set()
    thread.join()
    assert not waits
    assert reconstructor.statistics()['map_voxels'] == len(reconstructor.map_points())


def test_what_is_buffered_can_be_reconstructed_before_the_window_is_full(reconstructor):
    for number in range(2):
        reconstructor.add(frame(number))
    assert reconstructor.take() is None
    submap = reconstructor.process(reconstructor.take(partial=True))
    assert submap.new_ids == {0, 1}
    assert reconstructor.take(partial=True) is None


def test_the_backend_sees_odometry_only_where_it_is_trusted():
    seen = []

    class Spy(WallBackend):

        def infer(self, keyframes):
            seen.extend(k.odom_from_camera for k in keyframes)
            return super().infer(keyframes)

    untrusting = from_values(Config, {
        'tf.odom_frame': 'odom', 'window.size': 3, 'window.overlap': 1,
        'keyframes.min_translation_m': 0.1, 'keyframes.min_sharpness': 0.0})
    feed(Reconstructor(untrusting, Spy()), range(3))
    assert seen == [None] * 3
    feed(Reconstructor(CONFIG, Spy()), range(3))
    np.testing.assert_array_equal(seen[-1], pose(2))


def test_saving_writes_what_was_mapped(reconstructor, tmp_path):
    with pytest.raises(ExportError, match='nothing to save yet'):
        reconstructor.save(tmp_path)
    assert not list(tmp_path.iterdir())
    feed(reconstructor, range(3))
    paths = reconstructor.save(tmp_path)
    assert [path.name for path in paths] == ['map.ply', 'trajectory.tum']
    assert len((tmp_path / 'trajectory.tum').read_text().splitlines()) == 3


def test_a_camera_that_rests_is_mapped_as_far_as_it_came(reconstructor, backend):
    for number in range(2):
        reconstructor.add(frame(number))
    still = frame(1)
    for late_ns, there in ((REST_NS - 1, []), (REST_NS, [0, 1])):
        reconstructor.add(replace(still, stamp_ns=still.stamp_ns + late_ns))
        drain(reconstructor)
        assert mapped(reconstructor) == there


def test_a_restart_does_not_wait_for_the_map_and_is_done_before_the_next_window(
        reconstructor, slow_loops):
    at_work, done = slow_loops
    for number in range(3):
        reconstructor.add(frame(number))
    thread = threading.Thread(target=reconstructor.process, args=(reconstructor.take(),))
    thread.start()
    assert at_work.wait(10)
    reconstructor.restart()
    for number in range(10, 13):
        reconstructor.add(frame(number))
    window = reconstructor.take()
    done.set()
    thread.join(10)
    # Nobody has cleared the map in between.
    reconstructor.process(window)
    assert mapped(reconstructor) == [10, 11, 12]
