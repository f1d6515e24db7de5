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

"""How much memory a GPU has, and what was used of it."""

from __future__ import annotations

from pathlib import Path

import torch

from mapanything_ros.core.errors import BackendUnavailableError

GIB = 2 ** 30
MEMINFO = Path('/proc/meminfo')
# What the package allows the dense head for a view of 518x518, and of the memory that is free.
HEAD_BYTES = 680 * 2 ** 20
HEAD_SIZE_PX = 518
HEAD_SHARE = 0.95


class GpuMemory:
    """The memory of the backend's device; of a CPU nothing is known and everything fits."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == 'cuda'
        self.ran_out = 0
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(device)

    def require(self, size_bytes: int, what: str) -> None:
        """Raise BackendUnavailableError where less than this is free."""
        if self._cuda and self.free_bytes() < size_bytes:
            raise self.unavailable(f'{what} ({size_bytes / GIB:.1f} GiB)')

    def unavailable(self, what: str) -> BackendUnavailableError:
        """Return the error for something that the backend cannot do without."""
        return BackendUnavailableError(
            f"{self.refusal(what)}: end what else uses it, or choose backend 'colmap'")

    def refusal(self, what: str) -> str:
        """Say that something does not fit, and how much is free."""
        if not self._cuda:
            return f'the memory is too small for {what}'
        return (
            f'the GPU ({torch.cuda.get_device_name(self._device)}, {self.free_bytes() / GIB:.1f} '
            f'of {self.total_bytes() / GIB:.1f} GiB free) is too small for {what}')

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory can be had."""
        free = torch.cuda.mem_get_info(self._device)[0]
        if torch.cuda.get_device_properties(self._device).is_integrated:
            # A Jetson's GPU shares the memory of the CPU, and its driver calls free only what
            # does not hold files either, such as the weights as they were read the last time.
            return max(free, _available_bytes())
        return free

    def views_at_once(self, size_px: int) -> int:
        """Return how many views of a size the dense head has memory for: 1 on a CPU."""
        if not self._cuda:
            return 1
        unused = (
            torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device))
        view = HEAD_BYTES * (size_px / HEAD_SIZE_PX) ** 2
        return max(1, int(HEAD_SHARE * (self.free_bytes() + unused) / view))

    def total_bytes(self) -> int:
        """Return the size of the GPU's memory."""
        return torch.cuda.mem_get_info(self._device)[1] if self._cuda else 0

    def peak_bytes(self) -> int:
        """Return the most that tensors have taken since the start."""
        return torch.cuda.max_memory_allocated(self._device) if self._cuda else 0

    def peak(self) -> str:
        """Say how much of the memory that was."""
        if not self._cuda:
            return ''
        return (
            f', and {self.peak_bytes() / GIB:.1f} of {self.total_bytes() / GIB:.1f} GiB of the '
            'GPU')

    def empty_cache(self) -> None:
        """Give memory that is not in use back to the driver."""
        if self._cuda:
            torch.cuda.empty_cache()

    def statistics(self) -> dict[str, object]:
        """Return what the diagnostics say about memory."""
        used = {'gpu_memory_peak_mib': self.peak_bytes() // 2 ** 20} if self._cuda else {}
        return {**used, 'out_of_memory': self.ran_out}


def _available_bytes() -> int:
    """Return what the kernel would make room for, 0 where it does not say."""
    for line in MEMINFO.read_text().splitlines() if MEMINFO.exists() else ():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) * 1024
    return 0
