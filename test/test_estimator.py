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

"""Windows find their place in the map, and the path follows all that was said about it."""

from dataclasses import replace
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.config import AlignmentConfig, ScaleConfig
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.estimation.estimator import BODY_FROM_OPTICAL, Estimator
from mapanything_ros.core.estimation.scale import rescaled
from mapanything_ros.core.estimation.similarity import scale_of

RGB = np.zeros((20, 20, 3), np.uint8)
K = np.array([[20.0, 0.0, 9.5], [0.0, 20.0, 9.5], [0.0, 0.0, 1.0]])
# What is doubted altogether still pulls a little (Geman-McClure): exact to half a
# millimetre, where things are 3 m away.
DOUBTED = 5e-4


def pose(number):
    """Give the true odom_from_camera of a keyframe on a winding path, 30 cm a step and more."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', [0.3, 0.1 * number, -0.2]).as_matrix()
    matrix[:3, 3] = [0.3 * number, 0.4 * np.sin(number), 1.0]
    return matrix


def depth(number):
    """Give the distance of the wall that each keyframe looks at."""
    return 2.5 + 0.5 * (number % 3)


def keyframes(numbers, odometry=True, mount=None):
    return [
        Keyframe(n, n, 'camera', RGB, K, None, pose(n) if odometry else None, mount)
        for n in numbers]


def window(numbers, scale='model', factor=1.0, wrong=None):
    """Predict a window exactly, all lengths times ``factor``, in its first camera's frame."""
    world_from_odom = np.linalg.inv(pose(numbers[0]))
    views = []
    for number in numbers:
        world_from_camera = world_from_odom @ pose(number)
        if wrong and number in wrong:
            world_from_camera = world_from_camera @ wrong[number]
        world_from_camera[:3, 3] *= factor
        views.append(Prediction(
            number, torch.from_numpy(RGB), torch.full((20, 20), factor * depth(number)),
            torch.ones(20, 20), torch.ones(20, 20, dtype=torch.bool), K, world_from_camera))
    return WindowPrediction(tuple(views), Scale(scale))


def six(start):
    """Give the keyframes of a window, as many as by default; the next begins three later."""
    return list(range(start, start + 6))


