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

"""Which device it is, and what is said and given back where it will not do."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
import weakref

from checkpoints import tiny_config as config
from checkpoints import unavailable, write_checkpoint
from gpu import CUDA
from helpers import camera_on_path, K, view_room
import pytest
import torch

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.backends.mapanything import backend as mapanything
from mapanything_ros.core.backends.mapanything.precision import require_precision
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.core.device import (
    forget,
    give_back,
    LEAST_TORCH,
    on_device,
    require_gpu,
    SideStream,
    torch_device,
)
from mapanything_ros.core.errors import ConfigError, GpuLostError

ILLEGAL = (
    'CUDA error: an illegal memory access was encountered\n'
    'CUDA kernel errors might be asynchronously reported at some other API call')


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('weights'))


# Chosen


@pytest.mark.parametrize('name', ['cpu', 'cuda', 'cuda:0', 'cuda:1', 'cuda:12'])
def test_a_device_is_the_cpu_a_gpu_or_one_of_several(name):
    assert Config(device=name).device == name


@pytest.mark.parametrize('name', [
    '', 'gpu', 'cuda:', 'cuda:x', 'cuda:-1', 'cuda:1 ', 'cuda:<number>', 'mps', 'cuda:1.0'])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(ConfigError, match='device must be one of cpu, cuda, cuda:<number>'):
        Config(device=name)


@pytest.mark.parametrize(('count', 'name', 'words'), [
    (1, 'cuda:1', ('finds 1 GPU here', "set device to 'cuda:0'")),
    (4, 'cuda:4', ('finds 4 GPUs here', "'cuda:0' to 'cuda:3'"))])
def test_a_gpu_that_is_not_there_is_named(gpu, count, name, words):
    gpu.count = count
    with unavailable(f"device is '{name}'", *words):
        torch_device(name)


def test_another_gpu_than_the_first_is_what_is_asked_and_used(gpu, weights, monkeypatch):
    """Everything that is asked of a GPU is asked of that one, and the weights go there."""
    gpu.count, gpu.free = 2, 0
    asked = []
    for name in ('mem_get_info', 'get_device_name', 'get_device_properties', 'synchronize',
                 'get_device_capability', 'reset_peak_memory_stats'):
        answer = getattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: (
            asked.append(device) or answer(device)))
    with unavailable('too small for the weights'):
        create_backend(config(weights, device='cuda:1'))
    gpu.free = gpu.total
    monkeypatch.setattr(mapanything, 'load_weights', lambda model, checkpoint, device, held: (
        asked.append(device) or _raise(torch.OutOfMemoryError('CUDA out of memory'))))
    with unavailable('too small for the weights'):
        create_backend(config(weights, device='cuda:1'))
    assert set(asked) == {torch.device('cuda:1')}


def _raise(error: Exception) -> None:
    raise error


def test_what_names_no_gpu_means_the_chosen_one(monkeypatch):
    """That holds for a thread: the worker's is not that which configured."""
    entered = []

    class Chosen:

        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            entered.append(self.device)

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(torch.cuda, 'device', Chosen)
    with on_device(torch.device('cpu')):
        pass
    with on_device(torch.device('cuda:1')):
        assert entered == [torch.device('cuda:1')]


