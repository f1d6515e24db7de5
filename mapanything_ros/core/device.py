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

"""The torch device of a run: chosen in words, found dead, given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
import gc
import re
import traceback

import torch

from mapanything_ros.core.errors import BackendUnavailableError, first_line, GpuLostError
from mapanything_ros.core.out_of_memory import is_out_of_memory

# It has torch.OutOfMemoryError and SDPA's kernels by name.
LEAST_TORCH = (2, 5)


def torch_device(name: str) -> torch.device:
    """Return the device; raise BackendUnavailableError, with what to do, if it isn't there."""
    _require_torch()
    device = torch.device(name)
    if device.type != 'cuda':
        return device
    if not torch.cuda.is_available():
        build = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'a CPU build'
        raise BackendUnavailableError(
            f"device is '{name}', but torch {torch.__version__} ({build}) finds no GPU here: "
            "install the GPU's driver and a CUDA build of torch, or set device to 'cpu' (with "
            "backend 'mapanything' minutes a window; 'colmap' takes seconds and no weights)")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        there = "'cuda:0'" if count == 1 else f"'cuda:0' to 'cuda:{count - 1}'"
        raise BackendUnavailableError(
            f"device is '{name}', but torch finds {count} GPU{'s' * (count > 1)} here: "
            f'set device to {there}')
    _require_kernels(device)
    return device


def on_device(device: torch.device) -> AbstractContextManager[None]:
    """Make a GPU the one that is meant where none is named; that is so for a thread alone."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def wait_for(device: torch.device) -> None:
    """Wait until what this thread asked of a GPU is done, and raise what went wrong in it."""
    if device.type == 'cuda':
        torch.cuda.current_stream(device).synchronize()


def require_gpu(device: torch.device) -> None:
    """
    Raise GpuLostError where no call to the GPU of this process will ever succeed again.

    After an illegal access, a device-side assert or a GPU that fell off the bus, CUDA answers
    every call with that error until the process ends.
    """
    if device.type != 'cuda':
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise GpuLostError(
            f'the GPU is lost to this process ({first_line(error)}): only a new process can '
            'use it; if this comes again, look for Xid in dmesg') from error


def forget(error: BaseException) -> None:
    """Let go of what the calls that led to an error held, and give the GPU's memory back."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    give_back()


def give_back() -> None:
    """Give the GPU's memory that is not in use back to the driver."""
    # A model refers to itself: it goes only when told to.
    gc.collect()
    with suppress(RuntimeError):  # of a GPU that is lost there is nothing to give back
        torch.cuda.empty_cache()


class SideStream:
    """
    Where a thread's work on the GPU runs beside that of others, not behind it.

    ``with`` it, the work is done when the block is left. What the block is given must be done.
    One stream for all blocks: memory goes round within a stream only.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Run a block on the stream, and wait for it."""
        if self._stream is None:
            yield
            return
        with on_device(self._device), torch.cuda.stream(self._stream):
            yield
            wait_for(self._device)


def _require_torch() -> None:
    if tuple(map(int, re.findall(r'\d+', torch.__version__)[:2])) < LEAST_TORCH:
        least = '.'.join(map(str, LEAST_TORCH))
        raise BackendUnavailableError(
            f'torch is {torch.__version__}, but {least} is the least that works: install a newer '
            'one that fits the GPU')


def _require_kernels(device: torch.device) -> None:
    """Raise BackendUnavailableError where the GPU is there, but does not compute."""
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        remedy = (
            'end what else uses it' if is_out_of_memory(error) else
            'install the build that fits the GPU and its driver')
        raise BackendUnavailableError(
            f'{torch.cuda.get_device_name(device)} does not compute with torch '
            f'{torch.__version__} ({first_line(error)}): {remedy}') from error
