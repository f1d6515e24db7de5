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

"""Finds the metric scale of a window whose poses were estimated from images alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np

from mapanything_ros.core.datatypes import Array, Keyframe, Prediction, Scale
from mapanything_ros.core.errors import ReconstructionError

# Fewer pixels with depth than this, in the whole window, are no evidence.
MIN_DEPTH_PIXELS = 500
# Fewer poses, or a shorter longest baseline, say more about noise than about scale.
MIN_ODOMETRY_POSES = 3
MIN_ODOMETRY_BASELINE_M = 0.1
# Estimated poses can be wrong and yet fit the images; then no single scale fits the evidence.
MAX_RESIDUAL = 0.1


def estimate_scale(views: Sequence[Prediction], keyframes: Mapping[int, Keyframe]) -> Scale:
    """
    Scale a window by its keyframes' depth, else by their odometry, else to median depth 1.

    Without any metric evidence the source is 'none'. Raises ReconstructionError where the
    evidence contradicts the estimated geometry.
    """
    depth_ratios = np.concatenate(
        [_depth_ratios(view, keyframes[view.keyframe_id]) for view in views])
    if len(depth_ratios) >= MIN_DEPTH_PIXELS:
        return _robust_scale('depth', depth_ratios)
    baseline_ratios = _baseline_ratios(views, keyframes)
    if len(baseline_ratios):
        return _robust_scale('odometry', baseline_ratios)
    depths = np.concatenate([view.depth_m[view.mask].cpu().numpy() for view in views])
    return Scale('none', factor=1.0 / float(np.median(depths)))


def apply_scale(view: Prediction, scale: Scale) -> Prediction:
    """Multiply a view's depth and the position of its camera."""
    world_from_camera = view.world_from_camera.copy()
    world_from_camera[:3, 3] *= scale.factor
    return replace(
        view, depth_m=view.depth_m * scale.factor, world_from_camera=world_from_camera)


def _robust_scale(source: str, ratios: Array) -> Scale:
    factor = float(np.median(ratios))
    residual = float(np.median(np.abs(ratios - factor))) / factor
    if residual > MAX_RESIDUAL:
        raise ReconstructionError(
            f'the estimated geometry and the {source} differ by more than scale: by '
            f'{residual:.0%}, at most {MAX_RESIDUAL:.0%} are accepted; the estimated poses are '
            f'probably wrong')
    return Scale(source, factor, residual)


def _depth_ratios(view: Prediction, keyframe: Keyframe) -> Array:
    """Return measured over estimated depth where both are known."""
    if keyframe.depth_m is None:
        return np.empty(0)
    height, width = view.depth_m.shape
    measured = cv2.resize(
        keyframe.depth_m, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    known = view.mask.cpu().numpy() & np.isfinite(measured) & (measured > 0.0)
    return measured[known] / view.depth_m.cpu().numpy()[known].astype(np.float64)


def _baseline_ratios(
    views: Sequence[Prediction], keyframes: Mapping[int, Keyframe]
) -> Array:
    """
    Return measured over estimated distance for the longer pairs of cameras.

    Distances do not depend on how the two worlds are turned, so no alignment is needed.
    """
    pairs = []
    for first, second in combinations(views, 2):
        odom_from_first = keyframes[first.keyframe_id].odom_from_camera
        odom_from_second = keyframes[second.keyframe_id].odom_from_camera
        if odom_from_first is not None and odom_from_second is not None:
            pairs.append((
                np.linalg.norm(odom_from_first[:3, 3] - odom_from_second[:3, 3]),
                np.linalg.norm(first.world_from_camera[:3, 3] - second.world_from_camera[:3, 3])))
    if len(pairs) < MIN_ODOMETRY_POSES * (MIN_ODOMETRY_POSES - 1) // 2:
        return np.empty(0)
    measured, estimated = np.array(pairs).T
    if measured.max() < MIN_ODOMETRY_BASELINE_M:
        return np.empty(0)
    longer = (measured >= 0.5 * measured.max()) & (estimated > 0.0)
    return measured[longer] / estimated[longer]