def shifted(x_m, yaw_deg=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('z', yaw_deg, degrees=True).as_matrix()
    matrix[0, 3] = x_m
    return matrix


def slipping(numbers, factor, begin, end):
    """Give keyframes of which odometry tells ``factor`` times the way from one to another."""
    frames = []
    for frame in keyframes(numbers):
        slip = pose(min(max(frame.id, begin), end))[:3, 3] - pose(begin)[:3, 3]
        far = frame.odom_from_camera.copy()
        far[:3, 3] += (factor - 1.0) * slip
        frames.append(replace(frame, odom_from_camera=far))
    return frames


def with_depth(frames, factor=1.0):
    return [
        replace(frame, depth_m=np.full((20, 20), factor * depth(frame.id), np.float32))
        for frame in frames]


def partly(numbers, without):
    """Give keyframes of which odometry does not know some."""
    return [
        replace(frame, odom_from_camera=None) if frame.id in without else frame
        for frame in keyframes(numbers)]


def drifting(numbers, turn_deg, share):
    """Give keyframes whose odometry turns by so much each, and goes so much too far."""
    frames = []
    for frame in keyframes(numbers):
        drifted = shifted(0.0, turn_deg * frame.id) @ pose(frame.id)
        drifted[:2, 3] *= 1.0 + share
        frames.append(replace(frame, odom_from_camera=drifted))
    return frames


def mirrored(prediction):
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    return WindowPrediction(tuple(
        replace(view, world_from_camera=flip @ view.world_from_camera @ flip)
        for view in prediction.views), prediction.scale)


def still(numbers, turns):
    """Give keyframes and an exact window of a camera that does not move, only turns."""
    poses = [
        pose(0) @ _turned(turn) for turn in turns]
    frames = [
        Keyframe(n, n, 'camera', RGB, K, None, p) for n, p in zip(numbers, poses, strict=True)]
    views = tuple(
        replace(view, world_from_camera=np.linalg.inv(poses[0]) @ p)
        for view, p in zip(window(numbers).views, poses, strict=True))
    return WindowPrediction(views, Scale('model')), frames


def _turned(deg):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('y', deg, degrees=True).as_matrix()
    return matrix


def assert_poses(poses, map_from_odom, atol=1e-6):
    for number, found in poses.items():
        np.testing.assert_allclose(found, map_from_odom @ pose(number), atol=atol)


def placed(estimator):
    """Return what the estimator has of its newest keyframes, without their scale, by id."""
    return {
        number: similarity @ np.diag([1.0 / scale_of(similarity)] * 3 + [1.0])
        for number, similarity in estimator.recent().items()}


def made(scale='model', trust=False, **alignment):
    return Estimator(AlignmentConfig(**alignment), ScaleConfig(scale), trust)


@pytest.fixture
def estimator():
    return made()


# Where a map begins


def test_the_map_starts_where_odometry_does(estimator):
    submap = estimator.place(window([3, 4, 5]), keyframes([3, 4, 5]))
    assert submap.new_segment and submap.new_ids == {3, 4, 5}
    assert_poses(submap.poses, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(estimator.map_from_odom, np.eye(4), atol=1e-9)


def test_without_odometry_the_base_lies_level_at_the_origin(estimator):
    mount = shifted(0.2) @ BODY_FROM_OPTICAL
    submap = estimator.place(window([0, 1]), keyframes([0, 1], odometry=False, mount=mount))
    np.testing.assert_allclose(submap.poses[0], mount, atol=1e-9)


def test_a_camera_alone_starts_upright_looking_along_x(estimator):
    start = estimator.place(window([0, 1]), keyframes([0, 1], odometry=False)).poses[0]
    np.testing.assert_allclose(start[:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(start[:3, :3] @ [0, -1, 0], [0, 0, 1], atol=1e-9)
    assert estimator.map_from_odom is None


def test_reset_forgets_the_map(estimator):
    estimator.place(window([0, 1]), keyframes([0, 1]))
    estimator.reset()
    assert estimator.map_from_odom is None
    assert not estimator.recent() and not estimator.path()
    submap = estimator.place(window([1, 2]), keyframes([1, 2], odometry=False))
    assert submap.new_segment
    np.testing.assert_allclose(submap.poses[1], BODY_FROM_OPTICAL, atol=1e-9)


# What ties windows


def test_windows_are_joined_by_id_whatever_their_order_or_gaps(estimator):
    first = estimator.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3], odometry=False))
    map_from_odom = first.poses[0] @ np.linalg.inv(pose(0))
    # A dropped window, an unregistered view: only keyframe 3 is shared, and it comes last.
    second = estimator.place(window([5, 9, 3]), keyframes([3, 5, 9], odometry=False))
    assert second.new_ids == {5, 9} and not second.new_segment
    assert_poses(second.poses, map_from_odom)
    assert_poses(placed(estimator), map_from_odom)
    assert second.residual_m < 1e-6


def test_drifting_odometry_shows_in_the_correction_and_not_in_the_map(estimator):
    for start in range(0, 30, 3):
        estimator.place(window(six(start)), drifting(six(start), 0.3, 0.01))
    frame = drifting([32], 0.3, 0.01)[0]
    # Odometry is 9.6 degrees and 1.6 m off by now, of which the map takes less than a tenth.
    drift = pose(32) @ np.linalg.inv(frame.odom_from_camera)
    assert np.linalg.norm((drift @ frame.odom_from_camera - frame.odom_from_camera)[:3, 3]) > 1.5
    for number, found in placed(estimator).items():
        error = found @ np.linalg.inv(pose(number))
        assert np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()) < 0.96
        assert np.linalg.norm(found[:3, 3] - pose(number)[:3, 3]) < 0.16
    np.testing.assert_allclose(
        estimator.map_from_odom @ frame.odom_from_camera, placed(estimator)[32], atol=1e-9)


def test_a_gap_is_bridged_by_odometry_from_the_last_keyframe_before(estimator):
    """Odometry has turned meanwhile, at once between two windows that share keyframes."""
    jump = shifted(0.5, 10.0)
    frames = {
        frame.id: frame if frame.id < 6 else replace(
            frame, odom_from_camera=jump @ frame.odom_from_camera)
        for frame in keyframes(range(22))}
    for start in (0, 3, 6, 9, 16):
        submap = estimator.place(window(six(start)), [frames[n] for n in six(start)])
        assert submap.new_segment == (start == 0)
    # The jump was doubted: two windows contradict it. The last window has nothing but odometry.
    assert_poses(submap.poses, np.eye(4), atol=0.02)
    np.testing.assert_allclose(estimator.map_from_odom @ jump, np.eye(4), atol=0.02)