def test_a_window_is_inferred_on_the_chosen_gpu(weights, monkeypatch):
    """The package asks the current GPU for memory, and kernels that are compiled run there."""
    from contextlib import contextmanager

    current, seen = [], []

    @contextmanager
    def chosen(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(mapanything, 'on_device', chosen)
    backend = create_backend(config(weights))
    monkeypatch.setattr(
        backend._network._model, 'forward', lambda *given, **options: (
            seen.append(list(current)) or _raise(LookupError('seen'))))
    window = [Keyframe(0, 0, 'camera', view_room(camera_on_path(0))[0], K)]
    with pytest.raises(LookupError):
        backend.infer(window)
    assert seen == [[torch.device('cpu')]]


@pytest.mark.parametrize(('version', 'enough'), [
    ('2.4.1+cu121', False), ('2.4.0a0+07cecf4168.nv24.05', False), ('1.13.1', False),
    ('2.5.0', True), ('2.10.0+cu130', True), ('2.13.0+cpu', True), ('3.0.0', True)])
def test_a_torch_that_is_too_old_is_one_sentence(monkeypatch, version, enough):
    monkeypatch.setattr(torch, '__version__', version)
    assert LEAST_TORCH == (2, 5), 'docs/install.md says so, too'
    if enough:
        assert torch_device('cpu') == torch.device('cpu')
        return
    with unavailable(f'torch is {version}', '2.5 is the least', 'install a newer'):
        torch_device('cpu')


def test_cuda_without_a_gpu_names_the_alternatives(weights, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with unavailable(
            "device is 'cuda'", 'finds no GPU', torch.__version__, 'driver', "device to 'cpu'",
            "'colmap'"):
        create_backend(config(weights, device='cuda'))


@pytest.mark.parametrize(('built_for', 'said'), [('12.8', 'built for CUDA 12.8'), (None, 'a CPU')])
def test_whether_torch_or_the_driver_is_to_blame_is_said(weights, monkeypatch, built_for, said):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', built_for)
    with unavailable(said):
        create_backend(config(weights, device='cuda'))


@pytest.mark.parametrize(('reason', 'remedy'), [
    ('CUDA error: no kernel image is available for execution on the device', 'install the build'),
    ('CUDA error: out of memory', 'end what else uses it')])
@pytest.mark.parametrize('backend', ['mapanything', 'colmap'])
def test_a_gpu_that_does_not_compute_is_one_sentence(weights, gpu, reason, remedy, backend):
    gpu.failure = RuntimeError(f'{reason}\nCUDA kernel errors might be asynchronously reported')
    with unavailable('Orin does not compute with torch', f'({reason})', remedy):
        create_backend(config(weights, device='cuda', backend=backend))


@pytest.mark.parametrize('capability', [(7, 0), (7, 5)])
def test_an_old_gpu_is_told_to_use_another_precision(weights, gpu, capability):
    gpu.name, gpu.capability = 'Tesla T4', capability
    with unavailable('Tesla T4 has no bf16', 'set amp_dtype to fp16'):
        create_backend(config(weights, device='cuda'))


@pytest.mark.parametrize('parameters', [
    {'amp_dtype': 'fp16'}, {'amp_dtype': 'fp32'}, {'use_amp': False}])
def test_an_old_gpu_will_do_with_another_precision(weights, gpu, parameters):
    gpu.capability = 7, 5
    require_precision(config(weights, **parameters), CUDA)


def test_a_cpu_works_without_mixed_precision_and_says_how_slow_it_is(weights, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', None)
    monkeypatch.setattr(mapanything, 'seconds_a_view', lambda model, size_px: 30.0)
    backend = create_backend(config(weights, **{'window.size': 8}))
    (text,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "device is 'cpu': without mixed precision" in text
    assert 'about 4 min for a window of 8 views' in text
    assert "a GPU, or backend 'colmap'" in text
    seen = []
    monkeypatch.setattr(backend._network._model, 'forward', lambda *given, **options: (
        seen.append(torch.is_autocast_enabled('cpu')) or _raise(LookupError('seen'))))
    with pytest.raises(LookupError):
        backend.infer([Keyframe(0, 0, 'camera', view_room(camera_on_path(0))[0], K)])
    assert seen == [False]


def test_the_estimate_for_a_cpu_follows_patches_and_parameters(monkeypatch):
    """A millisecond for the product of 1024x1024 matrices is 0.47 ps an operation."""
    def seconds(parameters: int, size_px: int) -> float:
        clock = iter([5.0, 5.001])
        monkeypatch.setattr(mapanything.time, 'monotonic', lambda: next(clock))
        model = torch.nn.Linear(parameters, 1, bias=False)
        return mapanything.seconds_a_view(model, size_px)

    known = seconds(10**6, 518)
    # 37 x 28 patches, each with a multiplication and an addition for each parameter, at least.
    assert 1 < known / (37 * 28 * 2e6 * 0.47e-12) < 2
    assert seconds(3 * 10**6, 518) == pytest.approx(3 * known)
    assert seconds(10**6, 259) == pytest.approx(known / 4)


# Lost


def test_a_gpu_that_answers_is_not_lost(gpu):
    require_gpu(CUDA)
    require_gpu(torch.device('cpu'))


def test_a_gpu_that_will_never_answer_again_is_one_sentence(gpu):
    gpu.lost = RuntimeError(ILLEGAL)
    with pytest.raises(GpuLostError) as caught:
        require_gpu(CUDA)
    assert str(caught.value) == (
        'the GPU is lost to this process (CUDA error: an illegal memory access was '
        'encountered): only a new process can use it; if this comes again, look for Xid in '
        'dmesg')
    require_gpu(torch.device('cpu'))


def test_a_gpu_that_breaks_while_it_is_configured_is_lost_not_unavailable(
        gpu, weights, monkeypatch):
    def load(model, checkpoint, device, held):
        gpu.lost = RuntimeError(ILLEGAL)
        raise gpu.lost

    monkeypatch.setattr(mapanything, 'load_weights', load)
    with pytest.raises(GpuLostError, match='an illegal memory access'):
        create_backend(config(weights, device='cuda'))


def test_giving_back_to_a_gpu_that_is_lost_is_no_error(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: _raise(RuntimeError(ILLEGAL)))
    give_back()


# Given back


def test_what_calls_held_goes_while_the_error_is_still_there(gpu):
    class Large:
        pass

    kept: list[weakref.ref[Large]] = []

    def fail() -> None:
        large = Large()
        large.myself = large
        kept.append(weakref.ref(large))
        try:
            raise KeyError('first')
        except KeyError as error:
            other = Large()
            kept.append(weakref.ref(other))
            raise RuntimeError('second') from error

    gc.disable()
    try:
        try:
            fail()
        except RuntimeError as error:
            assert all(reference() is not None for reference in kept)
            forget(error)
            assert [reference() for reference in kept] == [None, None]
            assert str(error) == 'second' and error.__traceback__ is not None
    finally:
        gc.enable()
    assert gpu.emptied == 1


# Beside other work


def test_a_side_stream_is_one_stream_that_is_waited_for(monkeypatch):
    done = []

    class Stream:

        def __init__(self, device: torch.device) -> None:
            done.append(f'made for {device}')

        def synchronize(self) -> None:
            done.append('waited')

        def __enter__(self) -> None:
            done.append('in')

        def __exit__(self, *error: object) -> None:
            done.append('out')

    monkeypatch.setattr(torch.cuda, 'Stream', Stream)
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: stream)
    monkeypatch.setattr(torch.cuda, 'device', lambda device: Stream(device))
    monkeypatch.setattr(torch.cuda, 'current_stream', Stream)
    side = SideStream(torch.device('cuda:1'))
    assert done == ['made for cuda:1']
    for _ in range(2):
        done.clear()
        with side():
            done.append('work')
        assert done.index('work') < done.index('waited')
        assert done[-2:] == ['out', 'out'] and done.count('in') == 2
    done.clear()
    with SideStream(torch.device('cpu'))():
        assert not done
