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
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.alignment import Alignment, BODY_FROM_OPTICAL
from mapanything_ros.core.config import AlignmentConfig, ScaleConfig
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.scale import rescaled

RGB = np.zeros((20, 20, 3), np.uint8)
K = np.array([[20.0, 0.0, 9.5], [0.0, 20.0, 9.5], [0.0, 0.0, 1.0]])


def pose(number):
    """Give the true odom_from_camera of a keyframe on a winding path."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', [0.3, 0.1 * number, -0.2]).as_matrix()
    matrix[:3, 3] = [0.3 * number, np.sin(number), 1.0]
    return matrix


def keyframes(numbers, odometry=True, mount=None):
    return [
        Keyframe(n, n, 'camera', RGB, K, None, pose(n) if odometry else None, mount)
        for n in numbers]


def window(numbers, scale='odometry', factor=1.0, wrong=None):
    """Predict a window exactly, all lengths times ``factor``, in its first camera's frame."""
    world_from_odom = np.linalg.inv(pose(numbers[0]))
    views = []
    for number in numbers:
        world_from_camera = world_from_odom @ pose(number)
        if wrong and number in wrong:
            world_from_camera = world_from_camera @ wrong[number]
        world_from_camera[:3, 3] *= factor
        depth_m = torch.full((20, 20), factor * (2.0 + number))
        views.append(Prediction(
            number, torch.from_numpy(RGB), depth_m, torch.ones(20, 20),
            torch.ones(20, 20, dtype=torch.bool), K, world_from_camera))
    return WindowPrediction(tuple(views), Scale(scale))


def shifted(x_m, yaw_deg=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('z', yaw_deg, degrees=True).as_matrix()
    matrix[0, 3] = x_m
    return matrix


def assert_poses(submap, map_from_odom, atol=1e-9):
    for view in submap.views:
        np.testing.assert_allclose(
            submap.map_from_camera(view), map_from_odom @ pose(view.keyframe_id), atol=atol)


@pytest.fixture
def alignment():
    return Alignment(
        AlignmentConfig(max_residual_m=0.1, max_rotation_deg=3.0), ScaleConfig(), False)


def test_the_map_starts_where_odometry_does(alignment):
    submap = alignment.place(window([3, 4, 5]), keyframes([3, 4, 5]))
    assert_poses(submap, np.eye(4))
    assert submap.new_ids == {3, 4, 5}
    np.testing.assert_allclose(alignment.map_from_odom, np.eye(4), atol=1e-9)


def test_without_odometry_the_base_lies_level_at_the_origin(alignment):
    mount = shifted(0.2) @ BODY_FROM_OPTICAL
    submap = alignment.place(window([0, 1]), keyframes([0, 1], odometry=False, mount=mount))
    np.testing.assert_allclose(submap.map_from_camera(submap.views[0]), mount, atol=1e-12)


def test_a_camera_alone_starts_upright_looking_along_x(alignment):
    submap = alignment.place(window([0, 1]), keyframes([0, 1], odometry=False))
    start = submap.map_from_camera(submap.views[0])
    np.testing.assert_allclose(start[:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(start[:3, :3] @ [0, -1, 0], [0, 0, 1], atol=1e-12)
    assert alignment.map_from_odom is None


def test_windows_are_joined_by_id_whatever_their_order_or_gaps(alignment):
    first = alignment.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3], odometry=False))
    map_from_odom = first.map_from_camera(first.views[0]) @ np.linalg.inv(pose(0))
    # A dropped window, an unregistered view: only keyframe 3 is shared, and it comes last.
    second = alignment.place(window([5, 9, 3]), keyframes([3, 5, 9], odometry=False))
    assert_poses(second, map_from_odom)
    assert second.new_ids == {5, 9}
    assert not second.new_segment
    assert second.residual_m < 1e-9


def test_drifting_odometry_shows_in_the_correction_and_not_in_the_map(alignment):
    alignment.place(window([0, 1, 2]), keyframes([0, 1, 2]))
    drift = shifted(0.5, 10.0)
    drifted = [
        Keyframe(n, n, 'camera', RGB, odom_from_camera=drift @ pose(n)) for n in (1, 2, 3)]
    submap = alignment.place(window([1, 2, 3]), drifted)
    assert_poses(submap, np.eye(4))
    np.testing.assert_allclose(alignment.map_from_odom @ drift, np.eye(4), atol=1e-9)