def test_any_keyframe_that_odometry_knows_bridges_a_gap_and_corrects_odometry(estimator):
    estimator.place(window([0, 1, 2, 3]), partly(range(4), {1, 3}))
    np.testing.assert_allclose(estimator.map_from_odom, np.eye(4), atol=1e-6)
    submap = estimator.place(window([6, 7, 8]), partly(range(6, 9), {6, 8}))
    assert not submap.new_segment and submap.new_ids == {6, 7, 8}
    assert_poses(submap.poses, np.eye(4))


def test_after_a_gap_without_odometry_a_new_segment_starts_at_the_last_pose(estimator):
    first = estimator.place(window([0, 1]), keyframes([0, 1], odometry=False))
    second = estimator.place(window([4, 5]), keyframes([4, 5], odometry=False))
    assert first.new_segment and second.new_segment and estimator.segments == 2
    np.testing.assert_allclose(second.poses[4], first.poses[1], atol=1e-6)
    assert estimator.recent().keys() == {4, 5}


def test_windows_of_one_keyframe_lie_where_odometry_has_them():
    for scale in ('model', 'depth'):
        estimator = made(scale)
        for number in range(30):
            submap = estimator.place(window([number]), with_depth(keyframes([number])))
            assert submap.new_ids == {number} and submap.new_segment == (number == 0)
            assert_poses(submap.poses, np.eye(4))


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_no_keyframe_is_lost_on_a_long_way(odometry):
    estimator, seen = made(), set()
    for start in range(0, 120, 3):
        submap = estimator.place(window(six(start)), keyframes(six(start), odometry))
        assert submap.poses.keys() == set(six(start)) and not submap.gone
        assert not submap.new_ids & seen
        seen |= submap.new_ids
    first = estimator.path()[0]
    assert estimator.path().keys() == set(range(123))
    assert_poses(estimator.path(), first @ np.linalg.inv(pose(0)), atol=1e-5)


# What contradicts


@pytest.mark.parametrize('wrong', [
    shifted(0.7), np.linalg.inv(shifted(0.7)), shifted(0.0, 20.0)], ids=['far', 'near', 'turn'])
def test_keyframes_that_disagree_reject_the_window_and_nothing_moves(estimator, wrong):
    first = estimator.place(window([0, 1, 2]), keyframes([0, 1, 2], odometry=False))
    map_from_odom = first.poses[0] @ np.linalg.inv(pose(0))
    before = estimator.recent()
    later = keyframes([1, 2, 3], odometry=False)
    for _ in range(3):
        # However often it is tried again.
        with pytest.raises(AlignmentError, match=r'disagrees with the map .* about 1 of 2'):
            estimator.place(window([1, 2, 3], wrong={2: wrong}), later)
    assert estimator.recent().keys() == before.keys()
    assert_poses(placed(estimator), map_from_odom)
    submap = estimator.place(window([1, 2, 3]), later)
    assert submap.new_ids == {3}
    assert_poses(submap.poses, map_from_odom)


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_a_mirrored_window_is_rejected(estimator, odometry):
    estimator.place(window(six(0)), keyframes(six(0), odometry))
    with pytest.raises(AlignmentError, match='disagrees'):
        estimator.place(mirrored(window(six(3))), keyframes(six(3), odometry))
    submap = estimator.place(window(six(3)), keyframes(six(3), odometry))
    assert_poses(submap.poses, submap.poses[3] @ np.linalg.inv(pose(3)))


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_a_window_that_bends_is_rejected_though_the_map_could_give_way(estimator, odometry):
    for start in range(0, 30, 3):
        estimator.place(window(six(start)), keyframes(six(start), odometry))
    before = placed(estimator)
    # As a mirrored window does where the camera hardly turned: in its middle 0.8 degrees, nine
    # times what windows err by now, which five views could share.
    bent = {number: _turned(0.8 * (number - 30)) for number in six(30)}
    with pytest.raises(AlignmentError, match='disagrees'):
        estimator.place(window(six(30), wrong=bent), keyframes(six(30), odometry))
    assert placed(estimator).keys() == before.keys()
    submap = estimator.place(window(six(30)), keyframes(six(30), odometry))
    assert_poses(submap.poses, submap.poses[30] @ np.linalg.inv(pose(30)), atol=1e-4)


