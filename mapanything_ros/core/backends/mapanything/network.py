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

"""The one place that calls the MapAnything network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
import importlib
from threading import Lock
from typing import Any

import torch
from torch.nn.attention import sdpa_kernel, SDPBackend

from mapanything_ros.core.backends.mapanything.batched import BatchedEncoder, BatchedHead
from mapanything_ros.core.backends.mapanything.feature_cache import FeatureCache
from mapanything_ros.core.backends.mapanything.geometric_inputs import DepthFeatures, RayFeatures
from mapanything_ros.core.config import InferConfig, MapAnythingConfig

SDPA = {
    'flash': SDPBackend.FLASH_ATTENTION, 'efficient': SDPBackend.EFFICIENT_ATTENTION,
    'cudnn': SDPBackend.CUDNN_ATTENTION, 'math': SDPBackend.MATH}


class Network:
    """
    Does what the package's ``infer`` does up to the raw outputs, and leaves them on the device.

    ``infer`` computes its masks in numpy on the host, which takes longer than the network; ours
    are in ``output``. Of the network, what need not be computed again is not. The model is not
    thread-safe and is used under a lock.
    """

    def __init__(
        self, model: Any, infer: InferConfig, config: MapAnythingConfig, device: torch.device,
        amp: torch.dtype | None, describe: bool = False,
    ) -> None:
        """
        Take a loaded model over.

        ``amp`` is the type of mixed precision, None for none; ``describe`` makes ``descriptors``
        of the views.
        """
        self._model = model
        self._infer = infer
        self._device = device
        self._lock = Lock()
        self._inference = importlib.import_module('mapanything.utils.inference')
        self._amp = amp
        self._sdpa = SDPA.get(config.attention)
        self.features = FeatureCache(BatchedEncoder(model), config.reuse_features, describe)
        self._head = BatchedHead(model, config.channels_last)
        # By the names of the model's own methods.
        self._parts = {
            '_encode_n_views': self.features,
            '_encode_and_fuse_ray_dirs': RayFeatures(model),
            '_encode_and_fuse_depths': DepthFeatures(model),
            'downstream_dense_head': self._head}
        if config.compile:
            _compile_blocks(model)

    def forward(
        self, views: list[dict[str, Any]], at_once: int = 0,
    ) -> list[dict[str, torch.Tensor]]:
        """
        Return the raw outputs of the views, in their order, float32.

        The dense head runs on ``at_once`` views at a time, 0 for all. Raises ValueError where the
        package refuses the views.
        """
        with self._lock, torch.no_grad(), self._configured(), self._in_place():
            self._head.at_once = at_once
            processed = self._inference.preprocess_input_views_for_inference(
                self._inference.validate_input_views_for_inference(views))
            with self._attention(), torch.autocast(
                self._device.type, enabled=self._amp is not None, dtype=self._amp
            ):
                outputs: list[dict[str, torch.Tensor]] = self._model.forward(processed)
                return outputs

    @property
    def descriptors(self) -> list[torch.Tensor]:
        """Return what the views of the last call look like, (C,) each; empty if not asked for."""
        return self.features.descriptors

    def _attention(self) -> AbstractContextManager[None]:
        """Leave the choice of kernel to torch, or make it."""
        return nullcontext() if self._sdpa is None else sdpa_kernel(self._sdpa)

    @contextmanager
    def _configured(self) -> Iterator[None]:
        """Set which inputs count, and put that back whatever happens; ``infer`` does not."""
        infer = self._infer
        self._model._configure_geometric_input_config(
            use_calibration=not infer.ignore_calibration_inputs,
            use_depth=not infer.ignore_depth_inputs,
            use_pose=not infer.ignore_pose_inputs,
            use_depth_scale=not infer.ignore_depth_scale_inputs,
            use_pose_scale=not infer.ignore_pose_scale_inputs)
        try:
            yield
        finally:
            self._model._restore_original_geometric_input_config()

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Put our parts in the place of the model's own, for the time of a call."""
        for name, part in self._parts.items():
            setattr(self._model, name, part)
        try:
            yield
        finally:
            for name in self._parts:
                delattr(self._model, name)


def _compile_blocks(model: Any) -> None:
    """Compile each transformer block; all of a kind share their code."""
    for blocks in (model.encoder.model.blocks, model.info_sharing.self_attention_blocks):
        for block in blocks:
            # uniception gives each block of DINOv2 a class of its own, made by the same code:
            # each would be compiled by itself, until there are too many.
            block.attn.__class__ = type(blocks[0].attn)
            run = torch.compile(block.forward, fullgraph=True)
            # Positions are a list as long as there are views, and not used: each number of views
            # would be compiled anew.
            block.forward = lambda x, positions=None, run=run: run(x)
