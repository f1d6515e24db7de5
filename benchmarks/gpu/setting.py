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

"""What is measured: a device, a network with random weights, and windows of a rendered room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import scene
from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend
from mapanything_ros.core.backends.mapanything.checkpoint import Checkpoint, find_checkpoint
from mapanything_ros.core.backends.mapanything.input import in_model_order, ModelInput, to_model
from mapanything_ros.core.backends.mapanything.loading import load_model
from mapanything_ros.core.backends.mapanything.network import Network
from mapanything_ros.core.config import Config, from_values, InferConfig, MapAnythingConfig
from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.core.device import give_back, wait_for

HERE = Path(__file__).parents[1]
NETWORKS = {
    'v1.1': HERE / 'mapanything_v1.1.json', 'v1': HERE / 'mapanything_v1.json',
    'tiny': HERE.parent / 'test' / 'data' / 'mapanything_tiny.json'}
# Pictures of this many places, round and round.
PLACES = 40
# What a window knows of its views, by what is put before "images".
MIXES = {'images': '', '+ K': 'k', '+ K + depth + poses': 'kdp'}

Outputs = list[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Setting:
    """
    A device and a network; ``small`` is for a CPU: the same checks, few views, small images.

    ``views`` are the sizes of windows that are timed, ``window`` the one that is judged, ``long``
    how many windows are run in a row.
    """

    device: torch.device
    checkpoint: Checkpoint
    size_px: int
    views: tuple[int, ...]
    window: int
    long: int
    repeats: int

    @property
    def cuda(self) -> bool:
        """Say whether this is a GPU, whose times are judged."""
        return self.device.type == 'cuda'

    @property
    def amp(self) -> torch.dtype | None:
        """Return the type of mixed precision."""
        return torch.bfloat16 if self.cuda else None

    def limit(self, value: float) -> float | None:
        """Return a limit that is meant for a GPU, None elsewhere."""
        return value if self.cuda else None

    def time_limit(self, value: float) -> float | None:
        """Return a limit of time that is meant for an H100 or better, None elsewhere."""
        fast = self.cuda and torch.cuda.get_device_capability(self.device) >= (9, 0)
        return value if fast else None

    def window_of(self, count: int, first: int = 0, known: str = 'k') -> list[Keyframe]:
        """Return keyframes with numbers from ``first``, with what is known of them."""
        window = []
        for number in range(first, first + count):
            keyframe = scene.posed_keyframe(number % PLACES, number)
            window.append(replace(
                keyframe,
                intrinsics=keyframe.intrinsics if 'k' in known else None,
                depth_m=keyframe.depth_m if 'd' in known else None,
                odom_from_camera=keyframe.odom_from_camera if 'p' in known else None))
        return window

    def views_of(self, window: Sequence[Keyframe]) -> list[dict[str, Any]]:
        """Return what the model takes."""
        return to_model(in_model_order(ModelInput(self.size_px, self.device).prepare(window)))

    def model(self, amp: torch.dtype | None = None) -> Any:
        """Load the network, held in a type of mixed precision or in float32."""
        return load_model(self.checkpoint, self.device, amp)

    def network(self, model: Any, amp: torch.dtype | None, **config: Any) -> Network:
        """Return ours around a model."""
        return Network(model, InferConfig(), MapAnythingConfig(**config), self.device, amp)

    @contextmanager
    def backend(self, window: int, **parameters: Any) -> Iterator[MapAnythingBackend]:
        """Give the backend as the node makes it, and take it away again."""
        made = create_backend(self.config(window, **parameters))
        assert isinstance(made, MapAnythingBackend)
        try:
            yield made
        finally:
            del made
            give_back()

    def config(self, window: int, **parameters: Any) -> Config:
        """Return the parameters of the backend."""
        return from_values(Config, {
            'device': str(self.device), 'mapanything.weights': str(self.checkpoint.folder),
            'mapanything.size_px': self.size_px, 'window.size': window,
            'window.overlap': max(0, window - 1), **parameters})

    def official(self, model: Any, views: list[dict[str, Any]], **options: Any) -> Outputs:
        """Call the package's own ``infer``, on the device and in the precision of ours."""
        options = {'memory_efficient_inference': False, 'use_amp': self.cuda, **options}
        found: Outputs = model.infer([dict(view) for view in views], **options)
        wait_for(self.device)
        return found

    def forward(self, model: Any, views: list[dict[str, Any]], amp: torch.dtype | None) -> Outputs:
        """Return what the package's ``infer`` has before it makes masks, in any precision."""
        from mapanything.utils.inference import preprocess_input_views_for_inference

        model._configure_geometric_input_config(True, True, True, True, True)
        with torch.no_grad(), torch.autocast(
                self.device.type, enabled=amp is not None, dtype=amp):
            found: Outputs = model.forward(
                preprocess_input_views_for_inference([dict(view) for view in views]))
        model._restore_original_geometric_input_config()
        return found


def make_setting(device: torch.device, network: str, folder: Path) -> Setting:
    """Return what is measured on a device, with the weights in a folder."""
    checkpoint = find_checkpoint(str(folder))
    if network == 'tiny':
        return Setting(device, checkpoint, 140, (2, 3), 3, 12, 2)
    return Setting(device, checkpoint, 518, (2, 4, 6, 8, 16, 34), 8, 200, 7)


def difference(one: Outputs, other: Outputs) -> float:
    """Return the largest difference of an output, relative to its norm over all views."""
    names = [
        name for name, value in other[0].items()
        if value.is_floating_point() and name in one[0]]
    return max(_relative([view[name] for view in one], [view[name] for view in other])
               for name in names)


def _relative(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    a, b = (torch.cat([value.double().flatten() for value in values]) for values in (ours, theirs))
    return float((a - b).norm() / b.norm())
