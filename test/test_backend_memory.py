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

"""Memory and device of the mapanything backend; where there is no GPU, torch plays one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import logging
import os
from pathlib import Path
import subprocess
import sys

from checkpoints import unavailable, write_checkpoint
from helpers import camera_on_path, cast_room, K, view_room
import numpy as np
import pytest
import torch

from mapanything_ros.core import alignment, joins, voxel_map
from mapanything_ros.core.backends.backend import Backend, create_backend
from mapanything_ros.core.backends.mapanything import backend as mapanything
from mapanything_ros.core.backends.mapanything import gpu_memory
from mapanything_ros.core.backends.mapanything.gpu_memory import GpuMemory
from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.datatypes import Frame, Keyframe, Prediction
from mapanything_ros.core.errors import WindowTooLargeError
from mapanything_ros.core.out_of_memory import or_on_host
from mapanything_ros.core.reconstructor import Reconstructor

SIZE_PX = 140
VIEW_PX = 140 * 112
PLACES = 8
GIB = 2 ** 30
CUDA = torch.device('cuda')


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('weights'))


@pytest.fixture(autouse=True)
def world(request: pytest.FixtureRequest) -> Iterator[object]:
    """Show the fake what the camera sees."""
    if request.config.getoption('--real-model'):
        pytest.skip('the real mapanything has no limit of memory that can be set')
    from mapanything.fake_world import WORLD

    WORLD.reset()
    for index in range(PLACES):
        pose = camera_on_path(index)
        WORLD.add(view_room(pose)[0], K, pose, cast_room)
    yield WORLD
    WORLD.reset()


class Gpu:
    """What torch says about a GPU that is not there."""

    def __init__(self) -> None:
        self.name = 'Orin'
        self.capability = (8, 7)
        self.free = 7 * GIB
        self.total = 8 * GIB
        self.peak = 0
        self.emptied = 0
        self.is_integrated = False
        self.failure: Exception | None = None
        self._on_cpu = torch.ones

    def ones(self, *size: int, device: torch.device | None = None, **options) -> torch.Tensor:
        """Compute, or fail as a GPU does."""
        if device == CUDA and self.failure:
            raise self.failure
        return self._on_cpu(*size, **options)

    def empty_cache(self) -> None:
        self.emptied += 1


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    """Let torch find a GPU, as far as questions about it go."""
    made = Gpu()
    monkeypatch.setattr(torch, 'ones', made.ones)
    for name, answer in {
        'is_available': lambda: True,
        'reset_peak_memory_stats': lambda device: None,
        'mem_get_info': lambda device: (made.free, made.total),
        'max_memory_allocated': lambda device: made.peak,
        'get_device_name': lambda device: made.name,
        'get_device_properties': lambda device: made,
        'get_device_capability': lambda device: made.capability,
        'empty_cache': made.empty_cache,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return made


def config(weights: Path, **parameters: object) -> Config:
    return from_values(Config, {
        'device': 'cpu', 'mapanything.weights': str(weights), 'mapanything.size_px': SIZE_PX,
        'mask_edges': False, **parameters})


def keyframes(count: int, first: int = 0) -> list[Keyframe]:
    return [
        Keyframe(index, index, 'camera', view_room(camera_on_path(index))[0], K)
        for index in range(first, first + count)]


def fits(world, at_once: float, in_batches: float) -> None:
    """Say how many views the memory holds."""
    world.memory_px, world.batched_memory_px = at_once * VIEW_PX, in_batches * VIEW_PX


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def assert_true(window) -> None:
    """Check the poses of a window's views, whose ids are the places on the path."""
    first_from_world = np.linalg.inv(camera_on_path(window.views[0].keyframe_id))
    for view in window.views:
        expected = first_from_world @ camera_on_path(view.keyframe_id)
        assert np.allclose(view.world_from_camera, expected, atol=1e-5)


# The ladder


