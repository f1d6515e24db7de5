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

"""A smaller memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend
from mapanything_ros.core.device import give_back


@contextmanager
def memory_limit(device: torch.device, size_bytes: float) -> Iterator[None]:
    """Let this process have so much of a GPU and no more."""
    total = torch.cuda.get_device_properties(device).total_memory
    give_back()
    torch.cuda.set_per_process_memory_fraction(min(1.0, size_bytes / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def views_limit(backend: MapAnythingBackend, at_once: int, in_ones: int) -> Iterator[None]:
    """
    Let the dense head run out of memory by the number of views, where there is no GPU.

    It may have ``at_once`` views at a time, and a window ``in_ones`` where they come one by one.
    """
    head, network = backend._network._head, backend._network
    run, forward = head._run, network.forward
    window = 0

    def limited_forward(views: list[dict[str, Any]], at_once_now: int = 0) -> Any:
        nonlocal window
        window = len(views)
        return forward(views, at_once_now)

    def limited(inputs: list[torch.Tensor], img_shape: tuple[int, int]) -> Any:
        count = len(inputs[0])
        if count > max(1, at_once) or window > (in_ones if count == 1 else at_once):
            raise torch.OutOfMemoryError('CUDA out of memory (so the benchmark says)')
        return run(inputs, img_shape)

    head._run, network.forward = limited, limited_forward
    try:
        yield
    finally:
        head._run = run
        del network.forward
