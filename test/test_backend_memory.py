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

"""Memory of the mapanything backend, on a GPU that is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
import gc
import logging
import os
from pathlib import Path
import subprocess
import sys
import weakref

from checkpoints import tiny_config as config
from checkpoints import unavailable, write_checkpoint
from gpu import CUDA, GIB
from helpers import camera_on_path, cast_room, K, view_room
import numpy as np
import pytest
import torch

from mapanything_ros.core import reconstructor as pipeline
from mapanything_ros.core.backends.backend import Backend, create_backend
from mapanything_ros.core.backends.mapanything import backend as mapanything
from mapanything_ros.core.backends.mapanything import gpu_memory
from mapanything_ros.core.backends.mapanything.checkpoint import find_checkpoint
from mapanything_ros.core.backends.mapanything.gpu_memory import GpuMemory
from mapanything_ros.core.backends.mapanything.loading import build_model
from mapanything_ros.core.backends.mapanything.precision import held_bytes, held_types
from mapanything_ros.core.datatypes import Frame, Keyframe, Prediction
from mapanything_ros.core.errors import BackendUnavailableError, WindowTooLargeError
from mapanything_ros.core.estimation import estimator
from mapanything_ros.core.frames import patience
from mapanything_ros.core.map import voxel_map
from mapanything_ros.core.out_of_memory import or_on_host
from mapanything_ros.core.reconstructor import Reconstructor

VIEW_PX = 140 * 112
PLACES = 8


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


@pytest.fixture
def emptied(monkeypatch) -> list[int]:
    """Fill with a one whenever memory is given back to the driver."""
    times: list[int] = []
    monkeypatch.setattr(GpuMemory, 'empty_cache', lambda memory: times.append(1))
    return times


def test_what_fits_in_batches_goes_on_in_batches_and_that_is_said_once(
        weights, world, caplog, emptied):
    backend = create_backend(config(weights))
    fits(world, at_once=3, in_batches=4)
    assert_true(backend.infer(keyframes(3)))
    assert not emptied
    caplog.clear()
    assert_true(backend.infer(keyframes(4)))
    (text,) = warnings(caplog)
    assert 'too small for a window of 4 keyframes' in text
    assert 'one view at a time' in text
    assert 'memory_efficient_inference, minibatch_size 1' in text
    assert backend.statistics()['out_of_memory'] == 2, 'once more as it was, in vain'
    for first in range(1, 4):
        assert_true(backend.infer(keyframes(4, first)))
    assert backend.statistics()['out_of_memory'] == 2, 'it stays with what fits'
    assert len(warnings(caplog)) == 1


def test_memory_that_was_short_for_a_moment_costs_nothing_but_a_plain_retry(
        weights, caplog, monkeypatch, emptied):
    backend = create_backend(config(weights))
    backend.infer(keyframes(2))
    model = backend._network._model
    monkeypatch.setattr(model, 'forward', failing(model.forward, 'CUDA error: out of memory'))
    caplog.clear()
    assert_true(backend.infer(keyframes(3)))
    assert not warnings(caplog), 'nothing is given up'
    statistics = backend.statistics()
    assert (statistics['out_of_memory'], len(emptied)) == (1, 1)
    assert (statistics['features_computed'], statistics['features_reused']) == (3, 2)
    assert backend._at_once() == 0


def test_features_are_given_up_for_memory_and_computed_again(weights, world):
    backend = create_backend(config(weights))
    backend.infer(keyframes(3))
    fits(world, at_once=3, in_batches=4)
    assert_true(backend.infer(keyframes(4)))
    statistics = backend.statistics()
    # The fourth, which was not enough; then all four.
    assert (statistics['features_computed'], statistics['features_reused']) == (3 + 1 + 4, 3 + 4)


def test_after_a_while_all_views_at_once_are_tried_again(weights, world, caplog, monkeypatch):
    """Twice as late each time that fails, and for good when it works."""
    monkeypatch.setattr(patience, 'FIRST', 2)
    monkeypatch.setattr(patience, 'MOST', 4)
    caplog.set_level(logging.INFO)
    backend = create_backend(config(weights))
    fits(world, at_once=3, in_batches=4)
    backend.infer(keyframes(4))
    tried = []
    for _ in range(12):
        before = backend.statistics()['out_of_memory']
        assert_true(backend.infer(keyframes(4)))
        tried.append(backend.statistics()['out_of_memory'] - before)
    assert tried == [0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    fits(world, at_once=4, in_batches=4)
    world.head_batches.clear()
    for _ in range(4):
        assert_true(backend.infer(keyframes(4)))
    assert world.head_batches == [1, 1, 1, 1, 4, 4, 4]
    assert 'the dense head runs on all views at once again' in caplog.text
    fits(world, at_once=3, in_batches=4)
    caplog.clear()
    assert_true(backend.infer(keyframes(4)))
    assert len(warnings(caplog)) == 1, 'and if it comes again it is said again'


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
    assert backend.statistics()['out_of_memory'] == 3
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
    assert backend.statistics()['out_of_memory'] == 2
    assert not warnings(caplog)


def test_larger_batches_become_smaller(weights, world, caplog):
    backend = create_backend(config(
        weights, memory_efficient_inference=True, minibatch_size=2))
    fits(world, at_once=3, in_batches=4)
    caplog.clear()
    assert_true(backend.infer(keyframes(4)))
    assert 'minibatch_size 1' in warnings(caplog)[0]
    assert world.head_batches[-4:] == [1, 1, 1, 1]


def test_batches_may_be_as_large_as_free_memory_allows(weights, world, monkeypatch):
    backend = create_backend(config(weights, memory_efficient_inference=True))
    assert_true(backend.infer(keyframes(3)))
    assert world.head_batches == [1, 1, 1], 'of a CPU nothing is known'
    monkeypatch.setattr(backend._memory, 'views_at_once', lambda size_px: 2)
    assert_true(backend.infer(keyframes(3)))
    assert world.head_batches[3:] == [2, 1]


OTHER_WORDS = [
    'CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
    'cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED',
    'cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED',
    'cuDNN error: CUDNN_STATUS_NOT_INITIALIZED',
    'CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`',
    'GET was unable to find an engine to execute this computation',
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":995',
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"]


def failing(function: Callable, text: str, times: int = 1) -> Callable:
    """Return the function, which fails the first times."""
    failures = [RuntimeError(text) for _ in range(times)]

    def call(*arguments, **options):
        if failures:
            raise failures.pop()
        return function(*arguments, **options)
    return call


@pytest.mark.parametrize('text', OTHER_WORDS)
def test_memory_that_runs_out_in_other_words_is_the_same(weights, caplog, monkeypatch, text):
    backend = create_backend(config(weights))
    model = backend._network._model
    monkeypatch.setattr(model, 'forward', failing(model.forward, text, times=2))
    caplog.clear()
    assert_true(backend.infer(keyframes(3)))
    assert 'too small for a window of 3 keyframes; from now on' in warnings(caplog)[0]
    assert backend.statistics()['out_of_memory'] == 2


def test_an_error_that_is_not_about_memory_is_not_taken_for_one(weights, world, monkeypatch):
    backend = create_backend(config(weights))
    model = backend._network._model
    with monkeypatch.context() as patch:
        patch.setattr(model, 'forward', failing(
            model.forward, 'CUDA error: an illegal memory access was encountered'))
        with pytest.raises(RuntimeError, match='illegal memory access'):
            backend.infer(keyframes(2))
    world.reset()
    with pytest.raises(LookupError):
        backend.infer(keyframes(2))
    assert backend.statistics()['out_of_memory'] == 0


# Through the reconstructor


def frame(index: int, stamp_ns: int | None = None) -> Frame:
    rgb = view_room(camera_on_path(index))[0]
    at_ns = index if stamp_ns is None else stamp_ns
    return Frame(
        at_ns, lambda: rgb[..., 0],
        lambda number: Keyframe(number, at_ns, 'camera', rgb, K, None, camera_on_path(index)),
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


@pytest.mark.parametrize('again', [True, False])
def test_after_a_while_full_windows_are_tried_again(weights, world, monkeypatch, again):
    """Where they fit by then, and where they still do not; no keyframe is lost either way."""
    monkeypatch.setattr(patience, 'FIRST', 3)
    made = config(weights, **{
        'window.size': 4, 'window.overlap': 1, 'keyframes.min_translation_m': 0.01,
        'keyframes.min_parallax': 0.001, 'keyframes.min_sharpness': 0.0})
    reconstructor, sizes = Reconstructor(made, create_backend(made)), []
    fits(world, at_once=3, in_batches=3)
    for index in range(32):
        assert reconstructor.add(frame(index % PLACES, stamp_ns=index)).accepted
        while window := reconstructor.take():
            sizes.append(len(window.keyframes))
            with suppress(WindowTooLargeError):
                reconstructor.process(window)
            if again and len(sizes) == 3:
                fits(world, at_once=4, in_batches=4)
    # After three windows; where that was in vain after six, then after twelve.
    assert sizes == [4, 2, 2, 2] + [4] * 9 if again else (
        [4] + [2] * 3 + [4] + [2] * 6 + [4] + [2] * 12 + [4] + [2] * 10)
    assert [stamp_ns for stamp_ns, _ in reconstructor.trajectory()] == list(range(32 - again))
    assert reconstructor.statistics()['keyframes_dropped'] == 0
    assert reconstructor.statistics()['segments'] == 1


@pytest.mark.parametrize(('module', 'name', 'parameters'), [
    (estimator, 'median_depth', {}), (estimator, 'rescaled', {}), (pipeline, 'merged', {}),
    (estimator, 'median_depth', {'pose_source': 'tf', 'tf.odom_frame': 'odom'}),
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
            monkeypatch.setattr(module, name, failing(
                getattr(module, name), 'CUDA error: out of memory'))
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
        or_on_host(failing(step, 'an illegal memory access'), [view])


# Before the robot drives


def test_a_gpu_that_cannot_hold_the_weights_is_refused_before_they_are_loaded(
        weights, gpu, monkeypatch):
    monkeypatch.setattr(mapanything, 'load_weights', None)
    gpu.free = 1000
    gpu.name = 'GTX 1050'
    with unavailable(
            'GTX 1050, 0.0 of 8.0 GiB free', 'too small for the weights', "backend 'colmap'"):
        create_backend(config(weights, device='cuda'))


def test_running_out_of_memory_while_loading_is_one_sentence(weights, gpu, monkeypatch):
    def load(model, checkpoint, device, held):
        gpu.free = GIB // 5
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 3 GiB')

    monkeypatch.setattr(mapanything, 'load_weights', load)
    with unavailable('0.2 of 8.0 GiB free', 'too small for the weights', "backend 'colmap'"):
        create_backend(config(weights, device='cuda'))


@pytest.mark.parametrize('refusal', [
    torch.OutOfMemoryError('CUDA out of memory'), RuntimeError('something else')])
def test_a_construction_that_fails_leaves_nothing_behind(weights, gpu, monkeypatch, refusal):
    """A traceback holds what its calls held, and a model may refer to itself."""
    models: list[weakref.ref[torch.nn.Module]] = []
    build = mapanything.build_model

    def spy(checkpoint):
        model = build(checkpoint)
        model.myself = [model]
        models.append(weakref.ref(model))
        return model

    def load(model, checkpoint, device, held):
        try:
            raise refusal
        finally:
            gpu.emptied = 0

    monkeypatch.setattr(mapanything, 'build_model', spy)
    monkeypatch.setattr(mapanything, 'load_weights', load)
    gc.disable()
    try:
        with pytest.raises((BackendUnavailableError, RuntimeError)) as caught:
            create_backend(config(weights, device='cuda'))
        # The error is still there, as it is while it is said.
        assert caught.value.__traceback__ is not None
        assert models[0]() is None
    finally:
        gc.enable()
    assert gpu.emptied == 1


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


def test_weights_take_the_memory_that_they_are_held_in(weights, gpu, monkeypatch):
    """Half of what their file has, where nearly all are cast: less than that is refused."""
    checkpoint = find_checkpoint(str(weights))
    model = build_model(checkpoint)
    for part in ('encoder', 'info_sharing'):
        setattr(model, part, torch.nn.Sequential(torch.nn.Linear(1000, 1000, device='meta')))
    whole = held_bytes(model, held_types(model, None))
    half = held_bytes(model, held_types(model, torch.bfloat16))
    assert whole - half == 2 * 2 * (1000 * 1000 + 1000)
    monkeypatch.setattr(mapanything, 'build_model', lambda checkpoint: model)
    loaded = []

    def load(model, checkpoint, device, held):
        loaded.append(held['encoder.0.weight'])
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(mapanything, 'load_weights', load)
    for free, amp, tries in (
            (half, 'bf16', [torch.bfloat16]), (half - 1, 'bf16', []), (half, 'fp32', []),
            (whole, 'fp32', [torch.float32])):
        loaded.clear()
        gpu.free = free
        with unavailable('too small for the weights'):
            create_backend(config(weights, device='cuda', amp_dtype=amp))
        assert loaded == tries, (free, amp)


def test_the_dense_head_may_have_what_is_free_or_reserved_and_not_used(gpu):
    gpu.free, gpu.reserved, gpu.allocated = 2 * GIB, 3 * GIB, GIB
    # 680 MiB a view, by the package's measurement, of 95 % of 4 GiB.
    assert GpuMemory(CUDA).views_at_once(518) == 5
    assert GpuMemory(CUDA).views_at_once(1036) == 1
    assert GpuMemory(CUDA).views_at_once(259) == 22
    gpu.free = gpu.reserved = gpu.allocated = 0
    assert GpuMemory(CUDA).views_at_once(518) == 1
    assert GpuMemory(torch.device('cpu')).views_at_once(518) == 1


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
        for noise in mapanything._noise(range(size)):
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
    assert gpu.emptied == 0, 'what it has reserved is kept from others'
    assert not backend._network.features._known, 'but of noise'
    assert_true(backend.infer(keyframes(3)))


def test_what_fits_in_batches_is_accepted_and_said(rehearse, gpu, caplog):
    backend = rehearse(4, at_once=2, in_batches=4)
    assert 'too small for a window of 4 keyframes; from now on' in caplog.text
    assert 'minibatch_size 1' in caplog.text
    emptied = gpu.emptied
    assert emptied == 2, 'once before each try'
    assert backend.statistics()['out_of_memory'] == 2
    assert_true(backend.infer(keyframes(4)))
    assert backend.statistics()['out_of_memory'] == 2
    assert gpu.emptied == emptied


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
