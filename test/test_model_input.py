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

"""Views keep their geometry through resize and crop, and hold nothing that poisons the network."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.backends.mapanything.input import (
    common_size,
    Crop,
    in_model_order,
    ModelInput,
    to_model,
)
from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.core.errors import ReconstructionError

CPU = torch.device('cpu')
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
SIZES = [(640, 480), (1280, 720), (1280, 800), (480, 640), (160, 120), (1241, 376), (519, 391)]


def calibration(width: int, height: int) -> np.ndarray:
    return np.array([
        [0.8 * width, 0.0, 0.53 * width], [0.0, 0.82 * width, 0.46 * height], [0.0, 0.0, 1.0]])


def ramp(width: int, height: int) -> np.ndarray:
    """Return a picture whose red and green are linear in the pixel's column and row."""
    v, u = np.mgrid[:height, :width]
    return np.rint(np.stack([
        40 + 160 * u / width, 40 + 160 * v / height, np.full_like(u, 90.0)], 2)).astype(np.uint8)


def keyframe(width: int = 64, height: int = 48, number: int = 0, **known) -> Keyframe:
    return Keyframe(number, number, 'camera', ramp(width, height), **known)


def prepared(*keyframes: Keyframe, size_px: int = 518):
    return ModelInput(size_px, CPU).prepare(keyframes)


def pose(index: float) -> np.ndarray:
    made = np.eye(4)
    made[:3, :3] = Rotation.from_euler('xyz', [0.1 * index, 0.2, -0.3]).as_matrix()
    made[:3, 3] = [4e6 + index, 5e5, 0.1 * index]
    return made


@pytest.mark.parametrize(('width', 'height'), SIZES)
def test_a_pixel_keeps_its_colour_and_its_ray(width, height):
    k = calibration(width, height)
    view = prepared(keyframe(width, height, intrinsics=k))[0]
    rows, columns = view.rgb.shape[:2]
    assert rows % 14 == columns % 14 == 0
    assert max(rows, columns) == 518
    # Where the ray of a pixel of the crop meets the original picture.
    v, u = np.mgrid[:rows, :columns]
    rays = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(view.intrinsics).T
    at = (rays @ k.T)[..., :2]
    expected = 40 + 160 * at / [width, height]
    inside = slice(4, -4)
    error = (view.rgb.numpy()[..., :2] - expected)[inside, inside]
    # Rounded to whole levels on the way in, and on the way out.
    assert np.abs(error).max() < 1.1
    shift_px = error.mean((0, 1)) * [width, height] / 160
    assert np.abs(shift_px).max() < 0.2


@pytest.mark.parametrize(('width', 'height'), SIZES)
def test_depth_is_that_of_the_nearest_pixel(width, height):
    depth_m = (1 + np.arange(width * height).reshape(height, width)).astype(np.float32)
    view = prepared(keyframe(
        width, height, intrinsics=calibration(width, height), depth_m=depth_m))[0]
    found = view.depth_m[0].numpy()
    assert found.shape == view.rgb.shape[:2]
    assert np.isin(found, depth_m).all(), 'no depth is made up'
    v, u = np.mgrid[:found.shape[0], :found.shape[1]]
    rays = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(view.intrinsics).T
    at = (rays @ calibration(width, height).T)[..., :2]
    source = np.stack([(found - 1) % width, (found - 1) // width], 2)
    assert np.abs(source - at).max() <= 0.51


def test_the_image_is_normalised_for_dinov2():
    view = prepared(keyframe())[0]
    expected = (view.rgb.numpy() / 255 - MEAN) / STD
    assert view.normalised.shape == (1, 3, 392, 518)
    assert np.allclose(view.normalised[0].permute(1, 2, 0), expected, atol=1e-6)


@pytest.mark.parametrize(('shapes', 'size_px', 'size'), [
    ([(480, 640)], 518, (518, 392)), ([(720, 1280)], 518, (518, 294)),
    ([(800, 1280)], 518, (518, 336)), ([(640, 480)], 518, (392, 518)),
    ([(500, 500)], 518, (518, 518)), ([(376, 1241)], 518, (518, 168)),
    ([(480, 640)], 280, (280, 210)), ([(1280, 720)], 280, (154, 280)),
    ([(480, 640), (500, 500), (640, 480)], 518, (518, 518))])
def test_the_size_follows_the_mean_aspect_ratio(shapes, size_px, size):
    assert common_size([(*shape, 3) for shape in shapes], size_px) == size


def test_views_of_different_cameras_have_one_size():
    views = prepared(keyframe(640, 480), keyframe(480, 640, 1), keyframe(320, 240, 2))
    assert {view.rgb.shape for view in views} == {views[0].rgb.shape}


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, -1.0])
def test_depth_that_is_no_depth_is_zero(bad):
    depth_m = np.full((48, 64), 2.0, np.float32)
    depth_m[10:20, 10:30] = bad
    view = prepared(keyframe(intrinsics=calibration(64, 48), depth_m=depth_m))[0]
    assert set(view.depth_m.unique().tolist()) == {0.0, 2.0}
    share = (view.depth_m == 0).float().mean().item()
    assert share == pytest.approx(200 / (48 * 64), rel=0.1)


@pytest.mark.parametrize('nothing', [0.0, np.nan])
def test_depth_without_a_single_pixel_is_left_out(nothing):
    depth_m = np.full((48, 64), nothing, np.float32)
    views = prepared(keyframe(intrinsics=calibration(64, 48), depth_m=depth_m))
    assert 'depth_z' not in to_model(views)[0]


