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

"""Encoder features of keyframes that stay in the window, so that they are computed once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import normalize

from mapanything_ros.core.backends.mapanything.batched import Encoded, View

Key = tuple[str, tuple[int, ...], torch.dtype]


class FeatureCache:
    """
    Stands in for MapAnything's ``_encode_n_views``, and encodes only views it does not know.

    An encoder's output depends on the image alone. Views are known by the id in ``instance``, the
    image's size and the precision; features of views that a call does not name are dropped, all
    of them without ``keep``. ``describe`` makes ``descriptors`` of the last call's views.
    """

    def __init__(
        self, encode: Callable[[list[View]], Encoded], keep: bool = True, describe: bool = False,
    ) -> None:
        self._encode = encode
        self._keep = keep
        self._describe = describe
        self.descriptors: list[torch.Tensor] = []
        self._known: dict[Key, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self.reused = 0
        self.computed = 0

    def __call__(self, views: list[View]) -> Encoded:
        """Return features (1,C,h,w) and registers (1,C,R), or None, of each view."""
        keys = [_key(view) for view in views]
        missing = [i for i, key in enumerate(keys) if key not in self._known]
        known = {key: self._known[key] for key in keys if key in self._known}
        if missing:
            features, registers = self._encode([views[i] for i in missing])
            for at, i in enumerate(missing):
                # A chunk would keep the whole batch in memory.
                known[keys[i]] = (
                    features[at].clone(), registers[at].clone() if registers else None)
        self._known = known if self._keep else {}
        self.computed += len(missing)
        self.reused += len(views) - len(missing)
        chosen = [known[key] for key in keys]
        if self._describe:
            self.descriptors = [describe(feature) for feature, _ in chosen]
        tokens = [token for _, token in chosen if token is not None]
        return tuple(feature for feature, _ in chosen), tuple(tokens) or None

    def clear(self) -> None:
        """Forget all features, to give their memory back."""
        self._known = {}


def describe(features: torch.Tensor) -> torch.Tensor:
    """
    Return one (C,) float32 unit vector for an image's features (1,C,h,w).

    The mean of its patches' directions; DINOv2's tell places apart (AnyLoc, Keetha et al. 2023).
    """
    patches = normalize(features[0].float().flatten(1), dim=0)
    return normalize(patches.mean(dim=1), dim=0)


def _key(view: View) -> Key:
    kind = view['img'].device.type
    mixed = torch.is_autocast_enabled(kind)
    precision = torch.get_autocast_dtype(kind) if mixed else view['img'].dtype
    return view['instance'][0], tuple(view['img'].shape), precision
