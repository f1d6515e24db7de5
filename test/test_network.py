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
What our network leaves out, holds otherwise or does in parts changes nothing.

The same tests run against the fake (`make test`) and the real package (`make test-model`). A batch
of another size has other last bits (on GPUs, and on CPUs by their kind): where that is so the
tolerance is SAME in float32, and in mixed precision what bf16 itself costs against float32.
"""

from __future__ import annotations

from collections.abc import Sequence
import copy
from typing import Any

from checkpoints import CONFIG, CONFIG_V1, write_checkpoint
from helpers import camera_on_path, cast_room, K, view_room
import numpy as np
import pytest
import torch

from mapanything_ros.core.backends.mapanything import batched
from mapanything_ros.core.backends.mapanything.checkpoint import Checkpoint, find_checkpoint
from mapanything_ros.core.backends.mapanything.input import ModelInput, to_model
from mapanything_ros.core.backends.mapanything.loading import load_model
from mapanything_ros.core.backends.mapanything.network import Network
from mapanything_ros.core.config import InferConfig, MapAnythingConfig
from mapanything_ros.core.datatypes import Keyframe

pytestmark = pytest.mark.model

CPU = torch.device('cpu')
SIZE_PX = 140
PLACES = 6
MIXES = ('', 'k', 'kd', 'kdp')
TYPES = (None, torch.bfloat16, torch.float16)
# Relative, of a window's outputs.
SAME = 1e-5

Outputs = list[dict[str, torch.Tensor]]


@pytest.fixture(scope='module', params=[CONFIG, CONFIG_V1], ids=['v1.1', 'v1'])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
) -> Checkpoint:
    return find_checkpoint(str(write_checkpoint(
        tmp_path_factory.mktemp('weights'), request.param)))


@pytest.fixture(autouse=True)
def world(request: pytest.FixtureRequest):
    """Show the fake what the tests look at."""
    if request.config.getoption('--real-model'):
        yield None
        return
    from mapanything.fake_world import WORLD

    WORLD.reset()
    for index in range(PLACES):
        pose = camera_on_path(index)
        WORLD.add(view_room(pose)[0], K, pose, cast_room)
    yield WORLD
    WORLD.reset()


def views(known: str, places: Sequence[int] = range(3), cameras: int = 1) -> list[dict[str, Any]]:
    """Return views of places; ``known`` has k for intrinsics, d for depth, p for poses."""
    window = []
    for index in places:
        rgb, depth_m = view_room(camera_on_path(index))
        k = K @ np.diag([1 + 0.01 * (index % cameras), 1, 1])
        window.append(Keyframe(
            index, index, 'camera', rgb, intrinsics=k if 'k' in known else None,
            depth_m=depth_m.astype(np.float32) if 'd' in known else None,
            odom_from_camera=camera_on_path(index) if 'p' in known else None))
    return to_model(ModelInput(SIZE_PX, CPU).prepare(window))


def network(
    model: torch.nn.Module, amp: torch.dtype | None = None, infer: dict[str, Any] | None = None,
    **config: Any,
) -> Network:
    return Network(model, InferConfig(**infer or {}), MapAnythingConfig(**config), CPU, amp)


def package(
    model: torch.nn.Module, given: list[dict[str, Any]], amp: torch.dtype | None = None,
) -> Outputs:
    """Return what the package's own forward says, with the inputs counting that infer lets."""
    from mapanything.utils.inference import preprocess_input_views_for_inference

    model._configure_geometric_input_config(True, True, True, True, True)
    with torch.no_grad(), torch.autocast('cpu', enabled=amp is not None, dtype=amp):
        found = model.forward(
            preprocess_input_views_for_inference([dict(view) for view in given]))
    model._restore_original_geometric_input_config()
    return found


def equal(one: Outputs, other: Outputs) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True))