def test_after_a_gap_odometry_with_its_last_correction_places_the_window(alignment):
    alignment.place(window([0, 1, 2]), keyframes([0, 1, 2]))
    drift = shifted(0.5, 10.0)
    drifted = [Keyframe(n, n, 'camera', RGB, odom_from_camera=drift @ pose(n)) for n in range(9)]
    alignment.place(window([2, 3]), drifted)
    submap = alignment.place(window([6, 7]), drifted)
    assert_poses(submap, np.eye(4))
    assert not submap.new_segment


def partly(numbers, without):
    """Give keyframes of which odometry does not know some."""
    return [
        replace(frame, odom_from_camera=None) if frame.id in without else frame
        for frame in keyframes(numbers)]


def test_any_keyframe_that_odometry_knows_bridges_a_gap_and_corrects_odometry(alignment):
    alignment.place(window([0, 1, 2]), keyframes([0, 1, 2]))
    alignment.repose({number: shifted(0.3, 7.0) @ pose(number) for number in range(3)})
    drift = shifted(0.5, 10.0)
    drifted = [
        frame if frame.odom_from_camera is None else replace(
            frame, odom_from_camera=drift @ frame.odom_from_camera)
        for frame in partly(range(2, 9), {4, 6, 8})]
    alignment.place(window([2, 3, 4]), drifted)
    np.testing.assert_allclose(alignment.map_from_odom @ drift, shifted(0.3, 7.0), atol=1e-9)
    submap = alignment.place(window([6, 7, 8]), drifted)
    assert not submap.new_segment
    assert_poses(submap, shifted(0.3, 7.0))


def test_trusted_odometry_that_knows_no_keyframe_of_a_window_leaves_it_to_the_map():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), True)
    frames = partly(range(6), {2, 3, 4, 5})
    alignment.place(window([0, 1, 2, 3]), frames[:4])
    assert_poses(alignment.place(window([2, 3, 4, 5]), frames[2:]), np.eye(4), atol=1e-6)


def test_after_a_gap_without_odometry_a_new_segment_starts_at_the_last_pose(alignment):
    first = alignment.place(window([0, 1]), keyframes([0, 1], odometry=False))
    assert first.new_segment
    second = alignment.place(window([4, 5]), keyframes([4, 5], odometry=False))
    assert second.new_segment
    assert alignment.segments == 2
    np.testing.assert_allclose(
        second.map_from_camera(second.views[0]), first.map_from_camera(first.views[1]), atol=1e-9)


@pytest.mark.parametrize('wrong', [shifted(0.7), shifted(0.0, 20.0)], ids=['shift', 'turn'])
def test_keyframes_that_disagree_reject_the_window_and_nothing_moves(alignment, wrong):
    first = alignment.place(window([0, 1, 2]), keyframes([0, 1, 2], odometry=False))
    map_from_odom = first.map_from_camera(first.views[0]) @ np.linalg.inv(pose(0))
    later = keyframes([1, 2, 3], odometry=False)
    with pytest.raises(AlignmentError, match='disagrees with the map about 2 keyframes'):
        alignment.place(window([1, 2, 3], wrong={2: wrong}), later)
    assert_poses(alignment.place(window([1, 2, 3]), later), map_from_odom)


def test_a_small_disagreement_is_averaged_and_measured(alignment):
    alignment.place(window([0, 1, 2]), keyframes([0, 1, 2]))
    submap = alignment.place(window([1, 2, 3], wrong={2: shifted(0.06)}), keyframes([1, 2, 3]))
    # Two cameras pulled apart by 6 cm: each is about 3 cm from the mean.
    assert submap.residual_m == pytest.approx(0.03, abs=5e-4)


def test_windows_without_scale_take_the_scale_of_the_map(alignment):
    first = alignment.place(
        window([0, 1, 2], 'none', 0.25), keyframes([0, 1, 2], odometry=False))
    assert first.scale == Scale('none')
    second = alignment.place(
        window([1, 2, 3], 'none', 7.0), keyframes([1, 2, 3], odometry=False))
    assert second.scale.source == 'none'
    assert second.scale.factor == pytest.approx(0.25 / 7.0, rel=1e-5)
    assert second.scale.residual == pytest.approx(0.0, abs=1e-5)
    assert second.residual_m == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(second.views[-1].depth_m, torch.full((20, 20), 0.25 * 5.0))


