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

"""Mixed precision: which type it is, and which weights are held in it."""

from __future__ import annotations

import torch

from mapanything_ros.core.config import Config, InferConfig
from mapanything_ros.core.errors import BackendUnavailableError

AMP_DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}
# What runs under autocast; the package switches that off for all other parts.
AUTOCAST_PARTS = ('encoder', 'info_sharing')
# The layers of those whose weights autocast casts, every time that they are used.
CAST_LAYERS = (torch.nn.Linear, torch.nn.Conv2d)


def amp_dtype(config: InferConfig, device: torch.device) -> torch.dtype | None:
    """Return the type of mixed precision, None for none; on the CPU it is three times slower."""
    return AMP_DTYPES.get(config.amp_dtype) if config.use_amp and device.type == 'cuda' else None


def require_precision(config: Config, device: torch.device) -> None:
    """Raise BackendUnavailableError where the GPU computes bf16 slowly, in software."""
    wanted = amp_dtype(config.infer, device) == torch.bfloat16
    if wanted and torch.cuda.get_device_capability(device) < (8, 0):
        raise BackendUnavailableError(
            f'{torch.cuda.get_device_name(device)} has no bf16: set amp_dtype to fp16')


def held_types(model: torch.nn.Module, amp: torch.dtype | None) -> dict[str, torch.dtype]:
    """
    Return the type in which each parameter is held, by its name in ``state_dict``.

    float32, but for weights that autocast would cast at every use: held in its type they give
    the same bits, take half the memory and are not cast again.
    """
    held = {
        name: torch.float32 for name, value in model.state_dict().items()
        if value.is_floating_point()}
    if amp is None:
        return held
    for part in AUTOCAST_PARTS:
        for name, layer in getattr(model, part).named_modules(prefix=part):
            if isinstance(layer, CAST_LAYERS):
                held.update({f'{name}.{kind}': amp for kind, _ in layer.named_parameters()})
    return held


def held_bytes(model: torch.nn.Module, held: dict[str, torch.dtype]) -> int:
    """Return the memory that parameters take, each counted once, where they are held like this."""
    return sum(
        parameter.numel() * held.get(name, parameter.dtype).itemsize
        for name, parameter in model.named_parameters())