def difference(one: Outputs, other: Outputs) -> float:
    """Return the largest relative difference of an output, over all views."""
    def norm(name: str, subtract: bool) -> float:
        parts = [
            a[name].double() - b[name].double() if subtract else b[name].double()
            for a, b in zip(one, other, strict=True)]
        return float(torch.cat([part.flatten() for part in parts]).norm())

    names = [name for name, value in one[0].items() if value.is_floating_point()]
    return max(norm(name, True) / norm(name, False) for name in names)


class Calls:
    """Counts the views that go through a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.batches: list[int] = []
        module.register_forward_pre_hook(
            lambda module, arguments: self.batches.append(_views(arguments[0])))


def _views(given: Any) -> int:
    """Return how many views there are in what uniception's modules are given."""
    return len(given.list_features[0] if hasattr(given, 'list_features') else given.data)


def rays_encoded(model: torch.nn.Module, world: Any) -> list[int]:
    """Return a list that fills with the views of each run of the encoder of rays."""
    return _count(model, world, 'ray_dirs_encoder', '_encode_and_fuse_ray_dirs')


def depths_encoded(model: torch.nn.Module, world: Any) -> list[int]:
    return _count(model, world, 'depth_encoder', '_encode_and_fuse_depths')


def _count(model: Any, world: Any, module: str, method: str) -> list[int]:
    if world is None:
        return Calls(getattr(model, module)).batches
    runs: list[int] = []
    original = getattr(model, method)
    setattr(model, method, lambda given, *rest: (
        runs.append(len(given)) or original(given, *rest)))
    return runs


# Equal to the bit


@pytest.mark.parametrize('known', MIXES)
@pytest.mark.parametrize('amp', TYPES)
def test_the_outputs_are_the_packages_bit_for_bit(checkpoint, known, amp):
    """With weights held in the type of mixed precision, and nothing encoded but what there is."""
    given = views(known)
    expected = package(load_model(checkpoint, CPU), given, amp)
    assert equal(network(load_model(checkpoint, CPU, amp), amp).forward(given), expected)


@pytest.mark.real_model
@pytest.mark.parametrize('amp', [torch.bfloat16, torch.float16])
def test_weights_that_autocast_casts_are_held_in_its_type(checkpoint, amp):
    model = load_model(checkpoint, CPU, amp)
    cast = {
        name for name, parameter in model.named_parameters() if parameter.dtype == amp}
    assert {name.split('.')[0] for name in cast} == {'encoder', 'info_sharing'}
    # The rest of those parts is added and multiplied, in float32.
    assert all(name.rsplit('.', 1)[1] in ('weight', 'bias') for name in cast)
    assert not any('norm' in name for name in cast)
    seen: set[torch.dtype] = set()
    for part in (model.encoder, model.info_sharing):
        for layer in part.modules():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
                layer.register_forward_pre_hook(
                    lambda layer, arguments: seen.add(layer.weight.dtype))
    network(model, amp).forward(views('k'))
    assert seen == {amp}, 'or it would be cast at every use'