def test_a_window_without_scale_becomes_metric_on_a_metric_map(alignment):
    alignment.place(window([0, 1], 'depth'), keyframes([0, 1], odometry=False))
    submap = alignment.place(window([1, 2], 'none', 3.0), keyframes([1, 2], odometry=False))
    assert submap.scale.source == 'map'
    assert submap.scale.metric


def test_reset_forgets_the_map(alignment):
    alignment.place(window([0, 1]), keyframes([0, 1]))
    alignment.reset()
    assert alignment.map_from_odom is None
    submap = alignment.place(window([1, 2]), keyframes([1, 2], odometry=False))
    np.testing.assert_allclose(
        submap.map_from_camera(submap.views[0]), BODY_FROM_OPTICAL, atol=1e-12)


def test_trusted_odometry_places_every_window_and_no_error_adds_up():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), True)
    bend = {n: shifted(0.004, 0.5) for n in range(1, 200, 2)}
    for start in range(0, 100, 2):
        numbers = range(start, start + 4)
        submap = alignment.place(window(numbers, wrong=bend), keyframes(numbers))
    for view in submap.views:
        offset = submap.map_from_camera(view) @ np.linalg.inv(pose(view.keyframe_id))
        assert np.degrees(Rotation.from_matrix(offset[:3, :3]).magnitude()) < 0.5
    assert submap.residual_m < 0.01
    np.testing.assert_array_equal(alignment.map_from_odom, np.eye(4))
    wrong = {98: shifted(2.0), 99: shifted(0.0, 40.0)}
    with pytest.raises(AlignmentError, match='disagrees with the odometry about 2 of 4'):
        alignment.place(window(numbers, wrong=wrong), keyframes(numbers))


def test_one_keyframe_that_odometry_belies_is_left_out_and_comes_again():
    for trust in (True, False):
        alignment = Alignment(AlignmentConfig(), ScaleConfig(), trust)
        alignment.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3]))
        bent = alignment.place(
            window([2, 3, 4, 5], wrong={4: shifted(2.0)}), keyframes([2, 3, 4, 5]))
        assert_poses(bent, np.eye(4), atol=1e-3)
        assert [view.keyframe_id for view in bent.views] == [2, 3, 5]
        assert bent.new_ids == {5}
        assert '1 of 4 keyframes of a window were left out' in bent.warning
        again = alignment.place(window([4, 5, 6]), keyframes([4, 5, 6]))
        assert again.new_ids == {4, 6}


def test_a_keyframe_that_was_placed_and_left_out_is_not_new_when_it_comes_again():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    alignment.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3]))
    # The backend could make nothing of keyframe 3 this time.
    alignment.place(window([1, 2, 4]), keyframes([1, 2, 3, 4]))
    correction = shifted(0.3, 7.0)
    alignment.repose({number: correction @ pose(number) for number in range(5)})
    again = alignment.place(window([3, 5]), keyframes([2, 3, 4, 5]))
    assert again.new_ids == {5}
    assert_poses(again, correction)


def test_trusted_odometry_bridges_a_gap():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), True)
    alignment.place(window([0, 1]), keyframes([0, 1]))
    submap = alignment.place(window([7, 8]), keyframes([7, 8]))
    assert_poses(submap, np.eye(4))
    assert not submap.new_segment


# What windows suffer from


def slipping(numbers, factor):
    """Give keyframes of which odometry tells ``factor`` times the distances."""
    frames = []
    for frame in keyframes(numbers):
        far = frame.odom_from_camera.copy()
        far[:3, 3] = pose(numbers[0])[:3, 3] + factor * (far[:3, 3] - pose(numbers[0])[:3, 3])
        frames.append(replace(frame, odom_from_camera=far))
    return frames


def with_depth(frames, factor=1.0):
    return [
        replace(frame, depth_m=np.full((20, 20), factor * (2.0 + frame.id), np.float32))
        for frame in frames]


