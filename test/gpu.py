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

"""A GPU that is not there, as far as questions about it go."""

from __future__ import annotations

import pytest
import torch

GIB = 2 ** 30
CUDA = torch.device('cuda')


class Gpu:
    """What torch says about a GPU that is not there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        """Let torch find it, as long as it is patched."""
        self.name = 'Orin'
        self.capability = (8, 7)
        self.free = 7 * GIB
        self.total = 8 * GIB
        self.peak = self.reserved = self.allocated = 0
        self.emptied = 0
        self.count = 1
        self.is_integrated = False
        self.failure: Exception | None = None
        # What every call says from now on.
        self.lost: Exception | None = None
        self._on_cpu = torch.ones
        patch.setattr(torch, 'ones', self.ones)
        for name, answer in {
            'is_available': lambda: True,
            'device_count': lambda: self.count,
            'reset_peak_memory_stats': lambda device: None,
            'mem_get_info': lambda device: (self.free, self.total),
            'memory_reserved': lambda device: self.reserved,
            'memory_allocated': lambda device: self.allocated,
            'max_memory_allocated': lambda device: self.peak,
            'get_device_name': lambda device: self.name,
            'get_device_properties': lambda device: self,
            'get_device_capability': lambda device: self.capability,
            'empty_cache': self.empty_cache,
            'synchronize': self.synchronize,
        }.items():
            patch.setattr(torch.cuda, name, answer)

    def ones(self, *size: int, device: torch.device | None = None, **options) -> torch.Tensor:
        """Compute, or fail as a GPU does."""
        if device is not None and device.type == 'cuda' and self.failure:
            raise self.failure
        return self._on_cpu(*size, **options)

    def empty_cache(self) -> None:
        self.emptied += 1

    def synchronize(self, device: torch.device) -> None:
        """Wait for nothing, or fail for ever."""
        if self.lost:
            raise self.lost