def test_what_the_model_gets():
    depth_m = np.full((48, 64), 2.0, np.float32)
    views = prepared(
        keyframe(intrinsics=calibration(64, 48), depth_m=depth_m, odom_from_camera=pose(0)),
        keyframe(number=1, odom_from_camera=pose(1)))
    first, second = to_model(views)
    assert set(first) == {
        'img', 'data_norm_type', 'instance', 'is_metric_scale', 'intrinsics', 'depth_z',
        'camera_poses', 'idx'}
    assert {name: (value.dtype, value.shape) for name, value in first.items()
            if isinstance(value, torch.Tensor)} == {
        'img': (torch.float32, (1, 3, 392, 518)),
        'is_metric_scale': (torch.bool, (1,)),
        'intrinsics': (torch.float32, (1, 3, 3)),
        'depth_z': (torch.float32, (1, 392, 518)),
        'camera_poses': (torch.float32, (1, 4, 4))}
    assert first['data_norm_type'] == ['dinov2']
    assert (first['instance'], second['instance']) == (['0'], ['1'])
    (moved,) = to_model(prepared(keyframe(intrinsics=calibration(65, 48))))
    assert first['idx'] != moved['idx'], 'of another camera'
    # Millions of metres from the origin, and still exact.
    expected = np.linalg.inv(pose(0)) @ pose(1)
    assert np.allclose(second['camera_poses'][0], expected, atol=2e-7 + 1e-9 * 4e6 * 1e-2)
    assert np.allclose(first['camera_poses'][0], np.eye(4), atol=1e-6)


def test_what_the_model_writes_into_its_views_is_gone_at_the_next_call():
    views = prepared(keyframe())
    to_model(views)[0]['img'] = None
    assert to_model(views)[0]['img'] is views[0].normalised


def test_a_view_with_a_pose_comes_first_and_the_others_keep_their_order():
    views = prepared(*(
        keyframe(number=i, odom_from_camera=pose(i) if i in (2, 3) else None) for i in range(4)))
    assert [view.keyframe.id for view in in_model_order(views)] == [2, 0, 1, 3]
    unposed = prepared(*(keyframe(number=i) for i in range(3)))
    assert [view.keyframe.id for view in in_model_order(unposed)] == [0, 1, 2]


@pytest.mark.parametrize('other', [{}, {
    'number': 9, 'height': 96, 'width': 48, 'intrinsics': calibration(48, 96)}])
def test_what_was_resized_when_it_came_is_not_resized_in_its_window(monkeypatch, other):
    """Unless another image of the window makes its size another."""
    depth_m = np.random.default_rng(0).uniform(0, 5, (48, 64)).astype(np.float32)
    window = [
        keyframe(number=i, intrinsics=calibration(64, 48), depth_m=depth_m) for i in range(2)]
    if other:
        window.append(keyframe(**other))
    expected = ModelInput(280, CPU).prepare(window)
    model_input = ModelInput(280, CPU)
    window = [model_input.prepare_alone(one) for one in window]
    resized = []
    monkeypatch.setattr(Crop, 'image', lambda crop, rgb, do=Crop.image: (
        resized.append(rgb) or do(crop, rgb)))
    for one, view in zip(expected, model_input.prepare(window), strict=True):
        assert torch.equal(one.rgb, view.rgb) and torch.equal(one.normalised, view.normalised)
        assert (one.depth_m is None) == (view.depth_m is None)
        assert one.depth_m is None or torch.equal(one.depth_m, view.depth_m)
        assert np.array_equal(one.intrinsics, view.intrinsics)
    assert len(resized) == (len(window) if other else 0)


def test_what_is_wrong_with_a_keyframe_is_said_with_its_window():
    model_input = ModelInput(280, CPU)
    bad = model_input.prepare_alone(keyframe(depth_m=np.full((48, 64), 900, np.uint16)))
    with pytest.raises(ReconstructionError, match='is uint16'):
        model_input.prepare([bad])


def test_keyframes_that_stay_are_not_prepared_again():
    model_input = ModelInput(280, CPU)
    keyframes = [keyframe(number=i) for i in range(4)]
    before = model_input.prepare(keyframes[:3])
    after = model_input.prepare(keyframes[1:])
    assert after[0] is before[1]
    assert after[1] is before[2]
    larger = model_input.prepare([*keyframes[2:], keyframe(48, 64, 9), keyframe(48, 64, 8)])
    assert larger[0].rgb.shape != after[1].rgb.shape, 'another size is prepared anew'


@pytest.mark.parametrize(('known', 'words'), [
    ({'depth_m': np.full((48, 64), 900, np.uint16)}, 'is uint16; it must be float32 metres'),
    ({'depth_m': np.full((24, 32), 1, np.float32)}, 'is 32x24, but the image 64x48'),
    ({'depth_m': np.full((48, 64), 1, np.float32), 'intrinsics': None}, 'no intrinsics'),
    ({'intrinsics': np.full((3, 3), np.nan)}, 'intrinsics of keyframe 7 are not finite'),
    ({'odom_from_camera': np.full((4, 4), np.nan)}, 'odometry of keyframe 7'),
])
def test_nonsense_is_refused(known, words):
    good = keyframe(number=7, intrinsics=calibration(64, 48))
    with pytest.raises(ReconstructionError, match=words):
        to_model(prepared(replace(good, **known)))