def test_nobody_knows_which_is_bent_where_the_window_before_was_the_first(estimator):
    for start in range(0, 30, 3):
        estimator.place(window(six(start)), keyframes(six(start), odometry=False))
    assert estimator.place(window(six(40)), keyframes(six(40), odometry=False)).new_segment
    bent = {number: _turned(0.8 * (number - 43)) for number in six(43)}
    submap = estimator.place(window(six(43), wrong=bent), keyframes(six(43), odometry=False))
    assert not submap.new_segment and submap.new_ids >= {46, 47, 48}


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_a_window_three_times_too_large_is_brought_to_scale(estimator, odometry):
    for start in (0, 3, 6):
        estimator.place(window(six(start)), keyframes(six(start), odometry))
    huge = estimator.place(window(six(9), factor=3.0), keyframes(six(9), odometry))
    assert huge.scale.source == 'map'
    assert huge.scale.factor == pytest.approx(1 / 3, rel=0.01)
    assert re.search(r'model sees this window (2\.9|3\.0)', huge.warning)
    assert huge.poses.keys() == set(six(9))
    assert_poses(huge.poses, huge.poses[9] @ np.linalg.inv(pose(9)), atol=0.01)


def test_a_small_disagreement_is_averaged_and_measured(estimator):
    estimator.place(window(six(0)), keyframes(six(0), odometry=False))
    # 2 cm, about a standard deviation of what windows err, 3 m away.
    submap = estimator.place(
        window(six(3), wrong={4: shifted(0.02)}), keyframes(six(3), odometry=False))
    assert submap.poses.keys() == set(six(3)) and not submap.warning
    apart = np.linalg.norm(submap.poses[4][:3, 3] - (
        submap.poses[3] @ np.linalg.inv(pose(3)) @ pose(4))[:3, 3])
    assert 0.005 < apart < 0.015
    # One of six cameras is about 1 cm from where the window has it.
    assert submap.residual_m == pytest.approx(0.01 / 6 ** 0.5, rel=0.5)


def test_later_windows_move_what_earlier_ones_placed(estimator):
    wrong = estimator.place(
        window(six(0), wrong={5: shifted(0.03)}), keyframes(six(0), odometry=False))
    map_from_odom = wrong.poses[0] @ np.linalg.inv(pose(0))
    errors = [np.linalg.norm(wrong.poses[5][:3, 3] - (map_from_odom @ pose(5))[:3, 3])]
    for start in (3, 4, 5):
        submap = estimator.place(window(six(start)), keyframes(six(start), odometry=False))
        assert 5 not in submap.new_ids
        errors.append(np.linalg.norm(
            placed(estimator)[5][:3, 3] - (map_from_odom @ pose(5))[:3, 3]))
    assert errors[0] == pytest.approx(0.03, abs=1e-6)
    assert errors[1] < 0.02 and errors[3] < 0.009, errors


def test_one_wrong_view_of_three_does_not_pull_a_join_of_images(estimator):
    numbers = [0, 1, 2, 3], [1, 2, 3, 4]
    first = estimator.place(window(numbers[0]), keyframes(numbers[0], odometry=False))
    bent = estimator.place(
        window(numbers[1], wrong={2: shifted(3.0, 90.0)}), keyframes(numbers[1], odometry=False))
    assert bent.poses.keys() == {1, 3, 4} and bent.inliers == 0.75
    assert '1 of 4 keyframes of a window were left out' in bent.warning
    assert_poses(bent.poses, first.poses[0] @ np.linalg.inv(pose(0)), atol=DOUBTED)


