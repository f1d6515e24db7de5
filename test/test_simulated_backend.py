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

from benchmarks.evaluate.drive import frame
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from benchmarks.evaluate.worlds import world

SEEDS = range(150)


@pytest.fixture(scope='module')
def place():
    return world('two_rooms', images=8)


def keyframes(place, numbers):
    return [frame(place, number).keyframe(number) for number in numbers]


def infer(place, faults, numbers, seed=0):
    return SimulatedBackend(place, faults, seed).infer(keyframes(place, numbers)).views


def truth(place, numbers):
    poses = place.world_from_camera[numbers]
    return np.linalg.inv(poses[0]) @ poses


def log_scales(views, place, numbers):
    """Give the logarithms of a window's scale by its cameras and by each of its depths."""
    extents = [np.linalg.norm(poses[-1][:3, 3]) for poses in (
        [view.world_from_camera for view in views], truth(place, numbers))]
    ratios = [np.median(view.depth_m.numpy() / place.render(number)[1][::2, ::2])
              for view, number in zip(views, numbers, strict=True)]
    return np.log([extents[0] / extents[1], *ratios])


def test_without_faults_it_tells_the_truth(place):
    views = infer(place, Faults(), [2, 3, 5])
    assert [view.keyframe_id for view in views] == [2, 3, 5]
    np.testing.assert_allclose(
        [view.world_from_camera for view in views], truth(place, [2, 3, 5]), atol=1e-12)
    for view, index in zip(views, (2, 3, 5), strict=True):
        points = view.points_in_camera()[view.mask].numpy().astype(float)
        pose = place.world_from_camera[index]
        assert len(points) > 0.7 * 80 * 60
        assert place.distance(points @ pose[:3, :3].T + pose[:3, 3]).max() < 1e-3
        np.testing.assert_array_equal(view.rgb, place.render(index)[0][::2, ::2])
        assert view.depth_m[view.mask].max() <= 10
        assert view.confidence.min() >= 0 and view.confidence.max() <= 1


FAULTS = Faults(0.1, 1.0, 0.05, 0.01, 0.02, 0.3, 0.3)


def test_faults_depend_on_seed_and_keyframes_and_not_on_what_came_before(place):
    first, again = (SimulatedBackend(place, FAULTS, 4) for _ in range(2))
    again.infer(keyframes(place, [0, 1, 2]))
    views = [backend.infer(keyframes(place, [1, 2, 4])).views for backend in (first, again)]
    for ours, theirs in zip(*views, strict=True):
        np.testing.assert_array_equal(ours.depth_m, theirs.depth_m)
        np.testing.assert_array_equal(ours.confidence, theirs.confidence)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        np.testing.assert_array_equal(ours.world_from_camera, theirs.world_from_camera)
    for other in (infer(place, FAULTS, [1, 2, 4], 5), infer(place, FAULTS, [1, 2, 5], 4)):
        assert (other[0].depth_m != views[0][0].depth_m).any()


def test_a_window_has_one_scale_for_its_depths_and_its_path(place):
    logs = np.array([log_scales(infer(place, Faults(scale=0.1), [0, 1, 3], seed), place, [0, 1, 3])
                     for seed in SEEDS])
    np.testing.assert_allclose(logs, np.repeat(logs[:, :1], 4, axis=1), atol=1e-6)
    assert logs[:, 0].std() == pytest.approx(0.1, rel=0.2)
    assert abs(logs[:, 0].mean()) < 0.03


def test_poses_are_off_by_the_angle_and_the_share_of_the_extent(place):
    exact = truth(place, [0, 3])
    turns, shifts = [], []
    for seed in SEEDS:
        path = [v.world_from_camera for v in infer(
            place, Faults(rotation_deg=2.0), [0, 3], seed)]
        np.testing.assert_allclose(path[0], np.eye(4), atol=1e-12)
        turns.append(Rotation.from_matrix(exact[1, :3, :3].T @ path[1][:3, :3]).as_rotvec())
        path = infer(place, Faults(translation=0.1), [0, 3], seed)[1].world_from_camera
        np.testing.assert_allclose(path[:3, :3], exact[1, :3, :3], atol=1e-9)
        shifts.append(path[:3, 3] - exact[1, :3, 3])
    # Two views err, each by so much.
    assert np.degrees(np.std(turns)) == pytest.approx(2.0 * np.sqrt(2), rel=0.15)
    extent_m = np.linalg.norm(exact[1, :3, 3]) / 2
    assert np.std(shifts) == pytest.approx(0.1 * extent_m * np.sqrt(2), rel=0.15)


def relative_errors(views, place, numbers):
    return np.stack([view.depth_m.numpy() / place.render(number)[1][::2, ::2] - 1
                     for view, number in zip(views, numbers, strict=True)])