def test_what_fits_in_batches_goes_on_in_batches_and_that_is_said_once(weights, world, caplog):
    backend = create_backend(config(weights))
    fits(world, at_once=3, in_batches=4)
    assert_true(backend.infer(keyframes(3)))
    caplog.clear()
    assert_true(backend.infer(keyframes(4)))
    (text,) = warnings(caplog)
    assert 'too small for a window of 4 keyframes' in text
    assert 'one view at a time' in text
    assert 'memory_efficient_inference, minibatch_size 1' in text
    assert backend.statistics()['out_of_memory'] == 1
    for first in range(1, 4):
        assert_true(backend.infer(keyframes(4, first)))
    assert backend.statistics()['out_of_memory'] == 1, 'it stays with what fits'
    assert len(warnings(caplog)) == 1


def test_features_are_given_up_for_memory_and_computed_again(weights, world):
    backend = create_backend(config(weights))
    backend.infer(keyframes(3))
    fits(world, at_once=3, in_batches=4)
    assert_true(backend.infer(keyframes(4)))
    statistics = backend.statistics()
    assert (statistics['features_computed'], statistics['features_reused']) == (3 + 4, 0)


@pytest.mark.parametrize(('count', 'named'), [(8, 4), (5, 2), (4, 2), (3, 2)])
def test_what_does_not_fit_in_batches_either_names_a_window_that_may(
        weights, world, count, named):
    backend = create_backend(config(weights))
    fits(world, at_once=1, in_batches=2)
    with pytest.raises(WindowTooLargeError) as caught:
        backend.infer(keyframes(count))
    assert caught.value.fits == named
    assert str(caught.value) == (
        f'the memory is too small for a window of {count} keyframes: windows of {named} are '
        'tried from now on; set window.size to that')
    assert backend.statistics()['out_of_memory'] == 2
    assert_true(backend.infer(keyframes(2)))


@pytest.mark.parametrize('count', [1, 2])
def test_a_window_that_cannot_be_smaller_asks_for_smaller_images(weights, world, count):
    backend = create_backend(config(weights))
    fits(world, at_once=0, in_batches=0)
    with pytest.raises(WindowTooLargeError) as caught:
        backend.infer(keyframes(count))
    assert caught.value.fits == 0
    assert str(caught.value) == (
        f'the memory is too small for a window of {count} keyframes: set mapanything.size_px to '
        'less than 140')


def test_who_wants_batches_of_one_is_not_told_to_use_them(weights, world, caplog):
    backend = create_backend(config(
        weights, memory_efficient_inference=True, minibatch_size=1))
    fits(world, at_once=0, in_batches=3)
    caplog.clear()
    with pytest.raises(WindowTooLargeError):
        backend.infer(keyframes(4))
    assert backend.statistics()['out_of_memory'] == 1
    assert not warnings(caplog)


def test_larger_batches_become_smaller(weights, world, caplog):
    backend = create_backend(config(
        weights, memory_efficient_inference=True, minibatch_size=2))
    fits(world, at_once=3, in_batches=4)
    caplog.clear()
    assert_true(backend.infer(keyframes(4)))
    assert 'minibatch_size 1' in warnings(caplog)[0]


