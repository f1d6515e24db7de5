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

"""Which swept depths are right: those that other views of the window found too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mapanything_ros.core.backends.colmap.plane_sweep import (
    box_sum,
    project,
    sample,
    SweepView,
    SweptDepth,
)

# Below this ZNCC patches do not look alike, whatever their neighbours say: 0.4 keeps 3 % less of a
# recorded kitchen for 0.0003 of AbsRel, 0.2 keeps 1 % more for 0.0006.
MIN_SCORE = 0.3
# A second peak that is nearly as good, with what neighbours say, makes a depth ambiguous: 0.05
# keeps 2 % more for 0.0005.
MIN_MARGIN = 0.1
# Pixels of a 7x7 window that must be kept too, or the pixel is a speckle.
MIN_SUPPORT = 16


@dataclass(frozen=True, eq=False)
class CheckedDepth:
    """Depth (H,W) in the unit of the poses, confidence (H,W) in [0,1] and mask (H,W) bool."""

    depth: torch.Tensor
    confidence: torch.Tensor
    mask: torch.Tensor


def check(
    views: Sequence[SweepView], swept: Sequence[SweptDepth], tolerance: float, agreeing: int
) -> list[CheckedDepth]:
    """
    Keep the depths that ``agreeing`` other views confirm up to the relative ``tolerance``.

    A kept depth becomes the mean of all that confirm it.
    """
    plausible = [(s.score >= MIN_SCORE) & (s.margin >= MIN_MARGIN) for s in swept]
    found = [s.depth.masked_fill(~p, torch.nan) for s, p in zip(swept, plausible, strict=True)]
    return [
        _check_one(index, views, found, swept[index], tolerance, min(agreeing, len(views) - 1))
        for index in range(len(views))
    ]


def _check_one(
    index: int, views: Sequence[SweepView], found: Sequence[torch.Tensor], swept: SweptDepth,
    tolerance: float, agreeing: int,
) -> CheckedDepth:
    depth = found[index]
    count = torch.zeros_like(depth)
    total = torch.zeros_like(depth)
    square = torch.zeros_like(depth)
    for other in range(len(views)):
        if other == index:
            continue
        grid, ratio, seen = project(views[index], views[other], 1.0 / depth[None])
        # NaN, no depth, agrees with nothing.
        error = sample(found[other], grid)[0] / (depth * ratio[0]) - 1.0
        agrees = seen[0] & (error.abs() < tolerance)
        error = error.where(agrees, 0.0)
        count += agrees
        total += error
        square += error.square()
    mean = total / (count + 1.0)
    spread = (square / (count + 1.0) - mean.square()).clamp(min=0.0).sqrt()
    mask = count >= agreeing
    mask &= box_sum(mask.float()) >= MIN_SUPPORT
    share = count / (len(views) - 1)
    confidence = swept.score.clamp(0.0, 1.0) * share * torch.exp(-spread / tolerance)
    return CheckedDepth(
        depth=torch.where(mask, depth * (1.0 + mean), 0.0),
        confidence=confidence.masked_fill(~mask, 0.0),
        mask=mask)
