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

from helpers import BODY_FROM_OPTICAL
import numpy as np
import pytest
import torch

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config, from_values, LoopClosureConfig, WindowConfig
from mapanything_ros.core.datatypes import Frame, Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import (
    AlignmentError,
    ExportError,
    InputError,
    ReconstructionError,
    WindowTooLargeError,
)
from mapanything_ros.core.estimation.similarity import scale_of
from mapanything_ros.core.map.voxel_map import VoxelMap
from mapanything_ros.core.places.loop_edge import LoopEdge
from mapanything_ros.core.reconstructor import Reconstructor, REST_NS
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.reconstruction import Reconstruction

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


def test_a_window_that_contradicts_the_last_is_judged_by_one_between_and_nothing_is_lost(
    backend, monkeypatch,
):
    def infer(keyframes, whole=backend.infer):
        window = whole(keyframes)
        if keyframes[0].id != 4:
            return window
        wrong = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 2.0], [0, 0, 0, 1]])
        return replace(window, views=tuple(
            replace(view, world_from_camera=view.world_from_camera @ wrong)
            if view.keyframe_id % 2 else view for view in window.views))

    monkeypatch.setattr(backend, 'infer', infer)
    reconstructor = wide(backend)
    feed(reconstructor, range(6))
    with pytest.raises(AlignmentError, match='disagrees'):
        feed(reconstructor, range(6, 10))
    assert drain(reconstructor) == 0 and mapped(reconstructor) == [*range(7)]
    feed(reconstructor, [10])
    assert backend.windows == [[*range(6)], [*range(4, 10)], [*range(1, 7)], [*range(5, 11)]]
    for stamp_ns, map_from_camera in reconstructor.trajectory():
        np.testing.assert_allclose(map_from_camera, pose(stamp_ns), atol=1e-6)
    assert mapped(reconstructor) == [*range(11)]


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


class GivenLoops:
    """Stands for LoopClosure: gives these loops when their newer keyframe comes, and is strict."""

    def __init__(self, loops=()):
        self.waiting = list(loops)
        # Of each keyframe its segment and map_from_view.
        self.places = {}

    def add(self, keyframe, view, map_from_camera, segment):
        assert keyframe.id == view.keyframe_id and keyframe.id not in self.places
        np.testing.assert_allclose(
            map_from_camera[:3, :3] @ map_from_camera[:3, :3].T, np.eye(3), atol=1e-9)
        self.places[keyframe.id] = segment, map_from_camera
        given = [edge for edge in self.waiting if edge.newer == keyframe.id]
        assert all(edge.older in self.places for edge in given)
        self.waiting = [edge for edge in self.waiting if edge not in given]
        return given

    def repose(self, poses, segments=None):
        for number, pose in poses.items():
            segment, _ = self.places[number]
            self.places[number] = (segments or {}).get(number, segment), pose

    def forget(self, numbers):
        for number in numbers:
            del self.places[number]

    def clear(self):
        self.places.clear()

    def statistics(self):
        return {'loop_closed': 0}


class GappyBackend(WallBackend):
    """Sees the wall without knowing metres; from keyframe 8 on all is larger."""

    def __init__(self, larger=1.0):
        super().__init__()
        self.larger = larger
        # Keyframes that a window sees elsewhere, by the first of the window.
        self.wrong = {}

    def statistics(self):
        return {}

    def infer(self, keyframes):
        window = super().infer(keyframes)
        factor = self.larger if keyframes[0].id >= 8 else 1.0
        views = []
        for view in window.views:
            pose = view.world_from_camera.copy()
            pose[:3, 3] *= factor
            if self.wrong.get(keyframes[0].id) == view.keyframe_id:
                pose[:3, 3] += 0.7
            views.append(replace(
                view, depth_m=factor * view.depth_m, world_from_camera=pose))
        return replace(window, views=tuple(views), scale=Scale('none'))


def without_odometry(backend, loops=(), **values):
    """Give a reconstructor that chooses keyframes by odometry and knows nothing else of it."""
    config = from_values(Config, {
        'pose_source': 'tf', 'pose_use': 'prior', 'tf.odom_frame': 'odom', 'window.size': 4,
        'window.overlap': 2, 'keyframes.min_translation_m': 0.1, 'keyframes.min_sharpness': 0.0,
        'map.min_views': 1, 'map.voxel_m': 0.01, 'loop_closure.enabled': True, **values})
    reconstructor = Reconstructor(config, backend)
    reconstructor._loops = GivenLoops(loops)
    return reconstructor


