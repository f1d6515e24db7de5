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
A plane sweep: depth for every view of a window with known poses, in torch, on any device.

For each view and each inverse depth the neighbouring views are warped onto it through a
fronto-parallel plane and compared by ZNCC; of what that says together with the neighbouring pixels
(`semi_global.py`) the best plane wins. What several views agree on is kept (`consistency.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np
import torch
from torch.nn import functional

from mapanything_ros.core.backends.colmap.semi_global import aggregate
from mapanything_ros.core.datatypes import Array

# Half the side of the ZNCC window: 7x7.
RADIUS = 3
# Grey-value noise (of 1.0) that counts as no texture: it damps the ZNCC of flat patches.
NOISE = 1.5 / 255.0
# Pixels times planes computed at once: the temporaries of a batch stay in the CPU's cache.
BATCH = {'cpu': 2 ** 19, 'cuda': 2 ** 25}


@dataclass(frozen=True, eq=False)
class SweepView:
    """
    A grey image (H,W) float32 in [0,1] with its camera.

    ``intrinsics`` (3,3) in pixels and ``world_from_camera`` (4,4), float64 numpy. The sweep looks
    between the depths ``near`` and ``far`` of this view.
    """

    gray: torch.Tensor
    intrinsics: Array
    world_from_camera: Array
    near: float
    far: float


@dataclass(frozen=True, eq=False)
class SweptDepth:
    """
    The best plane of every pixel, (H,W) float32 each.

    ``depth`` is in the unit of the poses; ``score`` is its own ZNCC in [-1,1]; ``margin`` is how
    far the next best peak is below, with the support of the neighbours.
    """

    depth: torch.Tensor
    score: torch.Tensor
    margin: torch.Tensor


def sweep(view: SweepView, sources: Sequence[SweepView], planes: int) -> SweptDepth:
    """Find the depth of each pixel of a view from the views in ``sources``."""
    inverse_depths = torch.linspace(
        1.0 / view.far, 1.0 / view.near, planes, device=view.gray.device)
    return _best_plane(_cost_volume(view, sources, inverse_depths), inverse_depths)


def choose_sources(views: Sequence[SweepView], index: int, count: int) -> list[int]:
    """
    Return the indices of the views, ``count`` at most, that suit best for matching one view.

    They see most of the same scene at its middle depth, under an angle that is wide enough to
    measure depth and narrow enough to look alike.
    """
    view = views[index]
    middle = 2.0 / (1.0 / view.near + 1.0 / view.far)
    worth = {
        other: _overlap(view, views[other], middle) * _angle_worth(view, views[other], middle)
        for other in range(len(views)) if other != index
    }
    useful = [other for other, value in worth.items() if value > 0.01]
    return sorted(useful, key=lambda other: -worth[other])[:count]


def _overlap(view: SweepView, other: SweepView, depth: float) -> float:
    """Return the share of a coarse grid of the view's pixels that the other view sees."""
    height, width = view.gray.shape
    u, v = np.meshgrid((np.arange(8) + 0.5) / 8 * width, (np.arange(8) + 0.5) / 8 * height)
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    points = np.linalg.inv(view.intrinsics) @ pixels * depth
    other_from_view = np.linalg.inv(other.world_from_camera) @ view.world_from_camera
    seen = other.intrinsics @ (other_from_view[:3, :3] @ points + other_from_view[:3, 3:])
    x, y = seen[:2] / np.maximum(seen[2], 1e-9)
    height, width = other.gray.shape
    return float(np.mean((seen[2] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)))


def _angle_worth(view: SweepView, other: SweepView, depth: float) -> float:
    """Rate the triangulation angle at ``depth``: best at 6 degrees, less for smaller or wider."""
    baseline = np.linalg.norm(view.world_from_camera[:3, 3] - other.world_from_camera[:3, 3])
    angle_deg = math.degrees(math.atan2(baseline, depth))
    spread = 3.0 if angle_deg < 6.0 else 9.0
    return math.exp(-0.5 * ((angle_deg - 6.0) / spread) ** 2)


def project(
    view: SweepView, source: SweepView, inverse_depth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Project each pixel of a view, at (P,H,W) or (P,1,1) inverse depths, into a source.

    Returns coordinates (P,H,W,2) for grid_sample with align_corners, the ratio of the depth in
    the source to the depth in the view (P,H,W), and where the source sees the point (P,H,W).
    """
    height, width = view.gray.shape
    source_height, source_width = source.gray.shape
    device = view.gray.device
    normalise = np.array([
        [2.0 / (source_width - 1), 0.0, -1.0], [0.0, 2.0 / (source_height - 1), -1.0],
        [0.0, 0.0, 1.0]])
    source_from_view = np.linalg.inv(source.world_from_camera) @ view.world_from_camera
    to_source = normalise @ source.intrinsics
    # A pixel p at inverse depth w lands on (M p + w t), a homogeneous pixel of the source.
    matrix = to_source @ source_from_view[:3, :3] @ np.linalg.inv(view.intrinsics)
    shift = torch.tensor(to_source @ source_from_view[:3, 3], dtype=torch.float32, device=device)
    m = torch.tensor(matrix, dtype=torch.float32, device=device)
    u = torch.arange(width, dtype=torch.float32, device=device)
    v = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    x, y, z = (
        torch.addcmul(m[k, 0] * u + m[k, 1] * v + m[k, 2], inverse_depth, shift[k])
        for k in range(3)
    )
    ahead = z > 1e-6
    scale = 1.0 / torch.where(ahead, z, 1.0)
    x *= scale
    y *= scale
    return torch.stack((x, y), dim=-1), z, ahead & (x.abs() <= 1.0) & (y.abs() <= 1.0)


def _cost_volume(
    view: SweepView, sources: Sequence[SweepView], inverse_depths: torch.Tensor
) -> torch.Tensor:
    """Return the (P,H,W) mean ZNCC of the better half of the sources, -1 where none sees it."""
    height, width = view.gray.shape
    if not sources:
        return view.gray.new_full((len(inverse_depths), height, width), -1.0)
    patches = _Patches(view.gray)
    better = math.ceil(len(sources) / 2)
    batch = max(1, BATCH[view.gray.device.type] // (height * width))
    volume = view.gray.new_empty((len(inverse_depths), height, width))
    for start in range(0, len(inverse_depths), batch):
        depths = inverse_depths[start:start + batch, None, None]
        best = [volume.new_full((len(depths), height, width), -1.0) for _ in range(better)]
        for source in sources:
            grid, _, seen = project(view, source, depths)
            score = patches.zncc(sample(source.gray, grid)).masked_fill_(~seen, -1.0)
            for rank in range(better):
                best[rank], score = torch.maximum(best[rank], score), best[rank].minimum(score)
        # An occluded or unseen source is no evidence against the others.
        used = torch.stack([value > -1.0 for value in best])
        total = torch.stack(best).mul_(used).sum(dim=0)
        count = used.sum(dim=0)
        volume[start:start + batch] = torch.where(count > 0, total / count.clamp(min=1), -1.0)
    return volume


def sample(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample an (H,W) image at a (P,h,w,2) grid, bilinearly."""
    planes, height, width, _ = grid.shape
    flat = grid.reshape(1, planes * height, width, 2)
    values = functional.grid_sample(
        image[None, None], flat, align_corners=True, padding_mode='border')
    return values.reshape(planes, height, width)


class _Patches:
    """The windows around every pixel of a reference image, ready for ZNCC."""

    def __init__(self, gray: torch.Tensor) -> None:
        self._share = 1.0 / box_sum(torch.ones_like(gray))
        # Centred, so that the sums of squares keep their digits.
        self._gray = gray - 0.5
        self._mean = box_sum(self._gray) * self._share
        self._variance = box_sum(self._gray.square()) * self._share - self._mean.square()

    def zncc(self, warped: torch.Tensor) -> torch.Tensor:
        """Compare the (P,H,W) warped images with the reference, in [-1,1]."""
        warped = warped - 0.5
        mean, square, product = box_sum(
            torch.stack((warped, warped.square(), warped * self._gray))) * self._share
        variance = square.addcmul_(mean, mean, value=-1.0).clamp_(min=0.0)
        covariance = product.addcmul_(mean, self._mean, value=-1.0)
        spread = (variance + NOISE ** 2).mul_(self._variance + NOISE ** 2)
        return covariance.mul_(spread.rsqrt_())


def box_sum(image: torch.Tensor) -> torch.Tensor:
    """Sum (...,H,W) over a 7x7 window, cropped at the border; seven is 4 + 2 + 1."""
    height, width = image.shape[-2:]
    padded = functional.pad(image, (RADIUS,) * 4)
    two = padded[..., :-1] + padded[..., 1:]
    four = two[..., :-2] + two[..., 2:]
    row = four[..., :width] + two[..., 4:4 + width] + padded[..., 6:6 + width]
    two = row[..., :-1, :] + row[..., 1:, :]
    four = two[..., :-2, :] + two[..., 2:, :]
    return four[..., :height, :] + two[..., 4:4 + height, :] + row[..., 6:6 + height, :]


def _best_plane(volume: torch.Tensor, inverse_depths: torch.Tensor) -> SweptDepth:
    """Pick the best plane of each pixel and refine it with a parabola through its neighbours."""
    planes = len(inverse_depths)
    support = aggregate(volume)
    best, index = support.max(dim=0)
    inner = index.clamp(1, planes - 2)
    # Support alone draws depth to whole planes, its own scores alone lose a pixel of weak texture.
    curve = torch.add(volume, support, alpha=0.5)
    before, centre, after = (
        curve.gather(0, (inner + step)[None])[0] for step in (-1, 0, 1))
    bend = (before - 2.0 * centre + after).clamp(max=-1e-6)
    offset = (0.5 * (before - after) / bend).clamp(-1.0, 1.0)
    step = inverse_depths[1] - inverse_depths[0]
    inverse = inverse_depths[0] + step * (inner + offset)
    # At the end of the range the true peak may lie outside: nothing is known.
    at_end = (index == 0) | (index == planes - 1)
    return SweptDepth(
        depth=1.0 / inverse.clamp(min=1e-9),
        score=volume.gather(0, index[None])[0].masked_fill(at_end, -1.0),
        margin=best - _second_peak(support, index))


def _second_peak(volume: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the score of the best local maximum but one; where none, -1, the worst ZNCC."""
    inner = volume[1:-1]
    peak = (inner >= volume[:-2]) & (inner >= volume[2:])
    number = torch.arange(1, len(volume) - 1, device=volume.device)[:, None, None]
    peak &= (number - index).abs() > 1
    return inner.where(peak, -1.0).amax(dim=0)
