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

"""The colmap backend reconstructs rendered windows whose truth is exact, and says why it can't."""

from dataclasses import replace
import faulthandler
import re
from threading import Thread

import numpy as np
import pytest
import scenes
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.backends.colmap.backend import ColmapBackend
from mapanything_ros.core.backends.colmap.plane_sweep import sweep
from mapanything_ros.core.config import ColmapConfig
from mapanything_ros.core.datatypes import Keyframe, WindowPrediction
from mapanything_ros.core.errors import ReconstructionError

CPU = torch.device('cpu')
SMALL = ColmapConfig(width_px=160, planes=64)


@pytest.fixture(scope='module')
def backend() -> ColmapBackend:
    return ColmapBackend(SMALL, CPU)


def window(**options) -> list[Keyframe]:
    return [scenes.keyframe(10 + k, scenes.look('sideways', k), **options) for k in range(5)]


def depth_errors(prediction: WindowPrediction) -> np.ndarray:
    """Return the relative errors of all kept pixels."""
    errors = []
    for view in prediction.views:
        truth = scenes.look('sideways', view.keyframe_id - 10).depth_m
        height, width = view.depth_m.shape
        rows = ((np.arange(height) + 0.5) * truth.shape[0] / height - 0.5).round().astype(int)
        columns = ((np.arange(width) + 0.5) * truth.shape[1] / width - 0.5).round().astype(int)
        mask = view.mask.numpy()
        truth = truth[np.ix_(rows, columns)][mask]
        errors.append(np.abs(view.depth_m.numpy()[mask] - truth) / truth)
    return np.concatenate(errors)


def kept(prediction: WindowPrediction) -> float:
    return float(np.mean([view.mask.numpy().mean() for view in prediction.views]))


def true_poses(prediction: WindowPrediction) -> np.ndarray:
    """Return the true poses of the views in the frame of the first one."""
    poses = np.array([
        scenes.look('sideways', view.keyframe_id - 10).world_from_camera
        for view in prediction.views])
    return np.linalg.inv(poses[0]) @ poses


def turn_deg(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(first.T @ second).magnitude()))


@pytest.fixture(scope='module')
def estimated(backend) -> WindowPrediction:
    return backend.infer(window(posed=False, depth=True))


@pytest.mark.parametrize('refine', [True, False])
def test_trusted_poses_give_metric_depth(refine):
    backend = ColmapBackend(replace(SMALL, refine_poses=refine), CPU)
    prediction = backend.infer(window())
    errors = depth_errors(prediction)
    assert prediction.scale.source == 'odometry'
    assert [view.keyframe_id for view in prediction.views] == [10, 11, 12, 13, 14]
    assert errors.mean() < 0.02
    assert np.median(errors) < 0.008
    assert kept(prediction) > 0.6
    assert np.allclose(prediction.views[0].world_from_camera, np.eye(4), atol=1e-9)
    for view, truth in zip(prediction.views, true_poses(prediction), strict=True):
        assert np.linalg.norm(view.world_from_camera[:3, 3] - truth[:3, 3]) < 0.002
        assert turn_deg(view.world_from_camera[:3, :3], truth[:3, :3]) < 0.03


