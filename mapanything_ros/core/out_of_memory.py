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

"""Where memory runs out: how that is told from other errors, and how work goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
from typing import TypeVar

import torch

from mapanything_ros.core.datatypes import Prediction

# What the driver, torch on a Jetson, CUDA's libraries and the CPU call it, besides torch's own
# OutOfMemoryError. Libraries that find no memory for themselves say that they are not initialised,
# or that no engine of theirs can be run.
SIGNS = (
    'out of memory', 'NVML_SUCCESS == r INTERNAL ASSERT', 'ALLOC_FAILED', 'ALLOCATION_FAILED',
    'STATUS_NOT_INITIALIZED', 'unable to find an engine', "can't allocate memory")

T = TypeVar('T')

logger = logging.getLogger(__name__)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error of torch means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in SIGNS)


def or_on_host(step: Callable[[Sequence[Prediction]], T], views: Sequence[Prediction]) -> T:
    """
    Return what a step makes of views, on their device or, if its memory does not suffice, the CPU.

    The network's answer is there by then, and what comes after it is small: it is not lost to
    whoever else fills the GPU. Nothing must have changed where the step raises.
    """
    try:
        return step(views)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    logger.warning(
        'the GPU has no memory left for what comes after the network: the CPU does it, slower; '
        'end what else uses the GPU, or make window.size smaller')
    return step([view.to(torch.device('cpu')) for view in views])