@pytest.mark.parametrize('trust', [True, False], ids=['trusted', 'drifting'])
def test_one_keyframe_that_odometry_belies_is_left_out_and_comes_again(trust):
    estimator = made(trust=trust)
    estimator.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3]))
    bent = estimator.place(
        window([2, 3, 4, 5], wrong={4: shifted(2.0)}), keyframes([2, 3, 4, 5]))
    assert_poses(bent.poses, np.eye(4), atol=DOUBTED)
    assert [view.keyframe_id for view in bent.views] == [2, 3, 5]
    assert bent.new_ids == {5} and not bent.gone
    assert '1 of 4 keyframes of a window were left out' in bent.warning
    again = estimator.place(window([4, 5, 6]), keyframes([4, 5, 6]))
    assert again.new_ids == {4, 6}
    assert_poses(again.poses, np.eye(4), atol=DOUBTED)


def test_a_keyframe_about_which_two_windows_contradict_each_other_is_gone(estimator):
    first = estimator.place(
        window(six(0), wrong={4: shifted(1.0)}), keyframes(six(0), odometry=False))
    assert 4 in first.new_ids
    second = estimator.place(window(six(3)), keyframes(six(3), odometry=False))
    assert second.gone == {4} and 4 not in second.poses
    assert 4 not in estimator.recent()
    assert '1 of 6 keyframes of a window were left out' in second.warning
    assert_poses(second.poses, first.poses[0] @ np.linalg.inv(pose(0)), atol=DOUBTED)


def test_a_keyframe_that_was_placed_and_left_out_is_not_new_when_it_comes_again(estimator):
    estimator.place(window([0, 1, 2, 3]), keyframes([0, 1, 2, 3]))
    # The backend could make nothing of keyframe 3 this time.
    estimator.place(window([1, 2, 4]), keyframes([1, 2, 3, 4]))
    again = estimator.place(window([3, 5]), keyframes([2, 3, 4, 5]))
    assert again.new_ids == {5}
    assert_poses(again.poses, np.eye(4))


def test_slip_does_not_excuse_a_window_that_is_turned(estimator):
    for start in (0, 3):
        estimator.place(window(six(start)), keyframes(six(start)))
    bend = {number: shifted(0.0, 15.0 * (number - 8)) for number in (9, 10, 11)}
    try:
        submap = estimator.place(window(six(6), wrong=bend), slipping(six(6), 2.0, 8, 11))
    except AlignmentError:
        pass
    else:
        assert submap.new_ids == set()
    assert_poses({n: p for n, p in placed(estimator).items() if n < 9}, np.eye(4), atol=0.03)


def test_new_keyframes_do_not_follow_a_window_that_has_nothing_where_it_is(estimator):
    """They agree with each other in it, but with none that it shares, and not with odometry."""
    for start in (0, 3):
        estimator.place(window(six(start)), keyframes(six(start)))
    astray = window(six(6), wrong={6: shifted(2.0, 40.0), 7: shifted(-1.0, -30.0)})
    turned = shifted(1.0, 60.0)
    views = tuple(
        replace(view, world_from_camera=turned @ view.world_from_camera)
        if view.keyframe_id >= 9 else view for view in astray.views)
    before = placed(estimator)
    with pytest.raises(AlignmentError, match='disagrees with the map'):
        estimator.place(replace(astray, views=views), keyframes(six(6)))
    assert placed(estimator).keys() == before.keys()
    submap = estimator.place(window(six(9)), keyframes(six(9)))
    assert submap.new_ids == set(six(9)) and not submap.new_segment
    assert_poses(submap.poses, np.eye(4), atol=DOUBTED)


# Scale


def test_windows_without_scale_take_the_scale_of_the_map(estimator):
    first = estimator.place(
        window([0, 1, 2], 'none', 0.25), keyframes([0, 1, 2], odometry=False))
    assert first.scale == Scale('none', pytest.approx(1.0))
    second = estimator.place(
        window([1, 2, 3], 'none', 7.0), keyframes([1, 2, 3], odometry=False))
    assert second.scale.source == 'none' and not second.new_segment
    assert second.scale.factor == pytest.approx(0.25 / 7.0, rel=1e-5)
    assert second.residual_m == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(
        second.views[-1].depth_m, torch.full((20, 20), 0.25 * depth(3)), rtol=1e-5, atol=1e-5)


def test_a_window_without_scale_becomes_metric_on_a_metric_map(estimator):
    estimator.place(window([0, 1], 'depth'), keyframes([0, 1], odometry=False))
    submap = estimator.place(window([1, 2], 'none', 3.0), keyframes([1, 2], odometry=False))
    assert submap.scale == Scale(
        'map', pytest.approx(1 / 3, rel=1e-5), pytest.approx(float('nan'), nan_ok=True))


