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

"""Rendered views of a room, as keyframes and as what MapAnything's network would say of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation
import torch

from benchmarks.box_room import BoxRoom
from mapanything_ros.core.datatypes import Array, Keyframe

PHOTO = (640, 480)
# What MapAnything makes of 4:3.
NETWORK = (518, 392)
MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])


@cache
def room() -> BoxRoom:
    return BoxRoom()


def intrinsics(size: tuple[int, int]) -> Array:
    width, height = size
    return np.array([[0.82 * width, 0, width / 2 - 0.5], [0, 0.82 * width, height / 2 - 0.5],
                     [0, 0, 1.0]])


def pose(index: int) -> Array:
    """Return ``world_from_camera`` on a circle in the room, looking outward and a bit down."""
    angle = 0.18 * index
    body = Rotation.from_euler('ZYX', [angle, 0.2 + 0.1 * np.sin(index), 0.0])
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    made = np.eye(4)
    made[:3, :3] = body.as_matrix() @ optical
    made[:3, 3] = [2.0 + 0.5 * np.cos(angle), 2.4 + 0.5 * np.sin(angle), 1.4]
    return made


def photo(index: int) -> np.ndarray:
    """Return the (480,640,3) picture of a place."""
    return _view(index, PHOTO)[0]


def keyframe(index: int, number: int | None = None) -> Keyframe:
    """Return a place as a keyframe with intrinsics, under its index or another number."""
    known = index if number is None else number
    return Keyframe(known, known, 'camera', photo(index), intrinsics=intrinsics(PHOTO))


def posed_keyframe(index: int, number: int | None = None) -> Keyframe:
    """Return a place as a keyframe with intrinsics, depth and pose."""
    return replace(
        keyframe(index, number), depth_m=_view(index, PHOTO)[1], odom_from_camera=pose(index))


def depth_at(index: int, size: tuple[int, int]) -> np.ndarray:
    """Return the true depth (H,W) of a place at a size (width, height), in metres."""
    return _view(index, size)[1]


@cache
def _view(index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return room().render(pose(index), intrinsics(size), *size)


@cache
def raw_output(index: int) -> dict[str, torch.Tensor]:
    """Return what ``forward`` of MapAnything would say of a place if it knew the truth."""
    width, height = NETWORK
    k = intrinsics(NETWORK)
    depth_m = torch.from_numpy(_view(index, NETWORK)[1])
    v, u = np.mgrid[:height, :width]
    plane = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], 2)
    plane = torch.from_numpy(plane).float()
    # As rough as a good prediction is.
    generator = torch.Generator().manual_seed(index)
    depth_m = depth_m * (1 + 0.002 * torch.randn(depth_m.shape, generator=generator))
    in_camera = plane * depth_m[..., None]
    rotation = torch.from_numpy(pose(index)[:3, :3]).float()
    centre = torch.from_numpy(pose(index)[:3, 3]).float()
    quat_xyzw = torch.from_numpy(Rotation.from_matrix(pose(index)[:3, :3]).as_quat()).float()
    length = plane.norm(dim=-1, keepdim=True)
    return {
        'pts3d': (in_camera @ rotation.T + centre)[None],
        'pts3d_cam': in_camera[None],
        'ray_directions': (plane / length)[None],
        'depth_along_ray': (depth_m[..., None] * length)[None],
        'cam_trans': centre[None],
        'cam_quats': quat_xyzw[None],
        'metric_scaling_factor': torch.ones(1, 1),
        'conf': (1 + 4 * torch.rand(height, width, generator=generator))[None],
        'non_ambiguous_mask': (depth_m > 0)[None],
        'non_ambiguous_mask_logits': depth_m[None].clone(),
    }


def model_input(index: int) -> dict[str, object]:
    """Return the view that belongs to ``raw_output``."""
    picture = torch.from_numpy(_view(index, NETWORK)[0])
    normalised = ((picture.float() / 255 - MEAN) / STD).permute(2, 0, 1)[None].contiguous()
    return {'img': normalised, 'data_norm_type': ['dinov2']}