def still(numbers, turns):
    """Give keyframes and an exact window of a camera that does not move, only turns."""
    poses = []
    for turn in turns:
        turned = pose(0)
        turned[:3, :3] = turned[:3, :3] @ Rotation.from_euler('y', turn, degrees=True).as_matrix()
        poses.append(turned)
    frames = [
        Keyframe(n, n, 'camera', RGB, K, None, p) for n, p in zip(numbers, poses, strict=True)]
    views = tuple(
        replace(view, world_from_camera=np.linalg.inv(poses[0]) @ p)
        for view, p in zip(window(numbers).views, poses, strict=True))
    return WindowPrediction(views, Scale('model')), frames


@pytest.mark.parametrize('turns', [[0, 0, 0, 0], [0, 20, 40, 60]], ids=['parked', 'turning'])
def test_a_camera_that_does_not_move_is_placed_and_keeps_the_scale(turns):
    alignment = Alignment(AlignmentConfig(), ScaleConfig('odometry'), False)
    first, frames = still([0, 1, 2], turns[:3])
    alignment.place(first, frames)
    # The shared keyframes' depth alone tells that this one is too large.
    second, frames = still([1, 2, 3], turns[1:])
    second = WindowPrediction(
        tuple(rescaled(view, 1.1) for view in second.views), second.scale)
    submap = alignment.place(second, frames)
    for view, frame in zip(submap.views, frames, strict=True):
        np.testing.assert_allclose(
            submap.map_from_camera(view), frame.odom_from_camera, atol=1e-6)
    assert submap.scale.factor == pytest.approx(1 / 1.1, rel=1e-5)
    assert submap.scale.source == 'map'


def test_the_model_alone_settles_between_what_it_says_of_each_window():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    for start, factor in ((0, 1.0), (2, 1.1), (4, 1.0), (6, 1.1)):
        numbers = [start, start + 1, start + 2, start + 3]
        submap = alignment.place(window(numbers, 'model', factor), keyframes(numbers, False))
    assert factor * submap.scale.factor == pytest.approx(1.1 ** 0.5, rel=2e-3)


def mirrored(prediction):
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    return WindowPrediction(tuple(
        replace(view, world_from_camera=flip @ view.world_from_camera @ flip)
        for view in prediction.views), prediction.scale)


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_a_mirrored_window_is_rejected(alignment, odometry):
    alignment.place(window([0, 1, 2]), keyframes([0, 1, 2], odometry))
    with pytest.raises(AlignmentError):
        alignment.place(mirrored(window([1, 2, 3])), keyframes([1, 2, 3], odometry))


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_a_wildly_scaled_window_is_rejected_or_brought_to_scale(odometry):
    for model in ('se3', 'sim3'):
        alignment = Alignment(AlignmentConfig(model=model), ScaleConfig(), False)
        alignment.place(window([0, 1, 2]), keyframes([0, 1, 2], odometry))
        huge = window([1, 2, 3], 'model', 3.0), keyframes([1, 2, 3], odometry)
        if model == 'se3':
            with pytest.raises(AlignmentError):
                alignment.place(*huge)
        else:
            submap = alignment.place(*huge)
            assert submap.scale.factor == pytest.approx(1 / 3, rel=1e-5)
            assert 'model sees this window 3.00 times as large' in submap.warning


def test_odometry_anchors_the_scale_from_the_first_window_on():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('odometry'), False)
    for start, factor in ((0, 0.8), (2, 1.3), (4, 0.9)):
        numbers = [start, start + 1, start + 2, start + 3]
        submap = alignment.place(window(numbers, 'model', factor), keyframes(numbers))
        assert_poses(submap, np.eye(4))
        assert submap.scale.source == 'odometry'
        assert submap.scale.factor == pytest.approx(1 / factor, rel=1e-6)


def test_poses_that_are_the_truth_set_the_scale():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), True)
    submap = alignment.place(window([0, 1, 2, 3], 'model', 1.2), keyframes([0, 1, 2, 3]))
    assert_poses(submap, np.eye(4))
    assert submap.scale.source == 'odometry'


def test_depth_anchors_the_scale():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('depth'), False)
    frames = [
        replace(frame, depth_m=np.full((20, 20), 2.0 + frame.id, np.float32))
        for frame in keyframes([0, 1, 2], odometry=False)]
    submap = alignment.place(window([0, 1, 2], 'model', 0.5), frames)
    assert submap.scale == Scale('depth', pytest.approx(2.0), pytest.approx(0.0, abs=1e-6))