def test_the_model_alone_settles_between_what_it_says_of_each_window(estimator):
    for start, factor in zip(range(0, 24, 3), (1.0, 1.1) * 4, strict=True):
        submap = estimator.place(
            window(six(start), 'model', factor), keyframes(six(start), odometry=False))
    assert factor * submap.scale.factor == pytest.approx(1.1 ** 0.5, rel=0.02)
    poses = placed(estimator)
    for before, after in ((0, 5), (10, 15), (20, 25)):
        length, true = (
            np.linalg.norm(found[after][:3, 3] - found[before][:3, 3])
            for found in (poses, {n: pose(n) for n in poses}))
        assert length / true == pytest.approx(1.1 ** 0.5, rel=0.02)


def test_odometry_anchors_the_scale_from_the_first_window_on():
    estimator = made('odometry')
    for start, factor in ((0, 0.8), (3, 1.3), (6, 0.9)):
        submap = estimator.place(window(six(start), 'model', factor), keyframes(six(start)))
        assert_poses(submap.poses, np.eye(4))
        assert submap.scale.source == 'odometry' and not submap.warning
        assert submap.scale.factor == pytest.approx(1 / factor, rel=1e-6)


def test_poses_that_are_the_truth_set_the_scale():
    submap = made(trust=True).place(window(six(0), 'model', 1.2), keyframes(six(0)))
    assert_poses(submap.poses, np.eye(4))
    assert submap.scale.source == 'odometry'


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'images'])
def test_depth_anchors_the_scale(odometry):
    estimator = made('depth')
    for start, factor in ((0, 0.5), (3, 1.3)):
        submap = estimator.place(
            window(six(start), 'model', factor), with_depth(keyframes(six(start), odometry)))
        assert submap.scale.source == 'depth'
        assert submap.scale.factor == pytest.approx(1 / factor, rel=1e-5)


def test_a_map_that_began_with_the_wrong_scale_is_mended():
    """The first window's 2.7 is one of several opinions; what it placed shrinks with it."""
    for odometry in (True, False):
        estimator = made()
        first = estimator.place(window(six(0), 'model', 2.7), keyframes(six(0), odometry))
        assert first.scale == Scale('model', pytest.approx(1.0, rel=1e-3), first.scale.residual)
        for start, factor in ((3, 1.05), (6, 0.95), (9, 1.05), (12, 0.95)):
            submap = estimator.place(
                window(six(start), 'model', factor), keyframes(six(start), odometry))
            assert not submap.new_segment
        poses = placed(estimator)
        for before, after in ((0, 5), (12, 17)):
            length = np.linalg.norm(poses[after][:3, 3] - poses[before][:3, 3])
            true = np.linalg.norm(pose(after)[:3, 3] - pose(before)[:3, 3])
            assert length == pytest.approx(true, rel=0.03)
        # The depth of the first keyframes came 2.7 times too large.
        assert scale_of(estimator.recent()[0]) == pytest.approx(1 / 2.7, rel=0.03)


def test_one_window_of_which_the_depth_sensor_tells_twice_the_truth_moves_nothing():
    estimator = made('depth')
    for start in (0, 3):
        estimator.place(window(six(start)), with_depth(keyframes(six(start))))
    submap = estimator.place(window(six(6)), with_depth(keyframes(six(6)), 2.0))
    assert 'scale by depth is 2.00 times that of the map' in submap.warning
    assert submap.scale.source == 'map'
    submap = estimator.place(window(six(9)), with_depth(keyframes(six(9))))
    assert submap.scale.source == 'depth' and not submap.warning
    assert_poses(placed(estimator), np.eye(4), atol=5e-3)


def test_metres_that_come_late_start_a_new_segment():
    estimator = made('depth')
    estimator.place(window([0, 1, 2], 'none', 3.0), keyframes([0, 1, 2], odometry=False))
    frames = with_depth(keyframes([1, 2, 3, 4], odometry=False))
    submap = estimator.place(window([1, 2, 3], 'none', 7.0), frames[:3])
    assert submap.new_segment and submap.new_ids == {1, 2, 3}
    assert submap.scale.source == 'depth'
    torch.testing.assert_close(submap.views[0].depth_m, torch.full((20, 20), depth(1)))
    later = estimator.place(window([2, 3, 4], 'none'), frames[1:])
    assert not later.new_segment and later.scale.metric
    assert estimator.segments == 2


