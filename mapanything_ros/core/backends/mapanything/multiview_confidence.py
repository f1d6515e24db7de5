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

"""How many views agree with a depth: MapAnything's multi-view confidence, batched, in torch."""

from __future__ import annotations

import torch
from torch.nn.functional import grid_sample

# Points nearer than this to a camera are not compared in it; the package's number.
MIN_DEPTH_M = 0.04
# Where a view has no depth at all its frustum is cut here.
NO_DEPTH_RANGE_M = (0.1, 100.0)
# Other views that are compared at once; this bounds the memory.
BATCH = 8


def multiview_confidence(
    depth_m: torch.Tensor, intrinsics: torch.Tensor, world_from_camera: torch.Tensor,
    mask: torch.Tensor, abs_threshold_m: float, rel_threshold: float,
) -> torch.Tensor:
    """
    Return (V,H,W) float32: of the views that look at a point, the share that has its depth.

    ``depth_m`` (V,H,W), ``intrinsics`` (V,3,3), ``world_from_camera`` (V,4,4), all float32,
    ``mask`` (V,H,W) bool. Two depths agree up to ``abs_threshold_m`` plus ``rel_threshold`` of
    the depth. 0 where the mask is false or no view looks; a view whose frustum meets no other
    has 1 everywhere.
    """
    confidence = torch.ones_like(depth_m)
    overlaps = frusta_overlap(depth_m, intrinsics, world_from_camera).tolist()
    camera_from_world = _inverse(world_from_camera)
    usable = (depth_m > 0) & mask
    for source in range(len(depth_m)):
        others = [
            i for i, meets in enumerate(overlaps[source]) if i != source and meets]
        if not others:
            continue
        points = _in_world(depth_m[source], intrinsics[source], world_from_camera[source])
        agree = torch.zeros_like(depth_m[source])
        differ = torch.zeros_like(agree)
        for start in range(0, len(others), BATCH):
            chosen = others[start:start + BATCH]
            expected, found, seen = _look_up(
                points, depth_m[chosen], intrinsics[chosen], camera_from_world[chosen])
            near = (expected - found).abs() < abs_threshold_m + rel_threshold * expected
            seen &= usable[source]
            agree += (seen & near).sum(dim=0)
            differ += (seen & ~near).sum(dim=0)
        confidence[source] = agree / (agree + differ).clamp(min=1)
    return confidence


def _in_world(
    depth_m: torch.Tensor, intrinsics: torch.Tensor, world_from_camera: torch.Tensor,
) -> torch.Tensor:
    """Return the points (3,H,W) of a depth image."""
    height, width = depth_m.shape
    u = torch.arange(width, device=depth_m.device, dtype=torch.float32)
    v = torch.arange(height, device=depth_m.device, dtype=torch.float32)[:, None]
    x = (u - intrinsics[0, 2]) / intrinsics[0, 0] * depth_m
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1] * depth_m
    in_camera = torch.stack([x, y, depth_m]).flatten(1)
    in_world = product(world_from_camera[:3, :3], in_camera) + world_from_camera[:3, 3:]
    return in_world.view(3, height, width)


def _look_up(
    points: torch.Tensor, depth_m: torch.Tensor, intrinsics: torch.Tensor,
    camera_from_world: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return, for each view (T,H,W): the points' depth, the view's own, and if it sees them."""
    height, width = depth_m.shape[1:]
    in_camera = (
        product(camera_from_world[:, :3, :3], points.flatten(1)) + camera_from_world[:, :3, 3:])
    x, y, expected = product(intrinsics, in_camera).view(-1, 3, height, width).unbind(dim=1)
    x, y = (plane / expected.clamp(min=1e-6) for plane in (x, y))
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (expected > MIN_DEPTH_M)
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1).clamp(-1, 1)
    found = grid_sample(depth_m[:, None], grid, mode='nearest', align_corners=True)[:, 0]
    return expected, found, seen


def frusta_overlap(
    depth_m: torch.Tensor, intrinsics: torch.Tensor, world_from_camera: torch.Tensor,
) -> torch.Tensor:
    """
    Return (V,V) bool: the parts of space between nearest and farthest depth meet.

    By separating axes (Gottschalk et al., OBBTree, 1996): two convex bodies are apart if, and
    only if, a face normal or a cross product of two edges tells them apart.
    """
    valid = depth_m.flatten(1) > 0
    flat = depth_m.flatten(1)
    near = torch.where(valid, flat, torch.inf).amin(dim=1)
    far = torch.where(valid, flat, -torch.inf).amax(dim=1)
    empty = ~valid.any(dim=1)
    near = torch.where(empty, NO_DEPTH_RANGE_M[0], near)
    far = torch.where(empty, NO_DEPTH_RANGE_M[1], far)
    a, b = intrinsics[:, 0, 2] / intrinsics[:, 0, 0], intrinsics[:, 1, 2] / intrinsics[:, 1, 1]
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    sides = _vectors([(a, b, one), (-a, b, one), (-a, -b, one), (a, -b, one)])
    edges = torch.cat([sides, _vectors([(one, zero, zero), (zero, one, zero)])], dim=1)
    faces = _vectors([
        (zero, zero, one), (one, zero, -a), (-one, zero, -a), (zero, one, -b), (zero, -one, -b)])
    corners = torch.cat([sides * near[:, None, None], sides * far[:, None, None]], dim=1)
    turned = world_from_camera[:, :3, :3].mT
    corners = product(corners, turned) + world_from_camera[:, None, :3, 3]
    faces, edges = product(faces, turned), product(edges, turned)
    count = len(depth_m)
    crosses = torch.linalg.cross(edges[:, None, :, None], edges[None, :, None, :])
    axes = torch.cat([
        faces[:, None].expand(count, count, -1, 3), faces[None].expand(count, count, -1, 3),
        crosses.flatten(2, 3)], dim=2)
    one_low, one_high = torch.aminmax(product(axes, corners[:, None].mT), dim=-1)
    other_low, other_high = torch.aminmax(product(axes, corners[None].mT), dim=-1)
    return ~((one_high < other_low) | (other_high < one_low)).any(dim=-1)


def _vectors(components: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    return torch.stack([torch.stack(vector, dim=-1) for vector in components], dim=1)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """
    Return ``a @ b`` (...,M,N) of small matrices (...,M,K) and (...,K,N) in full float32.

    The package switches torch's own products to TF32, in the whole process: on a GPU that is an
    eighth of a pixel.
    """
    total = a[..., :, :1] * b[..., :1, :]
    for k in range(1, a.shape[-1]):
        total = total.addcmul_(a[..., :, k:k + 1], b[..., k:k + 1, :])
    return total


def _inverse(poses: torch.Tensor) -> torch.Tensor:
    """Return the inverses of rigid transforms (V,4,4)."""
    inverse = torch.zeros_like(poses)
    inverse[:, :3, :3] = poses[:, :3, :3].mT
    inverse[:, :3, 3:] = -product(poses[:, :3, :3].mT, poses[:, :3, 3:])
    inverse[:, 3, 3] = 1
    return inverse