def test_noise_of_depth_is_new_in_each_window(place):
    here, there = (relative_errors(infer(place, Faults(depth_noise=0.01), numbers), place, numbers)
                   for numbers in ([1, 2], [1, 3]))
    assert here.std() == pytest.approx(0.01, rel=0.05)
    assert abs(np.corrcoef(here[0].ravel(), there[0].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(here[0, :, 1:].ravel(), here[0, :, :-1].ravel())[0, 1]) < 0.05


def test_the_bias_of_a_keyframe_is_smooth_and_comes_back(place):
    here, there = (relative_errors(infer(place, Faults(depth_bias=0.02), numbers), place, numbers)
                   for numbers in ([1, 2], [1, 3]))
    np.testing.assert_allclose(here[0], there[0], atol=1e-6)
    assert 0.008 < here.std() < 0.03
    assert np.abs(np.diff(here[0], axis=0)).max() < 0.01
    assert np.abs(here[0] - here[1]).max() > 0.01


def test_the_bias_of_a_window_is_as_smooth_and_new_in_each_window(place):
    here, there = (relative_errors(infer(place, Faults(window_bias=0.02), numbers), place, numbers)
                   for numbers in ([1, 2], [1, 3]))
    for other in (there[0], here[1]):
        assert np.abs(here[0] - other).max() > 0.01
    assert 0.008 < here.std() < 0.03
    assert np.abs(np.diff(here[0], axis=0)).max() < 0.01


def test_the_scale_of_windows_wanders_slowly(place):
    def logs(first, seed):
        window = infer(place, Faults(scale_drift=0.02), [first, first + 1], seed)
        return log_scales(window, place, [first, first + 1])[0]

    walks = np.array([[logs(first, seed) for first in range(7)] for seed in SEEDS])
    assert np.diff(walks, axis=1).std() == pytest.approx(0.02, rel=0.1)
    # A walk: after six steps it is farther off than after one.
    assert (walks[:, 6] - walks[:, 0]).std() == pytest.approx(0.02 * np.sqrt(6), rel=0.2)


def test_outliers_are_mirrored_or_three_times_too_large_or_small(place):
    numbers, sizes, mirrored = [0, 3, 7], [], 0
    exact = truth(place, numbers)
    for seed in SEEDS:
        views = infer(place, Faults(outlier_windows=0.5), numbers, seed)
        path = np.stack([view.world_from_camera for view in views])
        np.testing.assert_allclose(np.linalg.det(path[:, :3, :3]), 1)
        size = np.exp(log_scales(views, place, numbers)[0])
        sizes.append(size)
        if size == pytest.approx(1) and not np.allclose(path, exact):
            mirrored += 1
            np.testing.assert_allclose(path[:, 0, 3], -exact[:, 0, 3], atol=1e-9)
            np.testing.assert_allclose(path[:, 1:3, 3], exact[:, 1:3, 3], atol=1e-9)
    counts = [np.isclose(sizes, size).sum() for size in (1, 3, 1 / 3)]
    assert sum(counts) == len(SEEDS)
    assert 0.35 < (len(SEEDS) - counts[0] + mirrored) / len(SEEDS) < 0.65
    assert min(counts[1], counts[2], mirrored) > 10


def test_a_garbage_pose_means_nothing_and_the_others_stay_right(place):
    numbers, bad = [0, 1, 2, 3], []
    exact = truth(place, numbers)
    for seed in SEEDS:
        views = infer(place, Faults(garbage_views=0.2), numbers, seed)
        path = np.stack([view.world_from_camera for view in views])
        # Views that are right agree with each other, whatever the first one is.
        moves = path @ np.linalg.inv(exact)
        agree = [sum(np.allclose(move, other) for other in moves) for move in moves]
        bad += [count == 1 for count in agree]
        doubtful = [float(view.confidence.mean()) < 0.5 for view in views]
        assert all(doubtful[i] for i in range(4) if agree[i] == 1 and max(agree) > 1)
    assert np.mean(bad) == pytest.approx(0.2, abs=0.06)


def test_confidence_has_an_idea_of_the_error_and_no_more(place):
    (view,) = infer(place, Faults(depth_noise=0.02), [1])
    error = np.abs(relative_errors([view], place, [1])[0]).ravel()
    assert -0.95 < np.corrcoef(error, view.confidence.numpy().ravel())[0, 1] < -0.5


def test_depth_edges_and_holes_are_masked(place):
    depth_m = place.render(0)[1][::2, ::2]
    (view,) = infer(place, Faults(), [0])
    jumps = np.abs(np.diff(depth_m, axis=1)) > 0.15 * depth_m[:, 1:]
    assert jumps.any()
    assert not view.mask.numpy()[:, 1:][jumps].any()
    assert not view.mask.all()


def test_what_is_no_window_of_this_world_is_refused(place):
    first, second = keyframes(place, [0, 1])
    backend = SimulatedBackend(place, Faults(), 0)
    with pytest.raises(ValueError, match='rising id'):
        backend.infer([second, first])
    with pytest.raises(ValueError, match='rising id'):
        backend.infer([])
    for stranger in (replace(first, stamp_ns=5), replace(first, rgb=second.rgb)):
        with pytest.raises(ValueError, match='keyframe 0 is no image of two_rooms'):
            backend.infer([stranger, second])
    backend.infer([first])
    with pytest.raises(ValueError, match='keyframe 0 was another image before'):
        backend.infer([replace(second, id=0)])


def test_it_says_how_much_was_wrong(place):
    backend = SimulatedBackend(place, Faults(outlier_windows=1.0, garbage_views=1.0), 0)
    backend.infer(keyframes(place, [0, 1]))
    assert backend.statistics() == {'windows': 1, 'outliers': 1, 'garbage_views': 2}