def unposed(number):
    """Give a frame whose keyframe has no odometry."""
    whole = frame(number)
    return replace(
        whole, keyframe=lambda number: replace(whole.keyframe(number), odom_from_camera=None))


def go(reconstructor, numbers):
    submaps = []
    for number in numbers:
        assert reconstructor.add(unposed(number)).accepted
        if window := reconstructor.take():
            submaps.append(reconstructor.process(window))
    return submaps


def go_with_a_gap(reconstructor, backend, last):
    """Lose the windows that would tie keyframes 0 to 7 to those from 8 on."""
    submaps = go(reconstructor, range(8))
    backend.failure = ReconstructionError('on purpose')
    for number in (8, 9, 10):
        reconstructor.add(unposed(number))
        if window := reconstructor.take():
            with pytest.raises(ReconstructionError):
                reconstructor.process(window)
    backend.failure = None
    return submaps + go(reconstructor, range(11, last + 1))


def views_of(reconstructor):
    """Give what the map is told of each keyframe, as it is told."""
    views, insert = {}, reconstructor._map.insert

    def listen(view, map_from_camera):
        views[view.keyframe_id] = view
        insert(view, map_from_camera)

    reconstructor._map.insert = listen
    return views


def assert_map_follows(reconstructor, views):
    """Check that all points are within half a voxel of their poses, and no others are there."""
    poses, voxels = reconstructor.map_from_views(), reconstructor._map
    half_m = 0.5 * reconstructor._config.map.voxel_m
    shown = {number for number, placed in voxels._keyframes.items() if placed.shown}
    assert shown == poses.keys()
    for number, pose in poses.items():
        assert voxels._keyframes[number].moves_m(pose) <= half_m
    # Without a tolerance it is to the bit the map that is built afresh.
    voxels.repose(poses)
    afresh = VoxelMap(reconstructor._config.map)
    for number, pose in poses.items():
        afresh.insert(views[number], pose)
    found, expected = voxels.points(), afresh.points()
    assert len(expected) > 100
    np.testing.assert_array_equal(found.xyz, expected.xyz)
    np.testing.assert_array_equal(found.rgb, expected.rgb)
    # Places are known where the map has them.
    for number, pose in poses.items():
        np.testing.assert_allclose(reconstructor._loops.places[number][1], pose, atol=1e-9)


def assert_true_path(reconstructor, numbers):
    """Check that the camera moves along the wall, and looks along the map's x."""
    assert mapped(reconstructor) == list(numbers)
    for stamp_ns, map_from_camera in reconstructor.trajectory():
        np.testing.assert_allclose(
            map_from_camera, BODY_FROM_OPTICAL @ pose(stamp_ns), atol=1e-3)


def between(older, newer, larger=1.0, sigma=0.001):
    """Give the true loop between two keyframes; ``larger`` is the newer one's unit."""
    return LoopEdge(
        older, newer, np.linalg.inv(pose(older)) @ pose(newer), sigma, sigma, larger, sigma)


def test_where_the_path_breaks_the_map_begins_anew_and_the_old_one_is_kept():
    backend = GappyBackend()
    reconstructor = without_odometry(backend)
    views = views_of(reconstructor)
    submaps = go_with_a_gap(reconstructor, backend, 13)
    assert [submap.new_segment for submap in submaps] == [True, False, False, True, False]
    assert reconstructor.statistics()['segments'] == 2
    assert mapped(reconstructor) == list(range(8, 14))
    assert_map_follows(reconstructor, views)
    assert sorted(reconstructor._map._keyframes) == list(range(14))
    assert {n: segment for n, (segment, _) in reconstructor._loops.places.items()} == {
        n: 1 if n < 8 else 2 for n in range(14)}


