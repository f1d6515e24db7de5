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

"""Parts of the network that can be run on some views at a time, and are where they must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

# Kernels of torch and cuDNN index tensors with 32 bits.
MAX_ELEMENTS = 2 ** 31 - 1
PATCH_PX = 14

# What the package calls encoder features and registers: a tensor a view; registers may be absent.
Encoded = tuple[Sequence[torch.Tensor], 'Sequence[torch.Tensor] | None']
View = dict[str, Any]


class BatchedEncoder:
    """Stands in for MapAnything's ``_encode_n_views``."""

    def __init__(self, model: Any) -> None:
        self._encode: Callable[[list[View]], Encoded] = model._encode_n_views
        # Channels of the widest layer, at the resolution of the patches.
        self._channels = max((
            layer.out_features for layer in model.encoder.modules()
            if isinstance(layer, torch.nn.Linear)), default=1)

    def __call__(self, views: list[View]) -> Encoded:
        """Return features (1,C,h,w) and registers (1,C,R), or None, of each view."""
        height, width = views[0]['img'].shape[-2:]
        # One more for what is not a patch, such as the class token.
        tokens = (height // PATCH_PX) * (width // PATCH_PX) + 1
        most = _most_views(self._channels * tokens)
        if len(views) <= most:
            return self._encode(views)
        features: list[torch.Tensor] = []
        registers: list[torch.Tensor] = []
        for start in range(0, len(views), most):
            some, some_registers = self._encode(views[start:start + most])
            features += some
            registers += some_registers or ()
        return features, registers or None


class BatchedHead:
    """
    Stands in for MapAnything's ``downstream_dense_head``, the part that needs most memory.

    ``at_once`` is how many views it may take at a time, 0 all that can be indexed. The package's
    own way (``memory_efficient_inference``) gives memory back to the driver up to three times a
    window, which takes time, and may find it taken.
    """

    def __init__(self, model: Any, channels_last: bool) -> None:
        self._run: Callable[[list[torch.Tensor], tuple[int, int]], Any] = (
            model.downstream_dense_head)
        self._format = torch.channels_last if channels_last else torch.preserve_format
        if channels_last:
            model.dense_head.to(memory_format=torch.channels_last)
        # Channels of the widest layer at the resolution of the image.
        self._channels = max(
            max(layer.in_channels, layer.out_channels)
            for layer in model.dense_head[-1].modules() if isinstance(layer, torch.nn.Conv2d))
        self.at_once = 0

    def __call__(self, inputs: list[torch.Tensor], img_shape: tuple[int, int]) -> Any:
        """Return the package's dense outputs, (V,C,H,W) each, of features (V,C,h,w)."""
        count = len(inputs[0])
        most = min(
            self.at_once or count, _most_views(self._channels * img_shape[0] * img_shape[1]))
        outputs = [
            self._run([
                features[start:start + most].contiguous(memory_format=self._format)
                for features in inputs], img_shape)
            for start in range(0, count, most)]
        if len(outputs) == 1:
            return outputs[0]
        return type(outputs[0])(**{
            name: torch.cat([getattr(output, name) for output in outputs])
            for name in vars(outputs[0])})


def _most_views(elements_a_view: int) -> int:
    return max(1, MAX_ELEMENTS // elements_a_view)