def test_odometry_that_slips_is_said_and_the_map_keeps_its_scale():
    """Let the wheels turn twice as far as the robot goes, evenly, for one window."""
    alignment = Alignment(AlignmentConfig(), ScaleConfig('odometry'), False)
    alignment.place(window([0, 1, 2, 3], 'model'), keyframes([0, 1, 2, 3]))
    submap = alignment.place(window([2, 3, 4, 5], 'model'), slipping([2, 3, 4, 5], 1.12))
    assert submap.scale.factor == pytest.approx(1.0, abs=1e-5)
    assert submap.scale.source == 'map'
    assert 'odometry is 1.12 times that of the map' in submap.warning


@pytest.mark.parametrize('source', ['model', 'odometry'])
def test_wheels_that_slip_in_some_windows_move_neither_path_nor_scale(source):
    """What map and windows agree about, odometry alone does not undo; and nothing is lost."""
    alignment = Alignment(AlignmentConfig(), ScaleConfig(source), False)
    for start in range(0, 12, 2):
        numbers = [start, start + 1, start + 2, start + 3]
        submap = alignment.place(window(numbers, 'model'), keyframes(numbers))
    for start in range(12, 20, 2):
        numbers = [start, start + 1, start + 2, start + 3]
        submap = alignment.place(window(numbers, 'model'), slipping(numbers, 2.0))
        assert_poses(submap, np.eye(4), atol=1e-3)
        assert len(submap.views) == 4
        assert not submap.new_segment
        assert re.search('disagrees with the odometry .* odometry .slip', submap.warning)


def test_wheels_that_begin_to_slip_cost_no_keyframes():
    """The last two keyframes of a window are too far on by odometry, and not turned."""
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    alignment.place(window([0, 1, 2, 3, 4, 5], 'model'), keyframes([0, 1, 2, 3, 4, 5]))
    frames = keyframes([3, 4, 5, 6, 7, 8])
    for index, ahead_m in ((4, 0.5), (5, 1.0)):
        frames[index] = replace(
            frames[index], odom_from_camera=shifted(ahead_m) @ frames[index].odom_from_camera)
    submap = alignment.place(window([3, 4, 5, 6, 7, 8], 'model'), frames)
    assert submap.new_ids == {6, 7, 8}
    assert_poses(submap, np.eye(4), atol=1e-3)


@pytest.mark.parametrize('numbers', [[0, 1, 2, 3], [3, 4, 5, 6]], ids=['first', 'one shared'])
def test_odometry_that_slips_rejects_a_window_that_nothing_else_vouches_for(numbers):
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    if numbers[0]:
        alignment.place(window([0, 1, 2, 3], 'model'), keyframes([0, 1, 2, 3]))
    with pytest.raises(AlignmentError, match='disagrees with the odometry'):
        alignment.place(window(numbers, 'model'), slipping(numbers, 3.0))


def test_slip_does_not_excuse_a_window_that_is_turned():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    alignment.place(window([0, 1, 2, 3], 'model'), keyframes([0, 1, 2, 3]))
    bend = {number: shifted(0.0, 15.0 * (number - 3)) for number in (4, 5, 6)}
    with pytest.raises(AlignmentError, match='disagrees with the odometry about 3 of 5'):
        alignment.place(
            window([2, 3, 4, 5, 6], 'model', wrong=bend), slipping([2, 3, 4, 5, 6], 2.0))


def test_a_map_that_began_with_the_wrong_scale_starts_again():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    placed = []
    for start, factor in ((0, 2.7), (2, 1.05), (4, 0.95)):
        numbers = [start, start + 1, start + 2, start + 3]
        placed.append(alignment.place(
            window(numbers, 'model', factor), keyframes(numbers, odometry=False)))
    _, second, third = placed
    assert second.scale.factor == pytest.approx(2.7 / 1.05, rel=1e-5)
    assert 'the model sees this window 0.39 times as large as the map' in second.warning
    assert third.new_segment
    assert third.new_ids == set(numbers)
    assert third.scale == Scale('model', 1.0, third.scale.residual)
    assert 'must be multiplied by 0.35 than have made it: the map starts again' in third.warning