def test_refinement_corrects_turned_poses(backend):
    rng = np.random.default_rng(3)
    keyframes = []
    for keyframe in window():
        pose = keyframe.odom_from_camera.copy()
        pose[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(
            np.radians(0.1) * rng.normal(size=3)).as_matrix()
        keyframes.append(replace(keyframe, odom_from_camera=pose))
    as_given = ColmapBackend(replace(SMALL, refine_poses=False, min_kept=0.0), CPU)
    raw = as_given.infer(keyframes)
    refined = backend.infer(keyframes)
    truth = true_poses(raw)

    def mean_turn(prediction: WindowPrediction) -> float:
        """Average over all pairs of views, so that no view is special."""
        found = [view.world_from_camera[:3, :3] for view in prediction.views]
        return float(np.mean([
            turn_deg(found[a].T @ found[b], truth[a][:3, :3].T @ truth[b][:3, :3])
            for a in range(5) for b in range(a)]))

    assert mean_turn(refined) < 0.5 * mean_turn(raw)
    assert kept(refined) > 2.0 * kept(raw)
    assert depth_errors(refined).mean() < depth_errors(raw).mean()


def test_estimated_poses_agree_with_truth(estimated):
    truth = true_poses(estimated)
    found = np.array([view.world_from_camera for view in estimated.views])
    path_m = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    assert len(found) == 5
    assert np.allclose(found[0], np.eye(4), atol=1e-9)
    assert max(turn_deg(a[:3, :3], b[:3, :3]) for a, b in zip(found, truth, strict=True)) < 0.3
    assert np.abs(found[:, :3, 3] - truth[:, :3, 3]).max() < 0.01 * path_m


def test_depth_sets_the_scale(estimated):
    assert estimated.scale.source == 'depth'
    assert estimated.scale.residual < 0.01
    assert np.median(depth_errors(estimated)) < 0.01


def test_bad_depth_does_not_disturb_the_scale(backend):
    keyframes = window(posed=False, depth=True)
    depth = keyframes[1].depth_m.copy()
    depth[:60], depth[60:90], depth[90:120], depth[120:140] = 0.0, np.nan, np.inf, -1.0
    keyframes[1] = replace(keyframes[1], depth_m=depth)
    keyframes[2] = replace(keyframes[2], depth_m=np.zeros_like(depth))
    prediction = backend.infer(keyframes)
    assert prediction.scale.source == 'depth'
    assert np.median(depth_errors(prediction)) < 0.01


def test_depth_that_contradicts_the_geometry_is_refused(backend):
    factors = np.random.default_rng(0).uniform(0.5, 2.0, (240, 320)).astype(np.float32)
    keyframes = [
        replace(keyframe, depth_m=keyframe.depth_m * factors)
        for keyframe in window(posed=False, depth=True)]
    with pytest.raises(ReconstructionError, match='differ by more than scale'):
        backend.infer(keyframes)


def test_some_odometry_sets_the_scale(backend):
    keyframes = window()
    keyframes[2] = replace(keyframes[2], odom_from_camera=None)
    prediction = backend.infer(keyframes)
    assert prediction.scale.source == 'odometry'
    assert prediction.scale.residual < 0.02
    assert np.median(depth_errors(prediction)) < 0.02


def test_without_evidence_the_scale_is_none_and_the_median_depth_one(backend):
    prediction = backend.infer(window(posed=False))
    depths = np.concatenate([view.depth_m[view.mask].numpy() for view in prediction.views])
    assert prediction.scale.source == 'none'
    assert not prediction.scale.metric
    assert np.median(depths) == pytest.approx(1.0, abs=1e-4)


def test_the_same_window_gives_the_same_result(estimated):
    again = ColmapBackend(SMALL, CPU).infer(window(posed=False, depth=True))
    assert again.scale == estimated.scale
    for first, second in zip(again.views, estimated.views, strict=True):
        assert np.array_equal(first.world_from_camera, second.world_from_camera)
        assert torch.equal(first.depth_m, second.depth_m)
        assert torch.equal(first.mask, second.mask)


@pytest.mark.parametrize('noisy', [0, 2])
def test_an_image_that_fits_nowhere_is_left_out(backend, noisy):
    keyframes = window(posed=False, depth=True)
    noise = np.random.default_rng(0).integers(0, 256, keyframes[0].rgb.shape, np.uint8)
    # Its own id: the features of the others may be kept.
    keyframes[noisy] = replace(keyframes[noisy], id=5 + noisy, rgb=noise)
    prediction = backend.infer(keyframes)
    ids = [view.keyframe_id for view in prediction.views]
    assert ids == [number for number in range(10, 15) if number != 10 + noisy]
    assert np.allclose(prediction.views[0].world_from_camera, np.eye(4), atol=1e-9)
    assert np.median(depth_errors(prediction)) < 0.01


@pytest.mark.parametrize('size', [(301, 227), (133, 171)])
def test_odd_sizes(backend, size):
    width, height = size
    keyframes = [
        scenes.keyframe(20 + k, scenes.look('sideways', k, width, height)) for k in range(3)]
    prediction = backend.infer(keyframes)
    for k, view in enumerate(prediction.views):
        truth = scenes.look('sideways', k, width, height).depth_m
        shape = view.depth_m.shape
        assert shape[1] == min(160, width)
        assert view.rgb.shape == (*shape, 3)
        # The same ray, in fractions of the image from its corner, before and after.
        ray = np.array([0.1, 0.05, 1.0])
        before, after = scenes.INTRINSICS @ ray, view.intrinsics @ ray
        assert (after[0] + 0.5) / shape[1] == pytest.approx((before[0] + 0.5) / width)
        assert (after[1] + 0.5) / shape[0] == pytest.approx((before[1] + 0.5) / height)
        rows = ((np.arange(shape[0]) + 0.5) * height / shape[0] - 0.5).round().astype(int)
        columns = ((np.arange(shape[1]) + 0.5) * width / shape[1] - 0.5).round().astype(int)
        mask = view.mask.numpy()
        truth = truth[np.ix_(rows, columns)][mask]
        assert np.median(np.abs(view.depth_m.numpy()[mask] - truth) / truth) < 0.015


def test_images_of_two_sizes_in_a_window(backend):
    keyframes = window()
    cropped = keyframes[1].rgb[:200]
    keyframes[1] = replace(keyframes[1], id=30, rgb=np.ascontiguousarray(cropped))
    prediction = backend.infer(sorted(keyframes, key=lambda keyframe: keyframe.id))
    shapes = {view.keyframe_id: tuple(view.depth_m.shape) for view in prediction.views}
    assert shapes[30] == (100, 160)
    assert shapes[10] == (120, 160)


@pytest.mark.parametrize('poor', [1, 4])
def test_an_image_with_hardly_any_points_in_common_is_left_out(backend, monkeypatch, poor):
    estimate = backend._structure_from_motion.estimate

    def with_few_points(keyframes):
        found = estimate(keyframes)
        few = list(found)[:poor]
        return {number: replace(view, depths=view.depths[:5]) if number in few else view
                for number, view in found.items()}

    monkeypatch.setattr(backend._structure_from_motion, 'estimate', with_few_points)
    if poor == 4:
        with pytest.raises(ReconstructionError, match='1 of 5 images share 20 points or more'):
            backend.infer(window(posed=False))
        return
    prediction = backend.infer(window(posed=False, depth=True))
    assert [view.keyframe_id for view in prediction.views] == [11, 12, 13, 14]
    assert np.median(depth_errors(prediction)) < 0.02


@pytest.mark.parametrize('posed', [True, False])
def test_a_blank_wall_is_refused(backend, posed):
    blank = np.full((240, 320, 3), 128, np.uint8)
    keyframes = [
        replace(keyframe, id=40 + k, rgb=blank)
        for k, keyframe in enumerate(window(posed=posed))]
    with pytest.raises(ReconstructionError, match='have texture'):
        backend.infer(keyframes)


@pytest.mark.parametrize('posed', [True, False])
def test_a_camera_that_only_turns_is_refused(backend, posed):
    keyframes = [
        scenes.keyframe(50 + k, scenes.look('turning', k), posed=posed) for k in range(5)]
    with pytest.raises(ReconstructionError, match='move it sideways'):
        backend.infer(keyframes)


@pytest.mark.parametrize('posed', [True, False])
def test_a_camera_that_stands_still_is_refused(backend, posed):
    truth = scenes.look('sideways', 0)
    keyframes = [scenes.keyframe(60 + k, truth, posed=posed) for k in range(4)]
    with pytest.raises(ReconstructionError, match='move it sideways'):
        backend.infer(keyframes)


def test_wrong_poses_are_refused(backend):
    rng = np.random.default_rng(0)
    keyframes = []
    for k, keyframe in enumerate(window()):
        pose = keyframe.odom_from_camera.copy()
        pose[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(0.2 * rng.normal(size=3)).as_matrix()
        keyframes.append(replace(keyframe, id=70 + k, odom_from_camera=pose))
    with pytest.raises(ReconstructionError, match='agree on the depth'):
        backend.infer(keyframes)


def test_intrinsics_are_required(backend):
    keyframes = window()
    keyframes[3] = replace(keyframes[3], intrinsics=None)
    with pytest.raises(ReconstructionError, match='provide camera_info'):
        backend.infer(keyframes)


def test_a_window_of_two(backend):
    prediction = backend.infer(window()[:2])
    assert np.median(depth_errors(prediction)) < 0.02


@pytest.mark.parametrize('in_thread', [False, True])
def test_loading_keeps_the_signal_handlers(in_thread):
    faulthandler.enable()
    before = caught_signals()
    if in_thread:
        thread = Thread(target=ColmapBackend, args=(SMALL, CPU))
        thread.start()
        thread.join()
    else:
        ColmapBackend(SMALL, CPU)
    assert caught_signals() == before


def caught_signals() -> str:
    """Return the mask of the signals that the process handles, as the kernel has it."""
    with open('/proc/self/status') as status:
        return re.search(r'SigCgt:\s*(\w+)', status.read())[1]


def test_keyframes_that_stay_are_not_swept_again(monkeypatch):
    swept = []
    monkeypatch.setattr(
        'mapanything_ros.core.backends.colmap.backend.sweep',
        lambda view, *rest: swept.append(view) or sweep(view, *rest))
    backend, keyframes = ColmapBackend(SMALL, CPU), window()
    backend.infer(keyframes[:4])
    prediction = backend.infer(keyframes[1:])
    assert len(swept) == 5
    assert [view.keyframe_id for view in prediction.views] == [11, 12, 13, 14]
    assert depth_errors(prediction).mean() < 0.02
    assert kept(prediction) > 0.6