def test_a_window_of_unknown_scale_does_not_get_into_a_map_in_metres():
    estimator = made('odometry')
    estimator.place(window([0, 1, 2], 'none', 3.0), keyframes([0, 1, 2]))
    turning, frames = still([5, 6, 7], [0, 20, 40])
    with pytest.raises(AlignmentError, match='nothing tells how large'):
        estimator.place(replace(turning, scale=Scale('none')), frames)
    assert estimator.recent().keys() == {0, 1, 2}


@pytest.mark.parametrize(('numbers', 'source'), [([0, 1, 2, 3], 'model'), ([0, 1], 'odometry')])
def test_a_window_of_unknown_scale_is_not_compared_with_odometry(numbers, source):
    with pytest.raises(AlignmentError, match=r'nothing tells how large .* set scale\.source'):
        made(source).place(window(numbers, 'none', 0.25), keyframes(numbers))


def test_two_keyframes_on_a_map_in_metres_take_its_scale_before_odometry_judges_them():
    estimator = made('odometry')
    estimator.place(window([0, 1, 2], 'none', 3.0), keyframes([0, 1, 2]))
    submap = estimator.place(window([2, 3], 'none', 5.0), keyframes([2, 3]))
    assert_poses(submap.poses, np.eye(4))
    assert submap.scale.source == 'map'


@pytest.mark.parametrize('turns', [[0, 0, 0, 0], [0, 20, 40, 60]], ids=['parked', 'turning'])
@pytest.mark.parametrize('source', ['model', 'odometry'])
def test_a_camera_that_does_not_move_is_placed_and_keeps_the_scale(source, turns):
    estimator = made(source)
    first, frames = still([0, 1, 2], turns[:3])
    estimator.place(first, frames)
    # The shared keyframes' depth alone tells that this one is too large.
    second, frames = still([1, 2, 3], turns[1:])
    second = WindowPrediction(
        tuple(rescaled(view, 1.1) for view in second.views), second.scale)
    submap = estimator.place(second, frames)
    for frame in frames:
        np.testing.assert_allclose(submap.poses[frame.id], frame.odom_from_camera, atol=1e-6)
    if source == 'odometry':
        assert submap.scale.source == 'map'
        assert submap.scale.factor == pytest.approx(1 / 1.1, rel=1e-5)


# Slip


def test_odometry_that_slips_for_a_window_is_said_and_the_map_keeps_its_scale():
    """Let the wheels turn 1.5 times as far as the robot goes while it goes a window's way."""
    estimator, warnings = made('odometry'), []
    for start in range(0, 24, 3):
        submap = estimator.place(window(six(start)), slipping(six(start), 1.5, 9, 14))
        assert submap.scale.factor == pytest.approx(1.0, abs=0.02)
        if submap.scale.source == 'map':
            warnings.append(submap.warning)
    assert any('odometry is 1.' in warning and '(slip)' in warning for warning in warnings)
    assert submap.scale.source == 'odometry'


@pytest.mark.parametrize('source', ['model', 'odometry'])
def test_wheels_that_slip_in_some_windows_move_neither_path_nor_scale(source):
    """What map and windows agree about, odometry alone does not undo; and nothing is lost."""
    estimator, seen = made(source), set()
    for start in range(0, 30, 3):
        submap = estimator.place(window(six(start)), slipping(six(start), 2.0, 13, 19))
        assert submap.new_segment == (start == 0)
        seen = seen | submap.new_ids - submap.gone
    assert seen == set(range(33))
    assert_poses(placed(estimator), np.eye(4), atol=0.05)


def test_wheels_that_jump_within_a_window_cost_no_keyframes(estimator):
    """From keyframe 7 on odometry is half a metre ahead, from keyframe 8 on a metre."""
    frames = {
        frame.id: replace(frame, odom_from_camera=shifted(
            0.5 * (frame.id >= 7) + 0.5 * (frame.id >= 8)) @ frame.odom_from_camera)
        for frame in keyframes(range(20))}
    seen = set()
    for start in (0, 3, 6, 9, 12):
        submap = estimator.place(window(six(start)), [frames[n] for n in six(start)])
        seen = seen | submap.new_ids - submap.gone
    assert seen == set(range(18))
    assert_poses(placed(estimator), np.eye(4), atol=0.02)


