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

"""What is known of a window's metric scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import math

import numpy as np
from scipy.spatial.distance import pdist

from mapanything_ros.core.datatypes import Array, Keyframe, Prediction

# Fewer pixels of the whole window than this are no evidence.
MIN_PIXELS = 100
# Fewer poses, or a shorter longest baseline, say more about noise than about scale.
MIN_ODOMETRY_POSES = 3
MIN_ODOMETRY_BASELINE_M = 0.1
# What odometry and windows err in a short distance, whatever its length.
ODOMETRY_SIGMA_M = 0.01
# Evidence is never more certain than this: its errors have a common part.
MIN_SIGMA = {'depth': 0.003, 'odometry': 0.005, 'map': 0.01, 'model': 0.01}
# Median absolute deviation to standard deviation, for normal errors.
MAD_TO_SIGMA = 1.4826
# Pixels of a depth image err together: all of them are worth so many independent ones.
SAMPLES_A_VIEW = 4


@dataclass(frozen=True)
class Evidence:
    """
    What one source says that a window's lengths must be multiplied by to be metres.

    ``residual`` is the relative spread of what it says (median absolute deviation), ``sigma`` the
    standard deviation of the factor's logarithm.
    """

    source: str
    factor: float
    residual: float
    sigma: float


def evidence_of_ratios(source: str, ratios: Array, samples: float) -> Evidence:
    """Make evidence of ratios (N,) that are worth ``samples`` independent ones."""
    factor = float(np.median(ratios))
    residual = float(np.median(np.abs(ratios - factor))) / factor
    sigma = MAD_TO_SIGMA * residual / math.sqrt(max(1.0, samples))
    return Evidence(source, factor, residual, max(sigma, MIN_SIGMA[source]))


def evidence_of_views(source: str, ratios: Sequence[Array]) -> Evidence | None:
    """Make evidence of the ratios (N,) of each view's pixels; None where those are too few."""
    together = np.concatenate([*ratios, np.empty(0)])
    if len(together) < MIN_PIXELS:
        return None
    return evidence_of_ratios(
        source, together, SAMPLES_A_VIEW * sum(len(of_view) > 0 for of_view in ratios))


def depth_evidence(
    views: Sequence[Prediction], keyframes: Mapping[int, Keyframe],
) -> Evidence | None:
    """Compare the window's depth with the sensor's; None where there is too little of it."""
    return evidence_of_views(
        'depth', [_depth_ratios(view, keyframes[view.keyframe_id]) for view in views])


def odometry_evidence(
    views: Sequence[Prediction], keyframes: Mapping[int, Keyframe],
) -> Evidence | None:
    """
    Compare distances between cameras with the odometry's; None where the robot hardly moved.

    Distances do not depend on how the two worlds are turned, so no alignment is needed. Only the
    longer ones count.
    """
    moved = [
        (odometry[:3, 3], view.world_from_camera[:3, 3]) for view in views
        if (odometry := keyframes[view.keyframe_id].odom_from_camera) is not None]
    if len(moved) < MIN_ODOMETRY_POSES:
        return None
    measured, estimated = (pdist(positions) for positions in zip(*moved, strict=True))
    if measured.max() < MIN_ODOMETRY_BASELINE_M:
        return None
    longer = (measured >= 0.5 * measured.max()) & (estimated > 0.0)
    if not longer.any():
        return None
    evidence = evidence_of_ratios(
        'odometry', measured[longer] / estimated[longer], len(moved) - 1)
    return replace(
        evidence, sigma=math.hypot(evidence.sigma, ODOMETRY_SIGMA_M / float(measured.max())))


def rescaled(view: Prediction, factor: float) -> Prediction:
    """Multiply a view's depth and the position of its camera."""
    world_from_camera = view.world_from_camera.copy()
    world_from_camera[:3, 3] *= factor
    return replace(view, depth_m=view.depth_m * factor, world_from_camera=world_from_camera)


def _depth_ratios(view: Prediction, keyframe: Keyframe) -> Array:
    """Return measured over estimated depth (N,) where both are known."""
    if keyframe.depth_m is None or keyframe.intrinsics is None:
        return np.empty(0)
    height, width = keyframe.depth_m.shape
    # From the view's pixels to the sensor's: the view may be cropped.
    turn = keyframe.intrinsics @ np.linalg.inv(view.intrinsics)
    columns = np.rint(turn[0, 0] * np.arange(view.mask.shape[1]) + turn[0, 2]).astype(int)
    rows = np.rint(turn[1, 1] * np.arange(view.mask.shape[0]) + turn[1, 2]).astype(int)
    inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
    measured = keyframe.depth_m[
        np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
    known = view.mask.cpu().numpy() & inside & (measured > 0.0)
    return measured[known] / view.depth_m.cpu().numpy()[known].astype(np.float64)