@pytest.mark.parametrize('larger', [1.0, 2.5])
def test_places_that_both_have_seen_join_two_segments_to_one_map(larger):
    backend = GappyBackend(larger)
    loops = [between(older, newer, larger) for older, newer in ((0, 12), (4, 13), (7, 13))]
    reconstructor = without_odometry(backend, loops)
    views = views_of(reconstructor)
    joining = go_with_a_gap(reconstructor, backend, 13)[-1]
    assert joining.moved and not joining.new_segment
    assert_true_path(reconstructor, range(14))
    # The wall is as far away as the first segment has it.
    for number, view in views.items():
        scale = scale_of(reconstructor.map_from_views()[number])
        assert scale * float(view.depth_m.median()) == pytest.approx(2.0, rel=1e-3), number
    for view in joining.views:
        assert float(view.depth_m.median()) == pytest.approx(2.0, rel=1e-3)
        np.testing.assert_allclose(
            joining.map_from_camera(view), BODY_FROM_OPTICAL @ pose(view.keyframe_id), atol=1e-3)
    assert_map_follows(reconstructor, views)
    assert {segment for segment, _ in reconstructor._loops.places.values()} == {1}
    np.testing.assert_allclose(reconstructor.map_points().xyz[:, 0], 2.0, atol=0.01)
    # What comes then is part of the whole.
    go(reconstructor, range(14, 18))
    assert_true_path(reconstructor, range(18))
    assert_map_follows(reconstructor, views)
    assert reconstructor.statistics()['segments'] == 2


def test_a_reset_forgets_segments_that_were_hidden():
    backend = GappyBackend()
    reconstructor = without_odometry(backend)
    go_with_a_gap(reconstructor, backend, 13)
    reconstructor.reset()
    assert not reconstructor._map._keyframes and not reconstructor._loops.places
    go(reconstructor, range(14, 18))
    assert mapped(reconstructor) == list(range(14, 18))


def test_a_loop_moves_the_map_with_the_path():
    """Windows say 1.8 m from keyframe 0 to 9, and the loop 2 m, also when the next one comes."""
    reconstructor = without_odometry(GappyBackend(), [
        LoopEdge(0, 9, pose(10), 0.001, 0.001, 1.0, 0.001)])
    views = views_of(reconstructor)
    submaps = go(reconstructor, range(12))
    assert [submap.moved for submap in submaps] == [False, False, False, True, False]
    path = dict(reconstructor.trajectory())
    assert np.linalg.norm(path[9][:3, 3] - path[0][:3, 3]) == pytest.approx(2.0, abs=0.03)
    assert_map_follows(reconstructor, views)


def contradicted():
    """Give a reconstructor of which two windows contradict each other about keyframe 3."""
    backend = GappyBackend()
    backend.wrong = {2: 3}
    reconstructor = without_odometry(backend, **{'window.size': 5, 'window.overlap': 3})
    return reconstructor, backend


def test_a_keyframe_that_windows_contradict_each_other_about_leaves_map_and_path():
    reconstructor, _ = contradicted()
    views = views_of(reconstructor)
    first, second = go(reconstructor, range(7))
    assert 3 in first.new_ids and not first.gone
    assert second.gone == {3} and 3 not in second.poses and '1 of 5' in second.warning
    assert mapped(reconstructor) == [0, 1, 2, 4, 5, 6]
    assert 3 not in reconstructor.map_from_views()
    assert sorted(reconstructor._map._keyframes) == [0, 1, 2, 4, 5, 6]
    assert sorted(reconstructor._loops.places) == [0, 1, 2, 4, 5, 6]
    assert_map_follows(reconstructor, views)
    go(reconstructor, range(7, 11))
    assert_true_path(reconstructor, [0, 1, 2, *range(4, 11)])


class Frames:
    """A source of frames without odometry."""

    kind, total, read = 'bag', 7, 7

    def frames(self):
        return (unposed(number) for number in range(7))

    def selector(self):
        return None

    def name(self, stamp_ns):
        return f'{stamp_ns}.jpg'


def test_a_keyframe_that_windows_contradict_each_other_about_leaves_the_store(tmp_path):
    reconstructor, backend = contradicted()
    config = replace(reconstructor._config, loop_closure=LoopClosureConfig(enabled=False))
    said = []
    made = Reconstruction(config, backend, Frames(), tmp_path, Notices(said.append)).run(
        lambda: False, lambda progress: None)
    assert made.keyframes.ids() == [0, 1, 2, 4, 5, 6]
    assert sorted(path.name for path in (tmp_path / 'keyframes').glob('*.npz')) == [
        f'{number:06d}.npz' for number in (0, 1, 2, 4, 5, 6)]
    assert any('contradict it' in text for text in said)
    for stamp_ns, map_from_camera in made.keyframes.trajectory():
        np.testing.assert_allclose(
            map_from_camera, BODY_FROM_OPTICAL @ pose(stamp_ns), atol=1e-3)