def test_what_is_loaded_in_float32_stays_so(checkpoint):
    held = load_model(checkpoint, CPU).state_dict().values()
    assert {value.dtype for value in held if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(('known', 'infer', 'runs'), [
    ('', {}, []), ('k', {}, []), ('kd', {}, [3]),
    ('kd', {'ignore_depth_inputs': True}, [])])
def test_depth_is_encoded_only_where_there_is_some(checkpoint, world, known, infer, runs):
    model = load_model(checkpoint, CPU)
    encoded = depths_encoded(model, world)
    network(model, infer=infer).forward(views(known))
    assert encoded == runs


@pytest.mark.parametrize(('known', 'infer'), [
    ('', {}), ('k', {'ignore_calibration_inputs': True})])
def test_rays_are_not_encoded_where_none_are_given(checkpoint, world, known, infer):
    model = load_model(checkpoint, CPU)
    encoded = rays_encoded(model, world)
    network(model, infer=infer).forward(views(known))
    assert encoded == []


@pytest.mark.parametrize(('cameras', 'windows', 'runs'), [
    (1, [(0, 1, 2), (1, 2, 3), (3, 4, 5)], [3]),
    (2, [(0, 1, 2), (1, 2, 3), (0, 2, 4), (1, 3, 5)], [3, 3]),
    (3, [(0, 1), (0, 1), (1, 2), (2, 5)], [2, 2])])
def test_the_rays_of_a_camera_are_encoded_once(checkpoint, world, cameras, windows, runs):
    """As long as each window has the camera."""
    model = load_model(checkpoint, CPU)
    encoded = rays_encoded(model, world)
    ours = network(model)
    for window in windows:
        given = views('k', window, cameras)
        found = ours.forward(given)
        done = list(encoded)
        expected = network(load_model(checkpoint, CPU), reuse_features=False).forward(given)
        assert difference(found, expected) <= SAME
    assert done == runs


def test_what_is_kept_of_a_camera_is_no_part_of_a_batch(checkpoint):
    ours = network(load_model(checkpoint, CPU))
    ours.forward(views('k'))
    (kept,) = ours._parts['_encode_and_fuse_ray_dirs']._known.values()
    assert kept.untyped_storage().nbytes() == kept.nbytes


def test_the_model_is_left_as_it_was(checkpoint):
    model = load_model(checkpoint, CPU)
    before = dict(vars(model))
    ours = network(model)
    ours.forward(views('kdp'))
    with pytest.raises(ValueError, match='key'):
        ours.forward([{**views('k')[0], 'colour': 1}])
    assert vars(model).keys() - before.keys() <= {'_original_geometric_config'}
    assert equal(package(model, views('k')), package(load_model(checkpoint, CPU), views('k')))


# Equal but for the last bits


@pytest.mark.parametrize('at_once', [1, 2, 3, 4])
def test_the_dense_head_in_batches(checkpoint, world, at_once):
    model = load_model(checkpoint, CPU)
    given = views('k')
    whole = network(model).forward(given)
    runs = [] if world else Calls(model.dpt_feature_head).batches
    if world:
        world.head_batches.clear()
        runs = world.head_batches
    found = network(model).forward(given, at_once)
    assert difference(found, whole) <= SAME
    assert runs == {1: [1, 1, 1], 2: [2, 1], 3: [3], 4: [3]}[at_once]


@pytest.mark.parametrize(('images', 'runs'), [(3.5, [3, 2]), (1.9, [1] * 5), (0.1, [1] * 5)])
def test_what_a_kernel_cannot_index_is_run_in_parts(
        checkpoint, world, monkeypatch, images, runs):
    """Each part of the network has its own widest layer; here as many elements as that fit."""
    model = load_model(checkpoint, CPU)
    given = views('k', range(5))
    whole = network(model).forward(given)
    for part in ('encoder', 'head'):
        ours = network(load_model(checkpoint, CPU))
        height, width = given[0]['img'].shape[-2:]
        encoder, head = ours._parts['_encode_n_views']._encode, ours._head
        elements = (
            encoder._channels * (height // 14 * width // 14 + 1) if part == 'encoder' else
            head._channels * height * width)
        sizes: list[int] = []
        if part == 'encoder':
            _spy(encoder, '_encode', lambda given, *rest, to=sizes: to.append(len(given)))
        else:
            _spy(head, '_run', lambda inputs, *rest, to=sizes: to.append(len(inputs[0])))
        with monkeypatch.context() as patch:
            patch.setattr(batched, 'MAX_ELEMENTS', int(images * elements))
            assert difference(ours.forward(given), whole) <= SAME
        assert sizes == runs, part


def _spy(owner: Any, name: str, look: Any) -> None:
    original = getattr(owner, name)
    setattr(owner, name, lambda *arguments: look(*arguments) or original(*arguments))


@pytest.mark.real_model
def test_the_bound_of_a_part_is_its_widest_activation(checkpoint):
    """Whatever a module of the encoder or the dense head makes for a view, it is no larger."""
    model = load_model(checkpoint, CPU)
    ours = network(model)
    largest = {'encoder': 0, 'dense_head': 0}
    for part in largest:
        for module in getattr(model, part).modules():
            module.register_forward_hook(
                lambda module, given, made, part=part: largest.update({
                    part: max(largest[part], _size(made))}))
    given = views('k', [0])
    ours.forward(given)
    height, width = given[0]['img'].shape[-2:]
    tokens = (height // 14) * (width // 14) + 1
    encoder = ours._parts['_encode_n_views']._encode
    assert largest['encoder'] <= encoder._channels * tokens <= 2 * largest['encoder']
    bound = ours._head._channels * height * width
    assert largest['dense_head'] <= bound <= 4 * largest['dense_head']


def _size(made: Any) -> int:
    if isinstance(made, torch.Tensor):
        return made.numel()
    parts = vars(made).values() if hasattr(made, '__dict__') else made
    return max((_size(part) for part in parts if isinstance(part, torch.Tensor)), default=0)


@pytest.mark.real_model
@pytest.mark.parametrize('known', MIXES)
def test_features_that_are_kept_cost_no_more_than_mixed_precision(checkpoint, known):
    def slid(amp: torch.dtype | None) -> Outputs:
        ours = network(load_model(checkpoint, CPU, amp), amp)
        ours.forward(views(known, range(4)))
        return ours.forward(views(known, range(1, 5)))

    given = views(known, range(1, 5))
    exact = network(load_model(checkpoint, CPU)).forward(given)
    assert difference(slid(None), exact) <= SAME
    mixed = network(
        load_model(checkpoint, CPU, torch.bfloat16), torch.bfloat16).forward(given)
    cost = difference(mixed, exact)
    assert cost > 10 * SAME, 'the test would show nothing'
    assert difference(slid(torch.bfloat16), exact) <= 1.5 * cost
    assert difference(slid(torch.bfloat16), mixed) <= cost


@pytest.mark.real_model
def test_attention_shows_in_what_random_weights_say(checkpoint):
    """Else its errors would not: with LayerScale as it starts, depth moves by 2.6 %."""
    model = load_model(checkpoint, CPU)
    given = views('k')
    before = network(model).forward(given)
    torch.manual_seed(1)
    for name, parameter in model.info_sharing.named_parameters():
        if '.attn.' in name:
            parameter.copy_(torch.randn_like(parameter) * parameter.std())
    after = network(model).forward(given)
    depth = [
        [view['pts3d_cam'][..., 2].flatten() for view in window] for window in (before, after)]
    moved = torch.cat(depth[1]) - torch.cat(depth[0])
    assert moved.norm() / torch.cat(depth[0]).norm() > 0.05


# Options


@pytest.mark.real_model
@pytest.mark.parametrize('config', [
    {'channels_last': True}, {'attention': 'flash'}, {'attention': 'math'}])
def test_options_for_speed(checkpoint, config):
    given = views('kdp')
    exact = network(load_model(checkpoint, CPU)).forward(given)
    assert difference(
        network(copy.deepcopy(load_model(checkpoint, CPU)), **config).forward(given),
        exact) <= SAME


@pytest.mark.real_model
@pytest.mark.parametrize('amp', [None, torch.bfloat16])
def test_compiled_blocks(checkpoint, amp, monkeypatch):
    """In one piece each, once for all blocks of a kind, and not again for another window."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    compile_with = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda function, **options: compile_with(
        function, backend=backend, **options))
    exact = network(load_model(checkpoint, CPU, amp), amp)
    ours = network(load_model(checkpoint, CPU, amp), amp, compile=True)
    done = []
    for window in (range(4), range(2, 6), range(1, 4), [5]):
        given = views('k', window)
        assert difference(ours.forward(given), exact.forward(given)) <= SAME
        done.append(len(graphs))
    # One of the encoder, one of the transformer: as it is, for any number of views, for one view.
    assert done[-1] <= 6, 'whatever the number of blocks'
    for window in (range(3), range(5), range(2), range(1, 6)):
        ours.forward(views('k', window))
    assert len(graphs) == done[-1], 'compiled anew for another number of views'
