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

"""What two windows say about the depth of one keyframe, as one."""

from __future__ import annotations

from dataclasses import replace

import torch

from mapanything_ros.core.datatypes import Prediction
from mapanything_ros.core.map.keyframe_points import FULL_WEIGHT

# Depths of a pixel that differ by more, relative to their mean, contradict each other. Of recorded
# pixels 0.3 % do without odometry, none with it; of 0.05, 2.5 % would. With windows 2 to 5 % off
# in scale and 3 % of wild pixels (simulated) 0.1 keeps 83 to 96 % and 0.05 keeps 53 to 83 %, at
# the same error; to keep the more confident of two that contradict makes it 1.25 times as large.
CONTRADICTION = 0.1
# What a pixel of no confidence weighs, as in the map.
LEAST_WEIGHT = 1 / FULL_WEIGHT


def merged(before: Prediction, after: Prediction) -> Prediction:
    """
    Return a keyframe's prediction with the depth of both, which are in the same metres.

    Where both keep a pixel and agree, the depths are averaged, weighted by confidence; where they
    contradict each other, neither is kept; a pixel that one alone keeps is kept. The confidence
    is the higher one: it tells wrong depths from right ones better than one that rises with
    agreement, since windows that share a keyframe share pictures, and so errors. Where less than
    half of the earlier depth is left, the windows contradict each other as a whole: it stays as it
    was. All else is that of ``after``. So is the depth where the sizes of the pictures differ.
    """
    if before.depth_m.shape != after.depth_m.shape:
        return after
    before = before.to(after.depth_m.device)
    old_m, old_weight, old_confidence = _kept(before)
    new_m, new_weight, new_confidence = _kept(after)
    differ = (old_m - new_m).abs() > 0.5 * CONTRADICTION * (old_m + new_m)
    mask = (before.mask | after.mask) & ~(before.mask & after.mask & differ)
    if 2 * mask.sum() < before.mask.sum():
        return replace(
            after, mask=before.mask, depth_m=before.depth_m, confidence=before.confidence)
    mean_m = (old_weight * old_m + new_weight * new_m) / (old_weight + new_weight)
    return replace(
        after, mask=mask, depth_m=torch.where(mask, mean_m, 0.0),
        confidence=torch.where(mask, torch.maximum(old_confidence, new_confidence), 0.0))


def _kept(view: Prediction) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return depth, weight and confidence (H,W), 0 where the mask drops them."""
    depth_m, confidence = (
        torch.where(view.mask, values, 0.0) for values in (view.depth_m, view.confidence))
    return depth_m, confidence.clamp(min=LEAST_WEIGHT) * view.mask, confidence
