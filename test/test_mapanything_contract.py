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

"""
What our backend relies on in MapAnything, and the backend on top of it.

The same tests run against the fake (`make test`) and the real package (`make test-model`): where
they differ, the fake is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import inspect
from pathlib import Path
from typing import Any

from checkpoints import CONFIG, tiny_model, write_checkpoint
from helpers import camera_on_path, cast_room, K, view_room
import numpy as np
import pytest
import torch

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend
from mapanything_ros.core.backends.mapanything.checkpoint import find_checkpoint
from mapanything_ros.core.backends.mapanything.input import in_model_order, ModelInput, to_model
from mapanything_ros.core.backends.mapanything.loading import load_model
from mapanything_ros.core.backends.mapanything.network import Network
from mapanything_ros.core.config import Config, from_values, InferConfig, MapAnythingConfig
from mapanything_ros.core.datatypes import Keyframe

pytestmark = pytest.mark.model

CPU = torch.device('cpu')
SIZE_PX = 140
# Where batches are of another size.
SAME_MASKS = 0.998
MIXES = ('images', 'calibrated', 'posed', 'depth', 'sparse depth', 'everything', 'some of each')


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def model(weights: Path) -> torch.nn.Module:
    return load_model(find_checkpoint(str(weights)), CPU)


@pytest.fixture(autouse=True)
def world(request: pytest.FixtureRequest):
    """Show the fake what the tests look at."""
    if request.config.getoption('--real-model'):
        yield None
        return
    from mapanything.fake_world import WORLD

    WORLD.reset()
    for index in range(6):
        pose = camera_on_path(index)
        WORLD.add(view_room(pose)[0], K, pose, cast_room)
    yield WORLD
    WORLD.reset()


def keyframes(mix: str, count: int = 3, first: int = 0) -> list[Keyframe]:
    """Return keyframes with what the mix says is known; ids never mean two things."""
    return [_keyframe(mix, first + index) for index in range(count)]


def _keyframe(mix: str, index: int) -> Keyframe:
    pose = camera_on_path(index)
    rgb, depth_m = view_room(pose)
    if mix == 'sparse depth':
        depth_m = depth_m * (np.random.default_rng(index).random(depth_m.shape) < 0.05)
    known = {
        'images': '', 'calibrated': 'k', 'posed': 'p', 'depth': 'kd', 'sparse depth': 'kd',
        'everything': 'kdp', 'some of each': ('', 'kp', 'kd')[index % 3]}[mix]
    return Keyframe(
        100 * MIXES.index(mix) + index, index, 'camera', rgb,
        intrinsics=K if 'k' in known else None,
        depth_m=depth_m.astype(np.float32) if 'd' in known else None,
        odom_from_camera=pose if 'p' in known else None)


def network(model: torch.nn.Module, **config: Any) -> Network:
    return Network(
        model, InferConfig(**config), MapAnythingConfig(reuse_features=False), CPU, None)


def views_of(window: Sequence[Keyframe]) -> list[dict[str, Any]]:
    return to_model(in_model_order(ModelInput(SIZE_PX, CPU).prepare(window)))


def backend_of(weights: Path, **parameters: Any) -> MapAnythingBackend:
    config = from_values(Config, {
        'backend': 'mapanything', 'device': 'cpu', 'mapanything.weights': str(weights),
        'mapanything.size_px': SIZE_PX, **parameters})
    backend = create_backend(config)
    assert isinstance(backend, MapAnythingBackend)
    return backend


# Loading


def test_what_is_loaded_computes_what_was_saved(model):
    views = views_of(keyframes('everything'))
    built = network(tiny_model()).forward(views)
    loaded = network(model).forward(views)
    for one, other in zip(built, loaded, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# One call


@pytest.mark.parametrize('mix', MIXES)
def test_the_raw_outputs_of_every_mix_of_inputs(model, mix):
    views = views_of(keyframes(mix))
    height, width = views[0]['img'].shape[-2:]
    outputs = network(model).forward(views)
    assert len(outputs) == len(views)
    for output in outputs:
        assert {name: (value.dtype, tuple(value.shape)) for name, value in output.items()} == {
            'pts3d': (torch.float32, (1, height, width, 3)),
            'pts3d_cam': (torch.float32, (1, height, width, 3)),
            'ray_directions': (torch.float32, (1, height, width, 3)),
            'depth_along_ray': (torch.float32, (1, height, width, 1)),
            'cam_trans': (torch.float32, (1, 3)),
            'cam_quats': (torch.float32, (1, 4)),
            'metric_scaling_factor': (torch.float32, (1, 1)),
            'conf': (torch.float32, (1, height, width)),
            'non_ambiguous_mask': (torch.bool, (1, height, width)),
            'non_ambiguous_mask_logits': (torch.float32, (1, height, width))}
        assert all(torch.isfinite(value).all() for value in output.values())
        assert (output['conf'] >= 1).all()
        assert torch.allclose(
            output['ray_directions'].norm(dim=-1), torch.ones(1, height, width), atol=1e-5)
        along = output['ray_directions'] * output['depth_along_ray']
        assert torch.allclose(output['pts3d_cam'], along, rtol=1e-5, atol=1e-5)


def test_a_single_image(model):
    outputs = network(model).forward(views_of(keyframes('images', 1)))
    assert len(outputs) == 1


def test_batches_of_the_dense_head_change_nothing_that_counts(model):
    views = views_of(keyframes('calibrated'))
    at_once = network(model).forward(views)
    for size in (1, 2, 3, 4):
        for one, other in zip(
                at_once, network(model).forward(views, size), strict=True):
            assert torch.allclose(one['pts3d'], other['pts3d'], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('change', 'error'), [
    ({'colour': 1}, ValueError),
    ({'img': None}, ValueError),
    ({'data_norm_type': None}, ValueError),
    ({'ray_directions': torch.ones(1, 112, 140, 3)}, ValueError),
    ({'intrinsics': None}, ValueError),
    ({'camera_poses': torch.ones(1, 3, 4)}, ValueError),
    ({'intrinsics': torch.eye(3, dtype=torch.float64)[None]}, RuntimeError),
    ({'depth_z': torch.ones(1, 112, 140, dtype=torch.float64)}, RuntimeError),
    ({'img': torch.ones(1, 3, 113, 141)}, (AssertionError, RuntimeError)),
    ({'data_norm_type': ['clip']}, (AssertionError, KeyError)),
])
def test_what_the_model_refuses(model, change, error):
    """A value of None stands for a key that is missing."""
    views = views_of(keyframes('everything'))
    for name, value in change.items():
        views[0][name] = value
        if value is None:
            del views[0][name]
    with pytest.raises(error):
        network(model).forward(views)


def test_a_first_view_without_a_pose_is_refused_and_ours_has_one(model):
    window = keyframes('some of each', 4)
    views = to_model(ModelInput(SIZE_PX, CPU).prepare(window))
    assert 'camera_poses' not in views[0]
    views[1]['camera_poses'] = torch.eye(4)[None]
    with pytest.raises(ValueError):
        network(model).forward(views)
    assert 'camera_poses' in views_of(window)[0]
    network(model).forward(views_of(window))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['depth_z', 'camera_poses'])
def test_one_number_that_is_not_finite_poisons_all_views(model, name, bad):
    views = views_of(keyframes('everything'))
    views[1][name] = views[1][name].clone()
    views[1][name][0, 2, 3] = bad
    for output in network(model).forward(views):
        assert output['pts3d'].isnan().all()


def test_which_inputs_count_is_put_back_after_a_failure(model):
    before = dict(model.geometric_input_config)
    views = views_of(keyframes('everything'))
    views[0]['intrinsics'] = views[0]['intrinsics'].double()
    with pytest.raises(RuntimeError):
        network(model, ignore_pose_inputs=True).forward(views)
    assert model.geometric_input_config == before
    network(model).forward(views_of(keyframes('everything')))
    assert model.geometric_input_config == before


@pytest.mark.parametrize(('option', 'without'), [
    ('ignore_calibration_inputs', 'intrinsics'), ('ignore_depth_inputs', 'depth_z'),
    ('ignore_pose_inputs', 'camera_poses')])
def test_an_input_that_is_ignored_changes_nothing(model, option, without):
    # Depth along the ray is computed with the intrinsics, ignored or not.
    views = views_of(keyframes('calibrated' if without == 'intrinsics' else 'everything'))
    ignoring = network(model, **{option: True}).forward(views)
    if without == 'intrinsics':
        views = [
            {**view, 'intrinsics': torch.tensor([[[90.0, 0, 1], [0, 90, 1], [0, 0, 1]]])}
            for view in views]
    else:
        views = [{n: v for n, v in view.items() if n != without} for view in views]
    for one, other in zip(
            ignoring, network(model, **{option: True}).forward(views), strict=True):
        assert torch.equal(one['pts3d'], other['pts3d'])


# The backend


@pytest.mark.parametrize('mix', MIXES)
def test_predictions_of_every_mix_of_inputs(weights, mix):
    window = keyframes(mix)
    prediction = backend_of(weights).infer(window)
    assert [view.keyframe_id for view in prediction.views] == [k.id for k in window]
    assert prediction.scale.source == 'model'
    assert prediction.scale.factor > 0
    assert np.allclose(prediction.views[0].world_from_camera, np.eye(4), atol=1e-9)
    for view, keyframe in zip(prediction.views, window, strict=True):
        assert view.rgb.dtype == torch.uint8
        assert view.depth_m.dtype == view.confidence.dtype == torch.float32
        assert view.mask.dtype == torch.bool
        assert view.rgb.shape[:2] == view.depth_m.shape == view.mask.shape == (112, 140)
        assert view.intrinsics.dtype == view.world_from_camera.dtype == np.float64
        assert ((view.confidence >= 0) & (view.confidence <= 1)).all()
        assert (view.depth_m[view.mask] > 0).all()
        assert not view.depth_m.is_inference(), 'may be changed and kept'
        rotation = view.world_from_camera[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        if keyframe.intrinsics is not None:
            scale = 149 / 160, 112 / 120
            assert np.allclose(np.diag(view.intrinsics)[:2], np.diag(K)[:2] * scale)


def test_one_keyframe_alone(weights):
    view = backend_of(weights).infer(keyframes('calibrated', 1)).views[0]
    assert np.allclose(view.world_from_camera, np.eye(4), atol=1e-9)


def test_reused_features_change_nothing_but_last_bits(weights):
    """On some kinds of processor a batch of another size has other ones, as on GPUs."""
    reusing = backend_of(weights, **{'mapanything.reuse_features': True})
    computing = backend_of(weights, **{'mapanything.reuse_features': False})
    for first in range(3):
        window = keyframes('everything', 3, first)
        for one, other in zip(
                reusing.infer(window).views, computing.infer(window).views, strict=True):
            torch.testing.assert_close(one.depth_m, other.depth_m, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one.confidence, other.confidence, rtol=1e-4, atol=1e-5)
            assert (one.mask == other.mask).float().mean() >= SAME_MASKS
            assert np.allclose(one.world_from_camera, other.world_from_camera, atol=1e-5)
    assert reusing.statistics()['features_computed'] == 5
    assert reusing.statistics()['features_reused'] == 4
    assert 'features_reused' not in computing.statistics()


def test_views_are_described_alike_in_every_window_where_loops_are_closed(weights):
    window = keyframes('images')
    backend = backend_of(weights, **{'loop_closure.enabled': True})
    seen: dict[int, torch.Tensor] = {}
    for part in (window[:2], window[1:], window[:1]):
        for view in backend.infer(part).views:
            descriptor = view.descriptor
            assert descriptor is not None and float(descriptor.norm()) == pytest.approx(1.0)
            torch.testing.assert_close(
                descriptor, seen.setdefault(view.keyframe_id, descriptor), rtol=0, atol=1e-6)
    assert float(seen[window[0].id] @ seen[window[1].id]) < 1 - 1e-6
    without = backend_of(weights, **{'loop_closure.enabled': False})
    assert all(view.descriptor is None for view in without.infer(window).views)


def test_a_keyframe_is_left_as_it_was(weights):
    window = keyframes('everything')
    copies = [replace(k, rgb=k.rgb.copy(), depth_m=k.depth_m.copy()) for k in window]
    backend_of(weights).infer(window)
    for keyframe, copy in zip(window, copies, strict=True):
        assert np.array_equal(keyframe.rgb, copy.rgb)
        assert np.array_equal(keyframe.depth_m, copy.depth_m)


# What infer would say (the real package alone)


@pytest.mark.real_model
def test_parameters_are_the_arguments_of_infer_with_its_defaults():
    from mapanything.models import MapAnything

    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(MapAnything.infer).parameters.items()
        if name not in ('self', 'views')}
    ours = vars(InferConfig())
    assert set(ours) == set(arguments)
    # None, which a parameter cannot be, is 0; False is faster and what FACTS of the model advise.
    different = {'minibatch_size': 0, 'memory_efficient_inference': False}
    assert ours == {**arguments, **different}


@pytest.mark.real_model
@pytest.mark.parametrize('mix', MIXES)
@pytest.mark.parametrize('options', [
    {}, {'apply_mask': False}, {'mask_edges': False},
    {'edge_normal_threshold': 60.0, 'edge_depth_threshold': 0.2},
    {'apply_confidence_mask': True, 'confidence_percentile': 30.0},
    {'use_multiview_confidence': True},
    {'use_multiview_confidence': True, 'apply_confidence_mask': True, 'mask_edges': False,
     'multiview_conf_depth_abs_thresh': 0.1, 'multiview_conf_depth_rel_thresh': 0.05},
    {'ignore_calibration_inputs': True}, {'ignore_depth_inputs': True},
    {'ignore_pose_inputs': True}, {'ignore_depth_scale_inputs': True},
    {'ignore_pose_scale_inputs': True}, {'memory_efficient_inference': True, 'minibatch_size': 2},
])
def test_predictions_are_what_infer_says(weights, mix, options):
    window = keyframes(mix)
    ours = backend_of(weights, **options).infer(window)
    views = views_of(window)
    arguments = {'memory_efficient_inference': False, **options}
    theirs = load_model(find_checkpoint(str(weights)), CPU).infer(
        views, use_amp=False, **arguments)
    by_id = {int(view['instance'][0]): output for view, output in zip(views, theirs, strict=True)}
    first = np.linalg.inv(by_id[window[0].id]['camera_poses'][0].double().numpy())
    learned = not options.get('use_multiview_confidence')
    # The package runs its pose head in the same batches; of another size they have other last
    # bits, by which a pixel is an edge, here and there.
    batched = 'minibatch_size' in options
    different = 1 - SAME_MASKS if batched else 0.0 if learned else 0.01
    for view in ours.views:
        output = by_id[view.keyframe_id]
        usable = output['pts3d_cam'][0, ..., 2] > 0
        mask = output['mask'][0, ..., 0] & usable if 'mask' in output else usable
        confidence = output['conf'][0]
        expected = 1 - 1 / confidence if learned else confidence
        unlike = (view.confidence - expected).abs() > 1e-5
        # Whether two views agree hangs by the last bit of pose and intrinsics, here and there.
        assert unlike.float().mean() <= different
        assert (view.mask != mask).float().mean() <= different
        assert mask.any() or not learned, 'the test would show nothing'
        both = view.mask & mask
        depth_m = output['depth_z'][0, ..., 0][both]
        if batched:
            torch.testing.assert_close(view.depth_m[both], depth_m, rtol=1e-5, atol=0)
        else:
            assert torch.equal(view.depth_m[both], depth_m)
        pose = first @ output['camera_poses'][0].double().numpy()
        assert np.allclose(view.world_from_camera, pose, atol=1e-5)
        assert torch.equal(view.rgb, (output['img_no_norm'][0] * 255).round().byte())
    assert ours.scale.factor == pytest.approx(theirs[0]['metric_scaling_factor'].item())


@pytest.mark.real_model
def test_the_tiny_configuration_is_the_real_class():
    from mapanything.models import MapAnything

    assert CONFIG.exists()
    assert sum(p.numel() for p in tiny_model().parameters()) > 10_000_000
    assert isinstance(tiny_model(), MapAnything)
