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

"""The MapAnything backend: the official network, offline, with everything around it on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
import logging
import time

import numpy as np
import torch

from mapanything_ros.core.backends.mapanything.checkpoint import find_checkpoint, LIMITED
from mapanything_ros.core.backends.mapanything.gpu_memory import GpuMemory
from mapanything_ros.core.backends.mapanything.input import in_model_order, ModelInput, to_model
from mapanything_ros.core.backends.mapanything.loading import load_model
from mapanything_ros.core.backends.mapanything.network import amp_used, Network
from mapanything_ros.core.backends.mapanything.output import ModelOutput
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe, WindowPrediction
from mapanything_ros.core.errors import (
    BackendUnavailableError,
    ReconstructionError,
    WindowTooLargeError,
)
from mapanything_ros.core.out_of_memory import is_out_of_memory

# A common camera's, for the window that is rehearsed.
REHEARSAL_SHAPE = (480, 640, 3)
# Fewer views show no motion.
MIN_WINDOW = 2
GIB = 2 ** 30

logger = logging.getLogger(__name__)


class MapAnythingBackend:
    """
    Reconstructs windows with MapAnything (Keetha et al., 2025, arXiv 2509.13414).

    One call serves all of the model's tasks: each keyframe may have intrinsics, depth and a pose
    or not. Not to be called from two threads at once.
    """

    name = 'mapanything'

    def __init__(self, config: Config, device: torch.device) -> None:
        """
        Load the weights and, on a GPU, run a window of the configured size for its memory.

        Raises BackendUnavailableError, with what to do, where anything is missing or too small.
        """
        require_precision(config, device)
        checkpoint = find_checkpoint(config.mapanything.weights)
        self._memory = GpuMemory(device)
        self._memory.require(checkpoint.size_bytes, 'the weights')
        try:
            model = load_model(checkpoint, device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise self._memory.unavailable('the weights') from error
        if LIMITED in checkpoint.licence:
            logger.warning('the licence of %s is %s', checkpoint.name, checkpoint.licence)
        self._config = config
        self._device = device
        self._input = ModelInput(config.mapanything.size_px, device)
        self._network = Network(
            model, config.infer, device, config.mapanything.reuse_features,
            describe=config.loop_closure.enabled)
        self._output = ModelOutput(config.infer)
        self._in_batches = config.infer.memory_efficient_inference
        self._minibatch_size = config.infer.minibatch_size
        if device.type == 'cuda':
            self._rehearse()
        else:
            self._warn_of_cpu(model)

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """
        Reconstruct a window; see Backend.

        Out of memory, it tries again with an emptied cache and the dense head in batches of one,
        and stays with that; where that is too much as well, WindowTooLargeError names half, or 0
        where less would show no motion.
        """
        if self._in_batches and self._minibatch_size == 1:
            window = self._attempt(keyframes)
        else:
            window = self._attempt(keyframes) or self._attempt_in_batches(keyframes)
        if window is None:
            raise self._too_large(len(keyframes))
        return window

    def statistics(self) -> dict[str, object]:
        """Return the peak memory, how often it ran out, and how many features were reused."""
        features = self._network.features
        reuse = {} if features is None else {
            'features_computed': features.computed, 'features_reused': features.reused}
        return {**self._memory.statistics(), **reuse}

    def _attempt(self, keyframes: Sequence[Keyframe]) -> WindowPrediction | None:
        """Reconstruct a window; None where the memory does not suffice."""
        try:
            views = in_model_order(self._input.prepare(keyframes))
            outputs = self._network.forward(
                to_model(views), self._in_batches, self._minibatch_size)
            return self._output.window(outputs, views, self._network.descriptors)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Left before anything is tried again: the traceback holds on to tensors.
            self._memory.ran_out += 1
        self._release()
        return None

    def _attempt_in_batches(self, keyframes: Sequence[Keyframe]) -> WindowPrediction | None:
        logger.warning(
            '%s; from now on the dense head runs on one view at a time '
            '(memory_efficient_inference, minibatch_size 1), which is slower',
            self._memory.refusal(f'a window of {len(keyframes)} keyframes'))
        self._in_batches, self._minibatch_size = True, 1
        return self._attempt(keyframes)

    def _too_large(self, count: int) -> WindowTooLargeError:
        refusal = self._memory.refusal(f'a window of {count} keyframes')
        if count <= MIN_WINDOW:
            return WindowTooLargeError(f'{refusal}: {self._smaller()}', 0)
        fits = max(count // 2, MIN_WINDOW)
        return WindowTooLargeError(
            f'{refusal}: windows of {fits} are tried from now on; set window.size to that', fits)

    def _smaller(self) -> str:
        return f'set mapanything.size_px to less than {self._config.mapanything.size_px}'

    def _release(self) -> None:
        if self._network.features is not None:
            self._network.features.clear()
        self._memory.empty_cache()

    def _rehearse(self) -> None:
        """Run a window of noise, so that what does not fit is known before the robot drives."""
        size = self._config.window.size
        while size:
            try:
                # Twice: kernels are chosen in the first run.
                self._run_noise(size)
                self._release()
                start_s = time.monotonic()
                self._run_noise(size)
                break
            except WindowTooLargeError as error:
                size = error.fits
        else:
            raise BackendUnavailableError(
                f'{self._memory.refusal("even the smallest window")}: {self._smaller()}, or '
                "choose backend 'colmap'")
        if size < self._config.window.size:
            raise BackendUnavailableError(
                f'{self._memory.refusal(f"window.size {self._config.window.size}")}; '
                f'{size} fit: set window.size to that, or {self._smaller()}')
        logger.info(
            'a window of %d views takes %.2f s, and %.1f of %.1f GiB of the GPU', size,
            time.monotonic() - start_s, self._memory.peak_bytes() / GIB,
            self._memory.total_bytes() / GIB)
        self._release()

    def _run_noise(self, size: int) -> None:
        try:
            self.infer(_noise(size))
        except WindowTooLargeError:
            raise
        except ReconstructionError as error:
            # It does fit; real images may fare better, or each will say so.
            logger.warning('a window of noise failed: %s', error)

    def _warn_of_cpu(self, model: torch.nn.Module) -> None:
        views = self._config.window.size
        logger.warning(
            "device is 'cpu': without mixed precision, about %s for a window of %d views; for "
            "maps while driving use a GPU, or backend 'colmap'", _readable(
                views * seconds_a_view(model, self._config.mapanything.size_px)), views)


def require_precision(config: Config, device: torch.device) -> None:
    """Raise BackendUnavailableError where the GPU computes bf16 slowly, in software."""
    wanted = config.infer.amp_dtype == 'bf16' and amp_used(config.infer, device)
    if wanted and torch.cuda.get_device_capability(device) < (8, 0):
        raise BackendUnavailableError(
            f'{torch.cuda.get_device_name(device)} has no bf16: set amp_dtype to fp16')


def seconds_a_view(model: torch.nn.Module, size_px: int) -> float:
    """Estimate the time of a view on the CPU from its multiplications and a matrix product."""
    side = torch.rand(1024, 1024)
    side @ side
    start_s = time.monotonic()
    side @ side
    seconds_a_flop = (time.monotonic() - start_s) / (2 * 1024 ** 3)
    # Each weight is used once for each patch; attention comes on top of that.
    patches = 0.75 * (size_px / 14) ** 2
    return 2.7 * patches * sum(p.numel() for p in model.parameters()) * seconds_a_flop


def _noise(count: int) -> list[Keyframe]:
    random = np.random.default_rng(0)
    return [
        Keyframe(-1 - i, i, '', random.integers(0, 256, REHEARSAL_SHAPE, dtype=np.uint8))
        for i in range(count)]


def _readable(seconds: float) -> str:
    return f'{seconds:.1f} s' if seconds < 100 else f'{seconds / 60:.0f} min'