OTHER_WORDS = [
    'CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":995',
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"]


def once(function: Callable, text: str) -> Callable:
    """Return the function, which fails the first time."""
    failures = [RuntimeError(text)]

    def call(*arguments, **options):
        if failures:
            raise failures.pop()
        return function(*arguments, **options)
    return call


@pytest.mark.parametrize('text', OTHER_WORDS)
def test_memory_that_runs_out_in_other_words_is_the_same(weights, caplog, monkeypatch, text):
    backend = create_backend(config(weights))
    model = backend._network._model
    monkeypatch.setattr(model, 'forward', once(model.forward, text))
    caplog.clear()
    assert_true(backend.infer(keyframes(3)))
    assert 'too small for a window of 3 keyframes; from now on' in warnings(caplog)[0]
    assert backend.statistics()['out_of_memory'] == 1


def test_an_error_that_is_not_about_memory_is_not_taken_for_one(weights, world, monkeypatch):
    backend = create_backend(config(weights))
    model = backend._network._model
    with monkeypatch.context() as patch:
        patch.setattr(model, 'forward', once(
            model.forward, 'CUDA error: an illegal memory access was encountered'))
        with pytest.raises(RuntimeError, match='illegal memory access'):
            backend.infer(keyframes(2))
    world.reset()
    with pytest.raises(LookupError):
        backend.infer(keyframes(2))
    assert backend.statistics()['out_of_memory'] == 0


# Through the reconstructor


def frame(index: int) -> Frame:
    rgb = view_room(camera_on_path(index))[0]
    return Frame(
        index, lambda: rgb[..., 0],
        lambda number: Keyframe(number, index, 'camera', rgb, K, None, camera_on_path(index)),
        camera_on_path(index))


@pytest.mark.parametrize(('views', 'refused'), [(3.5, [6]), (2.5, [6, 3])])
@pytest.mark.parametrize('parameters', [{}, {'pose_source': 'tf', 'tf.odom_frame': 'odom'}])
def test_windows_shrink_and_every_keyframe_is_mapped(weights, world, views, refused, parameters):
    """What did not fit comes again in parts that do."""
    made = config(weights, **{
        **parameters, 'window.size': 6, 'window.overlap': 2, 'keyframes.min_translation_m': 0.01,
        'keyframes.min_parallax': 0.001, 'keyframes.min_sharpness': 0.0})
    reconstructor, errors = Reconstructor(made, create_backend(made)), []
    fits(world, at_once=views, in_batches=views)
    for index in range(PLACES):
        assert reconstructor.add(frame(index)).accepted
        while window := reconstructor.take():
            try:
                reconstructor.process(window)
            except WindowTooLargeError as error:
                errors.append(str(error))
    for count, text in zip(refused, errors, strict=True):
        assert f'too small for a window of {count} keyframes' in text
    trajectory = reconstructor.trajectory()
    assert [stamp_ns for stamp_ns, _ in trajectory] == list(range(PLACES))
    assert reconstructor.statistics()['keyframes_dropped'] == 0
    assert reconstructor.statistics()['segments'] == 1
    first_from_map = np.linalg.inv(trajectory[0][1])
    first_from_world = np.linalg.inv(camera_on_path(0))
    for stamp_ns, map_from_camera in trajectory:
        assert np.allclose(
            first_from_map @ map_from_camera, first_from_world @ camera_on_path(stamp_ns),
            atol=1e-4)
    assert len(reconstructor.map_points()) > 1000


@pytest.mark.parametrize(('module', 'name', 'parameters'), [
    (joins, '_median_depth', {}), (joins, '_pixel_pairs', {}), (alignment, 'rescaled', {}),
    (joins, '_median_depth', {'pose_source': 'tf', 'tf.odom_frame': 'odom'}),
    (voxel_map, 'reduce_view', {})])
def test_no_keyframe_is_lost_where_memory_runs_out_after_the_network(
        weights, caplog, monkeypatch, module, name, parameters):
    made = config(weights, **{
        **parameters, 'window.size': 4, 'window.overlap': 2, 'keyframes.min_translation_m': 0.01,
        'keyframes.min_parallax': 0.001, 'keyframes.min_sharpness': 0.0})
    reconstructor = Reconstructor(made, create_backend(made))
    caplog.clear()
    for index in range(PLACES):
        if index == 4:
            failing = once(getattr(module, name), 'CUDA error: out of memory')
            monkeypatch.setattr(module, name, failing)
        reconstructor.add(frame(index))
        while window := reconstructor.take():
            reconstructor.process(window)
    assert 'no memory left for what comes after the network' in warnings(caplog)[0]
    assert [stamp_ns for stamp_ns, _ in reconstructor.trajectory()] == list(range(PLACES))
    assert sorted(reconstructor._map._keyframes) == list(range(PLACES))
    assert reconstructor.statistics()['segments'] == 1


def test_what_the_gpu_cannot_hold_is_computed_from_tensors_on_the_host(weights, caplog):
    (view,) = create_backend(config(weights)).infer(keyframes(1)).views
    moved = view.to(torch.device('meta'))
    assert {moved.rgb.device.type, moved.depth_m.device.type, moved.confidence.device.type,
            moved.mask.device.type} == {'meta'}
    assert moved.intrinsics is view.intrinsics and moved.keyframe_id == view.keyframe_id

    class OnGpu:
        def to(self, device: torch.device) -> Prediction:
            return view.to(device)

    def step(views: list) -> list:
        if isinstance(views[0], OnGpu):
            raise torch.OutOfMemoryError('CUDA out of memory')
        return views

    (found,) = or_on_host(step, [OnGpu()])
    assert found.depth_m.device.type == 'cpu' and torch.equal(found.depth_m, view.depth_m)
    with pytest.raises(RuntimeError, match='illegal'):
        or_on_host(once(step, 'an illegal memory access'), [view])


# Before the robot drives


def test_a_gpu_that_cannot_hold_the_weights_is_refused_before_they_are_loaded(
        weights, gpu, monkeypatch):
    monkeypatch.setattr(mapanything, 'load_model', None)
    gpu.free = 1000
    gpu.name = 'GTX 1050'
    with unavailable(
            'GTX 1050, 0.0 of 8.0 GiB free', 'too small for the weights', "backend 'colmap'"):
        create_backend(config(weights, device='cuda'))


def test_running_out_of_memory_while_loading_is_one_sentence(weights, gpu, monkeypatch):
    def load(checkpoint, device):
        gpu.free = GIB // 5
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 3 GiB')

    monkeypatch.setattr(mapanything, 'load_model', load)
    with unavailable('0.2 of 8.0 GiB free', 'too small for the weights', "backend 'colmap'"):
        create_backend(config(weights, device='cuda'))


@pytest.mark.parametrize(('given', 'found'), [
    ({}, 'expandable_segments:True'),
    ({'PYTORCH_CUDA_ALLOC_CONF': 'backend:cudaMallocAsync'}, 'backend:cudaMallocAsync'),
    ({'PYTORCH_ALLOC_CONF': 'backend:cudaMallocAsync'}, 'None')])
def test_segments_grow_unless_the_user_has_set_something_else(given, found):
    program = 'import mapanything_ros, os; print(os.environ.get("PYTORCH_CUDA_ALLOC_CONF"))'
    names = ('PYTORCH_CUDA_ALLOC_CONF', 'PYTORCH_ALLOC_CONF')
    rest = {name: value for name, value in os.environ.items() if name not in names}
    run = subprocess.run(
        [sys.executable, '-c', program], env=rest | given, capture_output=True, text=True,
        timeout=60, check=True, cwd=Path(__file__).parents[1])
    assert run.stdout.strip() == found


@pytest.mark.parametrize(('gpu_free', 'needed', 'enough'), [(2, 2, True), (2, 2.1, False)])
def test_what_is_required_is_compared_with_what_is_free(gpu, gpu_free, needed, enough):
    gpu.free = gpu_free * GIB
    memory = GpuMemory(CUDA)
    if enough:
        memory.require(int(needed * GIB), 'the weights')
        return
    with unavailable('Orin, 2.0 of 8.0 GiB free', 'the weights (2.1 GiB)', 'end what else'):
        memory.require(int(needed * GIB), 'the weights')


@pytest.mark.parametrize(('integrated', 'available', 'enough'), [
    (True, 6, True), (True, 3, False), (True, None, False), (False, 6, False)])
def test_memory_that_holds_files_is_free_for_a_gpu_that_shares_it(
        gpu, monkeypatch, tmp_path, integrated, available, enough):
    """Such as the weights, which were read the last time that the node started."""
    gpu.is_integrated, gpu.free = integrated, GIB
    told = tmp_path / 'meminfo'
    monkeypatch.setattr(gpu_memory, 'MEMINFO', told)
    if available:
        told.write_text(
            'MemTotal:       15654916 kB\nMemFree:         1048576 kB\n'
            f'MemAvailable:   {available * 2 ** 20} kB\nBuffers:           80000 kB\n')
    memory = GpuMemory(CUDA)
    if enough:
        memory.require(5 * GIB, 'the weights')
        return
    free = available if integrated and available else 1
    with unavailable(f'Orin, {free}.0 of 8.0 GiB free', 'too small for the weights (5.0 GiB)'):
        memory.require(5 * GIB, 'the weights')


def test_what_the_diagnostics_say_of_a_gpu(gpu):
    memory = GpuMemory(CUDA)
    gpu.peak = 3 * GIB + 5
    memory.ran_out += 2
    assert memory.statistics() == {'gpu_memory_peak_mib': 3072, 'out_of_memory': 2}
    assert (memory.peak_bytes(), memory.total_bytes()) == (3 * GIB + 5, 8 * GIB)
    memory.empty_cache()
    assert gpu.emptied == 1


def test_of_a_cpu_everything_fits_and_nothing_is_known(monkeypatch):
    for name in ('reset_peak_memory_stats', 'mem_get_info', 'max_memory_allocated'):
        monkeypatch.setattr(torch.cuda, name, None)
    memory = GpuMemory(torch.device('cpu'))
    memory.require(10**18, 'the weights')
    memory.empty_cache()
    assert memory.statistics() == {'out_of_memory': 0}
    assert (memory.peak_bytes(), memory.total_bytes()) == (0, 0)


@pytest.fixture
def rehearse(weights, world, gpu) -> Callable[..., Backend]:
    """Rehearse a window of a size on the CPU, with the GPU's figures and a limit of views."""
    def make(size: int, at_once: float = np.inf, in_batches: float = np.inf) -> Backend:
        backend = create_backend(config(
            weights, **{'window.size': size, 'window.overlap': min(size - 1, 1)}))
        backend._memory = GpuMemory(CUDA)
        for noise in mapanything._noise(size):
            world.add(noise.rgb, K, np.eye(4), cast_room)
        fits(world, at_once, in_batches)
        backend._rehearse()
        return backend

    return make


def test_a_rehearsal_that_fits_says_what_it_took(rehearse, gpu, caplog):
    caplog.set_level(logging.INFO)
    gpu.peak = 6 * GIB
    backend = rehearse(4)
    assert 'a window of 4 views takes' in caplog.text
    assert '6.0 of 8.0 GiB of the GPU' in caplog.text
    assert 'too small' not in caplog.text
    assert backend.statistics()['out_of_memory'] == 0
    assert_true(backend.infer(keyframes(3)))


def test_what_fits_in_batches_is_accepted_and_said(rehearse, gpu, caplog):
    backend = rehearse(4, at_once=2, in_batches=4)
    assert 'too small for a window of 4 keyframes; from now on' in caplog.text
    assert 'minibatch_size 1' in caplog.text
    assert gpu.emptied > 0
    assert backend.statistics()['out_of_memory'] == 1
    assert_true(backend.infer(keyframes(4)))
    assert backend.statistics()['out_of_memory'] == 1


@pytest.mark.parametrize(('views', 'named'), [(7, 4), (4, 4), (3, 2), (2, 2)])
def test_a_window_that_does_not_fit_is_refused_with_one_that_does(rehearse, views, named):
    with unavailable(
            'Orin, 7.0 of 8.0 GiB free', 'too small for window.size 8',
            f'{named} fit: set window.size to that', 'mapanything.size_px to less than 140'):
        rehearse(8, views, views)


@pytest.mark.parametrize('size', [1, 2, 8])
def test_where_nothing_fits_smaller_images_or_another_backend_are_named(rehearse, size):
    with unavailable(
            'Orin, 7.0 of 8.0 GiB free', 'even the smallest window',
            'mapanything.size_px to less than 140', "backend 'colmap'"):
        rehearse(size, 0.5, 0.5)


def test_noise_that_the_network_cannot_take_is_no_reason_not_to_start(rehearse, world, caplog):
    world.scale_error = float('nan')
    backend = rehearse(2)
    assert 'a window of noise failed: the network answered with numbers' in warnings(caplog)[-1]
    world.scale_error = 1.0
    assert_true(backend.infer(keyframes(2)))


def test_a_window_of_one_image_is_rehearsed(rehearse):
    assert_true(rehearse(1, 1, 1).infer(keyframes(1)))


# The device


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
    mapanything.require_precision(config(weights, **parameters), CUDA)


def test_a_cpu_works_without_mixed_precision_and_says_how_slow_it_is(weights, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', None)
    monkeypatch.setattr(mapanything, 'seconds_a_view', lambda model, size_px: 30.0)
    backend = create_backend(config(weights, **{'window.size': 8}))
    (text,) = warnings(caplog)
    assert "device is 'cpu': without mixed precision" in text
    assert 'about 4 min for a window of 8 views' in text
    assert "a GPU, or backend 'colmap'" in text
    assert all(view.depth_m.dtype == torch.float32 for view in backend.infer(keyframes(2)).views)


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
