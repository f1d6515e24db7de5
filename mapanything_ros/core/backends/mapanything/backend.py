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

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.backends.mapanything.checkpoint import find_checkpoint, LIMITED
from mapanything_ros.core.backends.mapanything.gpu_memory import GpuMemory
from mapanything_ros.core.backends.mapanything.input import in_model_order, ModelInput, to_model
from mapanything_ros.core.backends.mapanything.loading import build_model, load_weights
from mapanything_ros.core.backends.mapanything.network import Network
from mapanything_ros.core.backends.mapanything.output import ModelOutput
from mapanything_ros.core.backends.mapanything.precision import (
    amp_dtype,
    held_bytes,
    held_types,
    require_precision,
)
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe, WindowPrediction
from mapanything_ros.core.device import on_device, wait_for
from mapanything_ros.core.errors import (
    BackendUnavailableError,
    first_line,
    ReconstructionError,
    WindowTooLargeError,
)
from mapanything_ros.core.frames.patience import Patience
from mapanything_ros.core.out_of_memory import is_out_of_memory

# A common camera's, for the window that is rehearsed.
REHEARSAL_SHAPE = (480, 640, 3)
# Fewer views show no motion.
MIN_WINDOW = 2

logger = logging.getLogger(__name__)


class MapAnythingBackend(Backend):
    """
    Reconstructs windows with MapAnything (Keetha et al., 2025, arXiv 2509.13414).

    One call serves all of the model's tasks: each keyframe may have intrinsics, depth and a pose
    or not. Not to be called from two threads at once, but for ``prepare``.
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
        amp = amp_dtype(config.infer, device)
        model = build_model(checkpoint)
        held = held_types(model, amp)
        self._memory.require(held_bytes(model, held), 'the weights')
        try:
            load_weights(model, checkpoint, device, held)
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
            model, config.infer, config.mapanything, device, amp,
            describe=config.closes_loops)
        self._output = ModelOutput(config.infer)
        # Whether the dense head runs on one view at a time for want of memory.
        self._in_ones = False
        self._patience = Patience()
        if device.type != 'cuda':
            self._warn_of_cpu(model)
        if device.type == 'cuda' or config.mapanything.compile:
            self._rehearse()

    def prepare(self, keyframe: Keyframe) -> Keyframe:
        """Resize the image; see Backend."""
        return self._input.prepare_alone(keyframe)

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """
        Reconstruct a window; see Backend.

        Out of memory, it tries again with an emptied cache, then with the dense head on one view
        at a time, and stays with that for a while; where that is too much as well,
        WindowTooLargeError names half, or 0 where less would show no motion.
        """
        window = None
        if self._in_ones and self._patience.over():
            window = self._climb(keyframes)
        if window is None:
            window = self._attempt(keyframes)
        if window is None:
            # Memory that is free but in pieces joins, and others may have let go of theirs.
            self._memory.empty_cache()
            window = self._attempt(keyframes)
        if window is None and self._at_once() != 1:
            window = self._attempt_in_ones(keyframes)
        if window is None:
            raise self._too_large(len(keyframes))
        return window

    def statistics(self) -> dict[str, object]:
        """Return the peak memory, how often it ran out, and how many features were reused."""
        features = self._network.features
        reuse = {} if not self._config.mapanything.reuse_features else {
            'features_computed': features.computed, 'features_reused': features.reused}
        return {**self._memory.statistics(), **reuse}

    def _attempt(self, keyframes: Sequence[Keyframe]) -> WindowPrediction | None:
        """Reconstruct a window; None where the memory does not suffice."""
        try:
            with on_device(self._device):
                views = in_model_order(self._input.prepare(keyframes))
                outputs = self._network.forward(to_model(views), self._at_once())
                window = self._output.window(outputs, views, self._network.descriptors)
                # What comes next may run beside the next window.
                wait_for(self._device)
                return window
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Left before anything is tried again: the traceback holds on to tensors.
            self._memory.ran_out += 1
        return None

    def _at_once(self) -> int:
        """Return how many views the dense head takes at a time, 0 for all."""
        infer = self._config.infer
        if self._in_ones:
            return 1
        if not infer.memory_efficient_inference:
            return 0
        return infer.minibatch_size or self._memory.views_at_once(self._config.mapanything.size_px)

    def _attempt_in_ones(self, keyframes: Sequence[Keyframe]) -> WindowPrediction | None:
        logger.warning(
            '%s; from now on the dense head runs on one view at a time '
            '(memory_efficient_inference, minibatch_size 1), which is slower; after a while all '
            'at once are tried again',
            self._memory.refusal(f'a window of {len(keyframes)} keyframes'))
        self._in_ones = True
        self._patience.failed()
        self._network.features.clear()
        self._memory.empty_cache()
        return self._attempt(keyframes)

    def _climb(self, keyframes: Sequence[Keyframe]) -> WindowPrediction | None:
        """Try what did not fit a while ago; stay with one view at a time where it still fails."""
        self._in_ones = False
        window = self._attempt(keyframes)
        if window is not None:
            logger.info('the dense head runs on all views at once again')
            self._patience.worked()
        else:
            self._in_ones = True
            self._patience.failed()
            self._memory.empty_cache()
        return window

    def _too_large(self, count: int) -> WindowTooLargeError:
        refusal = self._memory.refusal(f'a window of {count} keyframes')
        if count <= MIN_WINDOW:
            return WindowTooLargeError(f'{refusal}: {self._smaller()}', 0)
        fits = max(count // 2, MIN_WINDOW)
        return WindowTooLargeError(
            f'{refusal}: windows of {fits} are tried from now on; set window.size to that', fits)

    def _smaller(self) -> str:
        return f'set mapanything.size_px to less than {self._config.mapanything.size_px}'

    def _rehearse(self) -> None:
        """Run a window of noise, so that what does not fit is known before the robot drives."""
        size = self._config.window.size
        while size:
            try:
                # Twice: kernels are chosen in the first run.
                self._run_noise(range(size))
                self._network.features.clear()
                start_s = time.monotonic()
                self._run_noise(range(size))
                break
            except WindowTooLargeError as error:
                size = error.fits
                self._network.features.clear()
                self._memory.empty_cache()
        else:
            raise BackendUnavailableError(
                f'{self._memory.refusal("even the smallest window")}: {self._smaller()}, or '
                "choose backend 'colmap'")
        if size < self._config.window.size:
            raise BackendUnavailableError(
                f'{self._memory.refusal(f"window.size {self._config.window.size}")}; '
                f'{size} fit: set window.size to that, or {self._smaller()}')
        logger.info(
            'a window of %d views takes %.2f s%s', size, time.monotonic() - start_s,
            self._memory.peak())
        if self._config.mapanything.compile:
            self._compile_for(size)
        # The memory stays reserved: who comes later must not find it free.
        self._network.features.clear()

    def _compile_for(self, size: int) -> None:
        """Run what differs in shape: one new keyframe, as many as are new as a rule, fewer."""
        new = size - self._config.window.overlap
        for first, count in ((1, size), (1 + new, size), (1 + new, max(1, size - 1))):
            self._run_noise(range(first, first + count))

    def _run_noise(self, numbers: range) -> None:
        try:
            self.infer(_noise(numbers))
        except WindowTooLargeError:
            raise
        except ReconstructionError as error:
            # It does fit; real images may fare better, or each will say so.
            logger.warning('a window of noise failed: %s', error)
        except Exception as error:
            if not self._config.mapanything.compile:
                raise
            raise BackendUnavailableError(
                f'the network cannot be compiled here ({first_line(error)}): set '
                'mapanything.compile to false') from error

    def _warn_of_cpu(self, model: torch.nn.Module) -> None:
        views = self._config.window.size
        logger.warning(
            "device is 'cpu': without mixed precision, about %s for a window of %d views; for "
            "maps while driving use a GPU, or backend 'colmap'", _readable(
                views * seconds_a_view(model, self._config.mapanything.size_px)), views)


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


def _noise(numbers: range) -> list[Keyframe]:
    return [
        Keyframe(-1 - i, i, '', np.random.default_rng(i).integers(
            0, 256, REHEARSAL_SHAPE, dtype=np.uint8))
        for i in numbers]


def _readable(seconds: float) -> str:
    return f'{seconds:.1f} s' if seconds < 100 else f'{seconds / 60:.0f} min'
