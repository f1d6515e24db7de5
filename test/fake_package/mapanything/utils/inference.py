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

"""Checks and conversions of views, as strict as the real ones."""

from __future__ import annotations

from typing import Any

import torch

Views = list[dict[str, Any]]

REQUIRED = {'img', 'data_norm_type'}
OPTIONAL = {
    'depth_z', 'ray_directions', 'intrinsics', 'camera_poses', 'is_metric_scale', 'true_shape',
    'idx', 'instance'}


def validate_input_views_for_inference(views: Views) -> Views:
    """Return the views, or raise ValueError."""
    if not views:
        raise ValueError('no views')
    for number, view in enumerate(views):
        names = set(view)
        if names - REQUIRED - OPTIONAL:
            raise ValueError(f'view {number} has unknown keys: {names - REQUIRED - OPTIONAL}')
        if REQUIRED - names:
            raise ValueError(f'view {number} has not: {REQUIRED - names}')
        if {'intrinsics', 'ray_directions'} <= names:
            raise ValueError(f'view {number} has intrinsics and ray_directions')
        if 'depth_z' in names and not {'intrinsics', 'ray_directions'} & names:
            raise ValueError(f'view {number} has depth_z without calibration')
    posed = [number for number, view in enumerate(views) if 'camera_poses' in view]
    if posed and posed[0] != 0:
        raise ValueError(f'views {posed} have camera_poses, but view 0 has none')
    return views


def preprocess_input_views_for_inference(views: Views) -> Views:
    """Return copies of the views with what the network reads."""
    return [_preprocessed(view) for view in views]


def _preprocessed(view: dict[str, Any]) -> dict[str, Any]:
    made = dict(view)
    height, width = view['img'].shape[-2:]
    rays = None
    if 'intrinsics' in view:
        rays = _rays(made.pop('intrinsics'), height, width)
    elif 'ray_directions' in view:
        rays = made.pop('ray_directions')
        rays = rays / (rays.norm(dim=-1, keepdim=True) + 1e-8)
    if rays is not None:
        made['ray_directions_cam'] = rays
    if 'depth_z' in view:
        in_camera = made.pop('depth_z')[..., None] * (rays / rays[..., 2:3])
        made['depth_along_ray'] = in_camera.norm(dim=-1, keepdim=True)
    if 'camera_poses' in view:
        made['camera_pose_quats'], made['camera_pose_trans'] = _pose(made.pop('camera_poses'))
    made.setdefault('is_metric_scale', torch.ones(
        len(view['img']), dtype=torch.bool, device=view['img'].device))
    return made


def _rays(intrinsics: torch.Tensor, height: int, width: int) -> torch.Tensor:
    u = torch.arange(width, device=intrinsics.device).float().expand(1, height, width)
    v = torch.arange(height, device=intrinsics.device).float()[:, None].expand(1, height, width)
    x = (u - intrinsics[:, 0, 2].view(-1, 1, 1)) / intrinsics[:, 0, 0].view(-1, 1, 1)
    y = (v - intrinsics[:, 1, 2].view(-1, 1, 1)) / intrinsics[:, 1, 1].view(-1, 1, 1)
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    return rays / rays.norm(dim=-1, keepdim=True)


def _pose(given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(given, tuple) and len(given) == 2:
        return given
    if not (torch.is_tensor(given) and given.shape[-2:] == (4, 4)):
        raise ValueError('camera_poses are neither (quats, trans) nor (B,4,4)')
    return _quaternion(given[:, :3, :3]), given[:, :3, 3]


def _quaternion(rotation: torch.Tensor) -> torch.Tensor:
    """Return (B,4) xyzw, by the largest component (Shepperd, 1978)."""
    m = rotation
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    candidates = []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        parts = [torch.zeros_like(trace)] * 4
        parts[i] = 1 + m[:, i, i] - m[:, j, j] - m[:, k, k]
        parts[j] = m[:, j, i] + m[:, i, j]
        parts[k] = m[:, k, i] + m[:, i, k]
        parts[3] = m[:, k, j] - m[:, j, k]
        candidates.append(torch.stack(parts, dim=1))
    candidates.append(torch.stack([
        m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1], 1 + trace],
        dim=1))
    everything = torch.stack(candidates, dim=1)
    largest = everything.norm(dim=2).argmax(dim=1)
    chosen = everything[torch.arange(len(m)), largest]
    return chosen / chosen.norm(dim=1, keepdim=True)
