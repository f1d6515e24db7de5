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
Loading the model: offline, bit for bit, or not at all.

The same tests run against the fake (`make test`) and the real package (`make test-model`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import json
import logging
from pathlib import Path
import socket
import sys

from checkpoints import CONFIG, tiny_model, unavailable, write_checkpoint
from helpers import camera_on_path, cast_room, K, view_room
import pytest
from safetensors.torch import load_file, save_file
import torch

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.backends.mapanything import loading as model_loading
from mapanything_ros.core.backends.mapanything.checkpoint import (
    APACHE,
    Checkpoint,
    find_checkpoint,
    NON_COMMERCIAL,
)
from mapanything_ros.core.backends.mapanything.loading import build_model, load_model, local_dinov2
from mapanything_ros.core.backends.mapanything.requirements import missing_requirements, MODULES
from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.datatypes import Keyframe

pytestmark = pytest.mark.model

CPU = torch.device('cpu')
COMMIT = '0' * 40


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def checkpoint(weights: Path) -> Checkpoint:
    return find_checkpoint(str(weights))


@pytest.fixture(autouse=True)
def no_network(monkeypatch) -> Iterator[None]:
    """Fail where anything asks the network, even where the answer does not matter to it."""
    asked: list[object] = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments[-1])
        raise OSError('there is no network')

    for name in ('connect', 'connect_ex', 'sendto'):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ('getaddrinfo', 'gethostbyname', 'create_connection'):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert not asked