def test_a_map_may_begin_while_wheels_slip(estimator):
    """The model says how large things are; that odometry's metres are others is no harm."""
    submap = estimator.place(window(six(0)), slipping(six(0), 3.0, 0, 5))
    assert submap.scale.factor == pytest.approx(1.0, abs=1e-3)
    assert_poses(submap.poses, np.eye(4), atol=1e-3)


def test_after_a_gap_odometry_brings_the_map_s_scale_to_a_window(estimator):
    for start in (0, 3, 6, 9):
        estimator.place(window(six(start), 'model', 1.1), keyframes(six(start)))
    submap = estimator.place(window(six(18), 'model', 0.9), keyframes(six(18)))
    assert not submap.new_segment
    # It weighs no more than any other window's opinion, and the map was made by four.
    assert 0.9 * submap.scale.factor == pytest.approx(1.1 ** 0.8 * 0.9 ** 0.2, rel=0.02)


def test_after_a_gap_depth_that_anchors_the_scale_needs_no_odometry():
    estimator = made('depth')
    estimator.place(window(six(0)), with_depth(keyframes(six(0))))
    submap = estimator.place(
        window(six(10), 'model', 1.2), with_depth(slipping(six(10), 1.07, 10, 15)))
    assert submap.scale.source == 'depth' and not submap.warning
    assert submap.scale.factor == pytest.approx(1 / 1.2, rel=5e-3)


def test_a_window_after_a_gap_that_odometry_is_silent_about_has_the_model_s_scale():
    estimator = made('odometry')
    estimator.place(window([0, 1, 2]), keyframes([0, 1, 2]))
    # Two poses are no evidence.
    silent = estimator.place(window([5, 6]), keyframes([5, 6]))
    assert silent.scale.source == 'model'
    submap = estimator.place(window([6, 7, 8, 9], 'model', 1.2), keyframes([6, 7, 8, 9]))
    assert_poses(submap.poses, np.eye(4))
    assert submap.scale.factor == pytest.approx(1 / 1.2, rel=1e-3)


# Odometry that is trusted


def test_trusted_odometry_places_every_window_and_no_error_adds_up():
    estimator = made(trust=True)
    # All windows have every other camera turned: that is no reason to lose them.
    bend = {n: shifted(0.004, 0.5) for n in range(1, 200, 2)}
    for start in range(0, 90, 3):
        submap = estimator.place(window(six(start), wrong=bend), keyframes(six(start)))
        assert submap.poses.keys() == set(six(start))
    for number, found in submap.poses.items():
        offset = found @ np.linalg.inv(pose(number))
        assert np.degrees(Rotation.from_matrix(offset[:3, :3]).magnitude()) < 0.5
    assert submap.residual_m < 0.01
    # As certain as what is not to move (FIXED).
    np.testing.assert_allclose(estimator.map_from_odom, np.eye(4), atol=1e-4)
    wrong = {number: shifted(2.0, 40.0) for number in (91, 93, 95)}
    with pytest.raises(AlignmentError, match=r'disagrees with .* odometry about'):
        estimator.place(window(six(90), wrong=wrong), keyframes(six(90)))


@pytest.mark.parametrize('numbers', [[7, 8], [7, 8, 9]], ids=['two', 'three'])
def test_trusted_odometry_bridges_a_gap(numbers):
    estimator = made(trust=True)
    estimator.place(window([0, 1, 2]), keyframes([0, 1, 2]))
    submap = estimator.place(window(numbers), keyframes(numbers))
    assert not submap.new_segment
    assert_poses(submap.poses, np.eye(4))


def test_trusted_odometry_that_knows_no_keyframe_of_a_window_leaves_it_to_the_map():
    estimator = made(trust=True)
    frames = partly(range(6), {2, 3, 4, 5})
    estimator.place(window([0, 1, 2, 3]), frames[:4])
    assert_poses(estimator.place(window([2, 3, 4, 5]), frames[2:]).poses, np.eye(4))
