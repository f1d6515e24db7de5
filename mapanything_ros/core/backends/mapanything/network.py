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
from contextlib import contextmanager
import importlib
from threading import Lock
from typing import Any

import torch

from mapanything_ros.core.backends.mapanything.feature_cache import FeatureCache
from mapanything_ros.core.config import InferConfig

AMP_DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


class Network:
    """
    Does what the package's ``infer`` does up to the raw outputs, and leaves them on the device.

    ``infer`` computes its masks in numpy on the host, which takes longer than the network; ours
    are in ``output``. The model is not thread-safe and is used under a lock.
    """

    def __init__(
        self, model: Any, config: InferConfig, device: torch.device, reuse: bool,
        describe: bool = False,
    ) -> None:
        """Take a loaded model over; ``describe`` makes ``descriptors`` of the views."""
        self._model = model
        self._config = config
        self._device = device
        self._lock = Lock()
        self._inference = importlib.import_module('mapanything.utils.inference')
        self._amp_dtype = AMP_DTYPES.get(config.amp_dtype) if amp_used(config, device) else None
        self.features: FeatureCache | None = None
        if reuse or describe:
            self.features = FeatureCache(self._model._encode_n_views, reuse, describe)
            self._model._encode_n_views = self.features

    def forward(
        self, views: list[dict[str, Any]], in_batches: bool, minibatch_size: int,
    ) -> list[dict[str, torch.Tensor]]:
        """
        Return the raw outputs of the views, in their order, float32.

        ``in_batches`` runs the dense head on ``minibatch_size`` views at a time (0: by free
        memory). Raises ValueError where the package refuses the views.
        """
        with self._lock, torch.no_grad(), self._configured():
            processed = self._inference.preprocess_input_views_for_inference(
                self._inference.validate_input_views_for_inference(views))
            with torch.autocast(
                self._device.type, enabled=self._amp_dtype is not None, dtype=self._amp_dtype
            ):
                outputs: list[dict[str, torch.Tensor]] = self._model.forward(
                    processed, memory_efficient_inference=in_batches,
                    minibatch_size=minibatch_size or None)
                return outputs

    @property
    def descriptors(self) -> list[torch.Tensor]:
        """Return what the views of the last call look like, (C,) each; empty if not asked for."""
        return self.features.descriptors if self.features else []

    @contextmanager
    def _configured(self) -> Iterator[None]:
        """Set which inputs count, and put that back whatever happens; ``infer`` does not."""
        config = self._config
        self._model._configure_geometric_input_config(
            use_calibration=not config.ignore_calibration_inputs,
            use_depth=not config.ignore_depth_inputs,
            use_pose=not config.ignore_pose_inputs,
            use_depth_scale=not config.ignore_depth_scale_inputs,
            use_pose_scale=not config.ignore_pose_scale_inputs)
        try:
            yield
        finally:
            self._model._restore_original_geometric_input_config()


def amp_used(config: InferConfig, device: torch.device) -> bool:
    """Say whether mixed precision is used: on the CPU it would be fp16, and three times slower."""
    return config.use_amp and device.type == 'cuda' and config.amp_dtype in AMP_DTYPES
