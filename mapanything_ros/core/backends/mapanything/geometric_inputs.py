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

"""What the network makes of intrinsics and depth: of each camera once, and nothing of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

View = dict[str, Any]
Camera = tuple[object, tuple[int, ...]]
# The package's method that adds what it encodes to the features (V,C,h,w) of the images.
Fuse = Callable[[list[View], int, int, torch.Tensor, torch.Tensor], torch.Tensor]


class RayFeatures:
    """
    Stands in for MapAnything's ``_encode_and_fuse_ray_dirs``.

    Rays depend on the camera alone, which a view's ``idx`` names; features of cameras that a call
    does not name are dropped. The package encodes the rays of every view, and zeros where there
    are none.
    """

    def __init__(self, model: Any) -> None:
        self._config: dict[str, float] = model.geometric_input_config
        self._fuse: Fuse = model._encode_and_fuse_ray_dirs
        self._known: dict[Camera | None, torch.Tensor] = {}

    def __call__(
        self, views: list[View], num_views: int, batch_size_per_view: int,
        features: torch.Tensor, counts: torch.Tensor,
    ) -> torch.Tensor:
        """Return the features (V,C,h,w) with those of the rays of each view that has some."""
        cameras = [_camera(view) for view in views]
        if not _used(self._config, 'ray_dirs_prob') or not any(cameras):
            return features
        if any(camera not in self._known for camera in cameras):
            # All at once, as the package has it: a batch of another size has other last bits.
            encoded = self._fuse(
                views, num_views, batch_size_per_view, torch.zeros_like(features), counts)
            each = dict(zip(cameras, encoded.split(1), strict=True))
            # A part would keep the whole batch in memory.
            self._known = {camera: part.clone() for camera, part in each.items()}
        else:
            self._known = {camera: self._known[camera] for camera in cameras}
        return features + torch.cat([self._known[camera] for camera in cameras])


class DepthFeatures:
    """Stands in for MapAnything's ``_encode_and_fuse_depths``, which encodes no depth, too."""

    def __init__(self, model: Any) -> None:
        self._config: dict[str, float] = model.geometric_input_config
        self._fuse: Fuse = model._encode_and_fuse_depths

    def __call__(
        self, views: list[View], num_views: int, batch_size_per_view: int,
        features: torch.Tensor, counts: torch.Tensor,
    ) -> torch.Tensor:
        """Return the features (V,C,h,w) with those of the depth, if any view has some."""
        if not _used(self._config, 'depth_prob') or not any(
                'depth_along_ray' in view for view in views):
            return features
        return self._fuse(views, num_views, batch_size_per_view, features, counts)


def _used(config: dict[str, float], name: str) -> bool:
    """Say whether a kind of input counts; in inference these shares are 0 or 1."""
    return bool(config['overall_prob'] and config[name])


def _camera(view: View) -> Camera | None:
    """Return what rays are known by, None where there are none."""
    return (view['idx'][0], tuple(view['img'].shape)) if 'ray_directions_cam' in view else None