def test_a_window_of_the_wrong_size_that_odometry_refuses_has_its_vote_too():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    alignment.place(window([0, 1, 2], 'model', 2.7), keyframes([0, 1, 2], odometry=False))
    with pytest.raises(AlignmentError, match='disagrees with the odometry'):
        alignment.place(window([1, 2, 3, 4], 'model', 1.1), keyframes([1, 2, 3, 4]))
    submap = alignment.place(window([1, 2, 3, 4], 'model', 1.0), keyframes([1, 2, 3, 4]))
    assert submap.new_segment
    assert_poses(submap, np.eye(4), atol=1e-6)


def test_a_window_that_outvotes_the_map_and_is_rejected_leaves_the_map_as_it_was():
    """Let a depth sensor tell twice the truth, which odometry does not believe."""
    alignment = Alignment(AlignmentConfig(), ScaleConfig('depth'), False)
    alignment.place(window([0, 1, 2, 3], 'model'), with_depth(keyframes([0, 1, 2, 3])))
    numbers = [2, 3, 4, 5]
    wrong = with_depth(keyframes(numbers), 2.0)
    assert 'which is kept' in alignment.place(window(numbers, 'model'), wrong).warning
    with pytest.raises(AlignmentError, match='disagrees with the odometry'):
        alignment.place(window(numbers, 'model'), wrong)
    np.testing.assert_allclose(alignment.map_from_odom, np.eye(4), atol=1e-6)
    numbers = [4, 5, 6, 7]
    submap = alignment.place(window(numbers, 'model'), with_depth(keyframes(numbers)))
    assert not submap.new_segment
    assert submap.new_ids == {6, 7}
    assert_poses(submap, np.eye(4), atol=1e-6)


def test_a_keyframe_left_out_does_not_hide_that_the_map_starts_again():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('odometry'), False)
    for start, factor in ((0, 1.0), (2, 1.08), (4, 1.08)):
        numbers = [start, start + 1, start + 2, start + 3]
        submap = alignment.place(
            window(numbers, 'model', wrong={7: shifted(0.0, 20.0)}), slipping(numbers, factor))
    assert '1 of 4 keyframes of a window were left out' in submap.warning
    assert 'the map starts again' in submap.warning


def test_after_a_gap_odometry_brings_the_map_s_scale_to_a_window():
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    for start in (0, 2, 4, 6):
        numbers = [start, start + 1, start + 2, start + 3]
        alignment.place(window(numbers, 'model', 1.1), keyframes(numbers))
    numbers = [12, 13, 14, 15]
    submap = alignment.place(window(numbers, 'model', 0.9), keyframes(numbers))
    assert not submap.new_segment
    # It weighs no more than any other window's opinion, and the map was made by four.
    assert 0.9 * submap.scale.factor == pytest.approx(1.1 ** 0.8 * 0.9 ** 0.2, rel=0.01)


def test_after_a_gap_odometry_that_slips_brings_no_scale():
    """Nothing but odometry ties such a window, and the model says that it is wrong."""
    alignment = Alignment(AlignmentConfig(), ScaleConfig(), False)
    for start in (0, 2, 4):
        numbers = [start, start + 1, start + 2, start + 3]
        alignment.place(window(numbers, 'model'), keyframes(numbers))
    numbers = [10, 11, 12, 13]
    with pytest.raises(AlignmentError, match=r'odometry makes it 2\.00 times as large as the m'):
        alignment.place(window(numbers, 'model'), slipping(numbers, 2.0))
    submap = alignment.place(window(numbers, 'model'), keyframes(numbers))
    assert not submap.new_segment
    assert_poses(submap, np.eye(4), atol=1e-6)


def test_after_a_gap_depth_that_anchors_the_scale_needs_no_odometry():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('depth'), False)
    alignment.place(window([0, 1, 2, 3], 'model'), with_depth(keyframes([0, 1, 2, 3])))
    numbers = [10, 11, 12, 13]
    submap = alignment.place(
        window(numbers, 'model', 1.2), with_depth(slipping(numbers, 1.07)))
    assert submap.scale.source == 'depth'
    assert submap.scale.factor == pytest.approx(1 / 1.2, rel=1e-3)
    assert not submap.warning