@pytest.fixture
def hub(weights: Path, tmp_path: Path, monkeypatch) -> None:
    """Put the checkpoint into a cache of the hub, under both official ids."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    for name in (APACHE, NON_COMMERCIAL):
        repository = tmp_path / f'models--{name.replace("/", "--")}'
        for folder in ('refs', 'snapshots'):
            (repository / folder).mkdir(parents=True)
        (repository / 'refs' / 'main').write_text(COMMIT)
        (repository / 'snapshots' / COMMIT).symlink_to(weights)


@pytest.fixture
def no_memory_of_mapanything(monkeypatch) -> None:
    """Let the package be imported anew."""
    for name in list(sys.modules):
        if name.split('.')[0] == 'mapanything':
            monkeypatch.delitem(sys.modules, name)


def config(weights: Path | str, **parameters: object) -> Config:
    return from_values(Config, {
        'device': 'cpu', 'mapanything.weights': str(weights), 'mapanything.size_px': 140,
        **parameters})


def changed(weights: Path, folder: Path, **changes: torch.Tensor | None) -> Checkpoint:
    """Write the weights with other tensors, or without those that are None."""
    tensors = {**load_file(weights / 'model.safetensors'), **changes}
    folder.mkdir()
    (folder / 'config.json').write_text(CONFIG.read_text())
    save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        folder / 'model.safetensors')
    return find_checkpoint(str(folder))


def distribution(folder: Path, version: str) -> Path:
    """Write what pip leaves about a package of this version; return where it lies."""
    info = folder / f'mapanything-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: mapanything\nVersion: {version}\n')
    return folder


# Loaded


def test_every_tensor_is_the_one_that_was_saved_bit_for_bit(checkpoint):
    saved, loaded = tiny_model(), load_model(checkpoint, CPU)
    expected = saved.state_dict()
    found = loaded.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    buffers = dict(loaded.named_buffers())
    for name, buffer in saved.named_buffers():
        assert torch.equal(buffers[name], buffer), name


def test_nothing_is_left_without_memory_and_nothing_is_trained(checkpoint):
    model = load_model(checkpoint, CPU)
    assert not model.training
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.device == CPU, name
        assert tensor.dtype == torch.float32 or not tensor.is_floating_point(), name
        assert not tensor.requires_grad, name
        assert tensor.data_ptr() % 16 == 0, f'{name} is not aligned'


def test_parameters_are_not_initialised_before_they_are_loaded(checkpoint):
    parameters = dict(build_model(checkpoint).named_parameters())
    assert parameters
    assert {parameter.device.type for parameter in parameters.values()} == {'meta'}


def test_torch_is_left_as_it_was(checkpoint):
    before = torch.hub.load, torch.load, torch.nn.Module.register_parameter
    load_model(checkpoint, CPU)
    assert (torch.hub.load, torch.load, torch.nn.Module.register_parameter) == before
    assert torch.nn.Linear(2, 2).weight.device == CPU


def test_the_config_of_the_checkpoint_is_left_as_it_was(checkpoint):
    load_model(checkpoint, CPU)
    assert checkpoint.config == json.loads(CONFIG.read_text())


def test_weights_of_half_precision_become_float32(weights, tmp_path):
    tensors = load_file(weights / 'model.safetensors')
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    model = load_model(changed(weights, tmp_path / 'half', **halves), CPU)
    found = model.state_dict()
    for name, half in halves.items():
        assert found[name].dtype == torch.float32, name
        assert torch.equal(found[name], half.float()), name


def test_shards_are_one_model(weights, tmp_path):
    tensors = load_file(weights / 'model.safetensors')
    shards = [{}, {}, {}]
    for number, name in enumerate(sorted(tensors)):
        shards[number % 3][name] = tensors[name]
    for number, shard in enumerate(shards):
        save_file(shard, tmp_path / f'{number}.safetensors')
    index = {name: f'{n}.safetensors' for n, shard in enumerate(shards) for name in shard}
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': index}))
    (tmp_path / 'config.json').write_text(CONFIG.read_text())
    found = load_model(find_checkpoint(str(tmp_path)), CPU).state_dict()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name


def test_from_the_cache_to_a_prediction_nothing_asks_the_network(hub, request):
    if not request.config.getoption('--real-model'):
        from mapanything.fake_world import WORLD

        WORLD.reset()
        for index in range(2):
            pose = camera_on_path(index)
            WORLD.add(view_room(pose)[0], K, pose, cast_room)
    window = [
        Keyframe(index, index, 'camera', view_room(camera_on_path(index))[0], K)
        for index in range(2)]
    prediction = create_backend(config(APACHE)).infer(window)
    assert [view.keyframe_id for view in prediction.views] == [0, 1]


@pytest.mark.parametrize(('name', 'warned'), [(APACHE, False), (NON_COMMERCIAL, True)])
def test_a_licence_that_forbids_something_is_said(hub, caplog, name, warned):
    create_backend(config(name))
    said = [
        record.getMessage() for record in caplog.records
        if record.levelno == logging.WARNING and 'licence' in record.getMessage()]
    assert len(said) == warned
    for text in said:
        assert name in text
        assert 'CC-BY-NC-4.0: for non-commercial use alone' in text


# What does not fit


def test_tensors_of_another_shape(weights, tmp_path):
    checkpoint = changed(weights, tmp_path / 'other', scale_token=torch.zeros(7))
    with unavailable('do not fit', '1 of another shape (scale_token)', 'fetch them again'):
        load_model(checkpoint, CPU)


def test_a_tensor_that_the_model_does_not_know(weights, tmp_path):
    checkpoint = changed(weights, tmp_path / 'other', decoder=torch.zeros(7))
    with unavailable('do not fit', '1 unknown (decoder)', 'fetch them again'):
        load_model(checkpoint, CPU)


def test_tensors_that_are_missing(weights, tmp_path):
    names = sorted(load_file(weights / 'model.safetensors'))
    checkpoint = changed(weights, tmp_path / 'other', scale_token=None)
    with unavailable('do not fit', '1 missing (scale_token)', 'fetch them again'):
        load_model(checkpoint, CPU)
    nothing = changed(weights, tmp_path / 'nothing', **dict.fromkeys(names))
    expected = len(tiny_model().state_dict())
    with unavailable(f'{expected} missing', ', ', 'fetch them again') as _:
        load_model(nothing, CPU)


def test_weights_that_safetensors_refuses(weights, tmp_path):
    """Their length is right, but a tensor has not the size of its shape."""
    path = tmp_path / 'model.safetensors'
    save_file({'scale_token': torch.zeros(4)}, path)
    path.write_bytes(path.read_bytes().replace(b'"shape":[4]', b'"shape":[5]'))
    (tmp_path / 'config.json').write_text(CONFIG.read_text())
    with unavailable(f'{path} is damaged', 'fetch it again'):
        load_model(find_checkpoint(str(tmp_path)), CPU)


@pytest.mark.parametrize('change', [
    {'colour': 'red'}, {'encoder_config': None}, {'encoder_config': {}}, {'encoder_config': 3},
    {'info_sharing_config': 3}, {'pred_head_config': {}}, {'geometric_input_config': None}])
def test_a_config_of_something_else(checkpoint, change):
    other = replace(checkpoint, config={**checkpoint.config, **change})
    with unavailable('config.json does not describe a MapAnything 1.1', 'fetch it again'):
        load_model(other, CPU)


@pytest.mark.parametrize('error', [
    AssertionError('dim should be divisible by num_heads'), IndexError('list index out of range'),
    RuntimeError('negative dimension -1: [-1, 784]'), ZeroDivisionError('modulo by zero'),
    FileNotFoundError(2, 'No such file', 'dinov2.pth')])
def test_a_config_that_only_the_model_finds_wrong(checkpoint, monkeypatch, error):
    """All of these come of one wrong number."""
    def build(**config):
        raise error

    monkeypatch.setattr(model_loading, 'import_model_class', lambda: build)
    with unavailable('config.json does not describe', type(error).__name__, 'fetch it again'):
        load_model(checkpoint, CPU)


def test_a_config_cannot_have_a_pickle_read(checkpoint, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'model': tiny_model().state_dict()}, path)
    other = replace(checkpoint, config={
        **checkpoint.config, 'pretrained_checkpoint_path': str(path)})
    with unavailable('config.json does not describe', f'{path} would be unpickled'):
        load_model(other, CPU)


def test_an_encoder_of_another_repository_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(torch.hub, 'load', None)
    with local_dinov2(), pytest.raises(ValueError, match='NVlabs/RADIO would come from'):
        torch.hub.load('NVlabs/RADIO', 'radio_model', version='radio_v2.5-l')


def test_a_config_without_anything(checkpoint):
    with unavailable('config.json does not describe a MapAnything 1.1', 'fetch it again'):
        load_model(replace(checkpoint, config={}), CPU)


# What is not installed


def test_here_nothing_is_missing():
    assert missing_requirements() == []


@pytest.mark.parametrize('module', MODULES)
def test_a_module_that_is_missing(checkpoint, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert missing_requirements() == [f'the Python module {module} is missing']
    with unavailable(f'the Python module {module} is missing', 'make model', "'colmap'"):
        load_model(checkpoint, CPU)


def test_all_that_is_missing_is_said_at_once(checkpoint, monkeypatch):
    for module in ('mapanything', 'timm'):
        monkeypatch.setitem(sys.modules, module, None)
    with unavailable('module mapanything is missing', 'module timm is missing', 'make model'):
        load_model(checkpoint, CPU)


@pytest.mark.parametrize('version', ['1.0', '1.0.1', '1.10', '2.0'])
def test_another_version_of_the_package(checkpoint, monkeypatch, tmp_path, version):
    monkeypatch.syspath_prepend(distribution(tmp_path, version))
    with unavailable(f'mapanything is {version}, but 1.1 is needed', 'make model', "'colmap'"):
        load_model(checkpoint, CPU)


def test_a_patch_of_the_version_will_do(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(distribution(tmp_path, '1.1.3'))
    assert missing_requirements() == []


@pytest.mark.parametrize('failure', [
    'raise ImportError("libGL.so.1: cannot open shared object file")',
    'raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")',
    'import numpy; numpy.float_of_old',
])
def test_a_package_that_cannot_be_imported(
        checkpoint, monkeypatch, tmp_path, no_memory_of_mapanything, failure):
    package = tmp_path / 'mapanything'
    package.mkdir()
    (package / '__init__.py').write_text(failure)
    monkeypatch.syspath_prepend(tmp_path)
    with unavailable('mapanything cannot be imported (', 'make model'):
        load_model(checkpoint, CPU)


def test_the_hub_client_is_needed_for_an_id_alone(checkpoint, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    assert find_checkpoint(str(weights)) == checkpoint
    with unavailable('huggingface_hub', 'make model', 'or give a folder'):
        find_checkpoint(APACHE)
