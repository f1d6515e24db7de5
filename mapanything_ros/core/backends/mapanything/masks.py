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

"""
MapAnything's masks in torch, on whatever device the predictions lie.

The definitions are those of the package's numpy functions (``points_to_normals``,
``normals_edge``, ``depth_edge``), with all they do to NaN and to borders.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
import torch
from torch.nn.functional import max_pool2d, pad

EPSILON = 1e-12
# How many float32 lie between zero and one.
ORDER_OF_ONE = int(np.float32(1).view(np.int32))
# A pixel and half of its neighbours (rows down, columns right); the others mirror these.
HALF_WINDOW = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))

# The x, y and z of a vector for each pixel, (V,H,W) each.
Vector = list[torch.Tensor]


def edge_mask(
    points: torch.Tensor, depth_m: torch.Tensor, mask: torch.Tensor,
    normal_threshold_deg: float, depth_threshold: float,
) -> torch.Tensor:
    """
    Return (V,H,W) bool, True where normals as well as depth break: the package's, to the bit.

    ``points`` (V,H,W,3) in the world, ``depth_m`` (V,H,W), ``mask`` (V,H,W) bool of the pixels
    that count; what the result says of others means nothing.
    """
    if points.is_cuda:
        return _edges(points, depth_m, mask, normal_threshold_deg, depth_threshold)
    # View by view everything stays in the CPU's caches.
    edges = torch.empty_like(mask)
    for i in range(len(points)):
        view = slice(i, i + 1)
        edges[view] = _edges(
            points[view], depth_m[view], mask[view], normal_threshold_deg, depth_threshold)
    return edges


def confidence_mask(confidence: torch.Tensor, percentile: float) -> torch.Tensor:
    """Return (V,H,W) bool: the confidence is above this percentile of its view (linear)."""
    flat = confidence.flatten(1)
    last = flat.shape[1] - 1
    rank = torch.tensor(percentile / 100.0, dtype=torch.float32) * last
    below = int(rank)
    low = flat.kthvalue(below + 1, dim=1).values
    high = flat.kthvalue(min(below + 1, last) + 1, dim=1).values
    # NaN is larger than everything for kthvalue, and makes a percentile NaN.
    threshold = torch.lerp(low, high, float(rank) - below) + 0 * flat.sum(dim=1)
    return confidence > threshold[:, None, None]


def _edges(
    points: torch.Tensor, depth_m: torch.Tensor, mask: torch.Tensor,
    normal_threshold_deg: float, depth_threshold: float,
) -> torch.Tensor:
    normals, valid = _normals(points, mask)
    return _depth_edges(depth_m, mask, depth_threshold) & _normal_edges(
        normals, valid, largest_dot(normal_threshold_deg))


def _depth_edges(depth_m: torch.Tensor, mask: torch.Tensor, threshold: float) -> torch.Tensor:
    """Say where the range of depth in the 3x3 pixels around, over the depth, is too large."""
    low = torch.full_like(depth_m, -torch.inf)
    # NaN is ignored, as nanmax does; a window of nothing but NaN cannot hold a masked pixel.
    counts = mask & ~depth_m.isnan()
    both = torch.stack([
        torch.where(counts, depth_m, low), torch.where(counts, -depth_m, low)], dim=1)
    spread = max_pool2d(both, 3, stride=1, padding=1).sum(dim=1)
    return spread / depth_m > threshold


def _normals(
    points: torch.Tensor, mask: torch.Tensor,
) -> tuple[Vector, torch.Tensor]:
    """Return unit normals, zero where ``valid`` (V,H,W), the second result, is false."""
    # Borders count as points at the origin that are not in the mask.
    planes = [pad(plane, (1, 1, 1, 1)) for plane in points.unbind(dim=-1)]
    down = [plane[:, 1:, 1:-1] - plane[:, :-1, 1:-1] for plane in planes]
    right = [plane[:, 1:-1, 1:] - plane[:, 1:-1, :-1] for plane in planes]
    above, below = ([d[:, :-1] for d in down], [d[:, 1:] for d in down])
    left, right = ([r[..., :-1] for r in right], [r[..., 1:] for r in right])
    inside = pad(mask, (1, 1, 1, 1))
    up_in, down_in = inside[:, :-2, 1:-1], inside[:, 2:, 1:-1]
    left_in, right_in = inside[:, 1:-1, :-2], inside[:, 1:-1, 2:]
    total: Vector = []
    valid = torch.zeros_like(mask)
    for vertical, vertical_in, horizontal, horizontal_in in (
        (above, up_in, left, left_in), (below, down_in, left, left_in),
        (below, down_in, right, right_in), (above, up_in, right, right_in),
    ):
        counts = vertical_in & horizontal_in & mask
        valid |= counts
        # Multiplied, not chosen: NaN stays NaN, and spoils the normal, as it does in the package.
        part = [plane * counts for plane in _unit(_cross(vertical, horizontal))]
        total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    zero = total[0].new_zeros(())
    return [torch.where(valid, plane, zero) for plane in _unit(total)], valid


def _normal_edges(normals: Vector, valid: torch.Tensor, limit: float) -> torch.Tensor:
    """
    Say where a normal differs from one of its eight neighbours, or one that does is a neighbour.

    The package looks the neighbours' validity up transposed, and takes the arc cosine of a
    normal with itself, too, which is NaN where rounding makes that product larger than one: then
    the pixel is no edge. Both are kept.
    """
    height, width = valid.shape[1:]
    around = [pad(plane, (1, 1, 1, 1), mode='replicate') for plane in _unit(normals)]
    valid_around = pad(valid[:, None].float(), (1, 1, 1, 1), mode='replicate')[:, 0] > 0

    def at(plane: torch.Tensor, row: int, column: int) -> torch.Tensor:
        """Return what a padded plane holds at this offset from each pixel."""
        return plane[:, 1 + row:1 + row + height, 1 + column:1 + column + width]

    big = torch.zeros_like(valid)
    bad = torch.zeros_like(valid)
    for row, column in HALF_WINDOW:
        # Each product serves both its pixels; where there is none it is not looked up.
        dot = _shifted_dot(around, row, column)
        far, none = dot <= limit, ~(dot.abs() <= 1)
        for sign in (1, -1) if row or column else (1,):
            counts = at(valid_around, sign * column, sign * row)
            where = (0, 0) if sign > 0 else (-row, -column)
            big |= counts & at(far, *where)
            bad |= counts & at(none, *where)
    return max_pool2d((big & ~bad).float(), 3, stride=1, padding=1) > 0


def _shifted_dot(around: Vector, row: int, column: int) -> torch.Tensor:
    """Return, in padded planes, the product of each vector with that at an offset from it."""
    product = torch.zeros_like(around[0])
    high, wide = product.shape[1:]
    here = (slice(0, high - row), slice(max(0, -column), wide - max(0, column)))
    there = (slice(row, high), slice(max(0, column), wide - max(0, -column)))
    x, y, z = (plane[:, here[0], here[1]] * plane[:, there[0], there[1]] for plane in around)
    product[:, here[0], here[1]] = x.add_(y).add_(z)
    return product


def _cross(a: Vector, b: Vector) -> Vector:
    return [
        (a[1] * b[2]).sub_(a[2] * b[1]), (a[2] * b[0]).sub_(a[0] * b[2]),
        (a[0] * b[1]).sub_(a[1] * b[0])]


def _unit(vector: Vector) -> Vector:
    x, y, z = vector
    square = (x * x).add_(y * y).add_(z * z)
    # Rounded correctly, which torch's own root of float32 is not everywhere.
    length = square.double().sqrt_().float().add_(EPSILON)
    return [plane / length for plane in vector]


@lru_cache(maxsize=8)
def largest_dot(threshold_deg: float) -> float:
    """Return the largest float32 whose arc cosine is more than this, as numpy has it; -2: none."""
    limit = np.deg2rad(threshold_deg)

    def exceeds(order: int) -> bool:
        return bool((np.arccos(_float_of_order(order)) > limit).all())

    low, high = -ORDER_OF_ONE, ORDER_OF_ONE
    if not exceeds(low):
        return -2.0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exceeds(middle) else (low, middle)
    return float(_float_of_order(low)[0])


def _float_of_order(order: int) -> NDArray[np.float32]:
    """Return, as an array, the float32 that is this many floats above (below) zero."""
    return np.copysign(np.array([abs(order)], np.int32).view(np.float32), np.float32(order))