def test_a_window_after_a_gap_that_odometry_is_silent_about_has_the_model_s_scale():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('odometry'), False)
    alignment.place(window([0, 1, 2], 'model'), keyframes([0, 1, 2]))
    # Two poses are no evidence.
    silent = alignment.place(window([5, 6], 'model'), keyframes([5, 6]))
    assert silent.scale.source == 'model'
    numbers = [6, 7, 8, 9]
    submap = alignment.place(window(numbers, 'model', 1.2), keyframes(numbers))
    assert_poses(submap, np.eye(4), atol=1e-6)
    assert submap.scale.factor == pytest.approx(1 / 1.2, rel=1e-3)


def test_metres_that_come_late_start_the_map_again():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('depth'), False)
    alignment.place(window([0, 1, 2], 'none', 3.0), keyframes([0, 1, 2], odometry=False))
    frames = [
        replace(frame, depth_m=np.full((20, 20), 2.0 + frame.id, np.float32))
        for frame in keyframes([1, 2, 3], odometry=False)]
    submap = alignment.place(window([1, 2, 3], 'none', 7.0), frames)
    assert submap.new_segment
    assert submap.new_ids == {1, 2, 3}
    assert submap.scale.source == 'depth'
    torch.testing.assert_close(submap.views[0].depth_m, torch.full((20, 20), 3.0))
    np.testing.assert_allclose(
        submap.map_from_camera(submap.views[0]), BODY_FROM_OPTICAL, atol=1e-12)
    assert not alignment.place(window([2, 3, 4], 'none'), frames + keyframes([4])).new_segment


def test_a_window_of_unknown_scale_does_not_get_into_a_map_in_metres():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('odometry'), False)
    alignment.place(window([0, 1, 2], 'none', 3.0), keyframes([0, 1, 2]))
    turning, frames = still([5, 6, 7], [0, 20, 40])
    with pytest.raises(AlignmentError, match='nothing tells how large'):
        alignment.place(replace(turning, scale=Scale('none')), frames)


@pytest.mark.parametrize(('numbers', 'source'), [([0, 1, 2, 3], 'model'), ([0, 1], 'odometry')])
def test_a_window_of_unknown_scale_is_not_compared_with_odometry(numbers, source):
    alignment = Alignment(AlignmentConfig(), ScaleConfig(source), False)
    with pytest.raises(AlignmentError, match=r'nothing tells how large .* set scale\.source'):
        alignment.place(window(numbers, 'none', 0.25), keyframes(numbers))


def test_two_keyframes_on_a_map_in_metres_take_its_scale_before_odometry_judges_them():
    alignment = Alignment(AlignmentConfig(), ScaleConfig('odometry'), False)
    alignment.place(window([0, 1, 2], 'none', 3.0), keyframes([0, 1, 2]))
    submap = alignment.place(window([2, 3], 'none', 5.0), keyframes([2, 3]))
    assert_poses(submap, np.eye(4), atol=1e-6)
    assert submap.scale.source == 'map'


def test_a_window_of_which_nothing_fits_the_odometry_is_rejected_whatever_is_asked():
    alignment = Alignment(
        AlignmentConfig(min_inliers=0.0, max_rotation_deg=1.0), ScaleConfig(), False)
    with pytest.raises(AlignmentError, match='about 2 of 2 keyframes'):
        alignment.place(window([0, 1], wrong={1: shifted(0.0, 3.0)}), keyframes([0, 1]))


def test_corrected_poses_move_what_comes_after(alignment):
    alignment.place(window([0, 1, 2]), keyframes([0, 1, 2]))
    correction = shifted(0.3, 7.0)
    alignment.repose({number: correction @ pose(number) for number in range(3)})
    np.testing.assert_allclose(alignment.map_from_odom, correction, atol=1e-9)
    assert_poses(alignment.place(window([1, 2, 3]), keyframes([1, 2, 3])), correction)


def test_one_wrong_view_of_three_does_not_pull_a_join_of_images(alignment):
    alignment.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3], odometry=False))
    true = alignment.place(window([1, 2, 3, 4]), keyframes([1, 2, 3, 4], odometry=False))
    alignment.reset()
    alignment.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3], odometry=False))
    bent = alignment.place(
        window([1, 2, 3, 4], wrong={2: shifted(3.0, 90.0)}),
        keyframes([1, 2, 3, 4], odometry=False))
    np.testing.assert_allclose(
        bent.map_from_camera(bent.views[-1]), true.map_from_camera(true.views[-1]), atol=0.02)
    assert bent.inliers < 0.8
