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

"""Ways to place a window: on keyframes of the map, and on odometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math

import numpy as np
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.config import AlignmentConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Prediction
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.registration import Pairs, register

# Pixels that two views must share to be compared.
MIN_SHARED_PIXELS = 100
# Shared pixels of a view that are enough to join windows with.
JOIN_PIXELS = 1000

Keyframes = Mapping[int, Keyframe]


@dataclass(frozen=True, eq=False)
class Placed:
    """A view of an earlier window: its pose in the map, and its depth."""

    view: Prediction
    map_from_camera: Array


@dataclass(frozen=True, eq=False)
class Join:
    """Where a window goes, and how well what ties it there fits."""

    map_from_world: Array
    residual_m: float
    inliers: float


def join_map(
    views: Sequence[Prediction], placed: Mapping[int, Placed], config: AlignmentConfig,
) -> Join:
    """
    Put views on the keyframes that the map has already, by their poses and pixels.

    Raises AlignmentError where they contradict it.
    """
    shared = [view for view in views if view.keyframe_id in placed]
    reach, length_m = config.max_residual, median_depth(views)
    pairs, guesses = [], []
    for view in shared:
        before = placed[view.keyframe_id]
        pairs.append(_pose_pairs(view, before.map_from_camera, length_m, reach * length_m))
        pairs.extend(_pixel_pairs(view, before, reach))
        guesses.append(before.map_from_camera @ np.linalg.inv(view.world_from_camera))
    found = register(Pairs.joined(pairs), guesses)
    turns_deg = [_angle_deg(found.target_from_source @ np.linalg.inv(g)) for g in guesses]
    turned = np.mean(np.array(turns_deg) > config.max_rotation_deg)
    if min(found.inliers, 1.0 - turned) < config.min_inliers:
        raise AlignmentError(
            f'the window disagrees with the map about {len(shared)} keyframes: '
            f'{found.inliers:.0%} of what they share is within {reach:.0%} of its depth, '
            f'{1.0 - turned:.0%} of them within {config.max_rotation_deg:g} degrees, '
            f'and at least {config.min_inliers:.0%} must be')
    return Join(found.target_from_source, found.residual_m, found.inliers)


def join_odometry(
    views: Sequence[Prediction], by_id: Keyframes, config: AlignmentConfig, vouched: bool,
) -> tuple[Join | None, frozenset[int], str]:
    """
    Put views on the odometry of their keyframes; None where there is none.

    Also returns the few that do not fit there, by id, or a sentence where too many do not;
    ``vouched`` says that the map can tell views that are right which odometry contradicts.
    Raises AlignmentError where too many are turned otherwise: distances alone may be slip.
    """
    tied = tied_to_odometry(views, by_id)
    if not tied:
        return None, frozenset(), ''
    reach_m, length_m = config.max_residual_m, median_depth(views)
    found = register(
        Pairs.joined([_pose_pairs(view, pose, length_m, reach_m) for view, pose in tied]),
        [pose @ np.linalg.inv(view.world_from_camera) for view, pose in tied])
    offsets = {
        view.keyframe_id: np.linalg.inv(pose) @ found.target_from_source
        @ view.world_from_camera for view, pose in tied}
    off_m = {n: float(np.linalg.norm(offset[:3, 3])) for n, offset in offsets.items()}
    off_deg = {n: _angle_deg(offset) for n, offset in offsets.items()}
    turned = frozenset(n for n in offsets if off_deg[n] > config.max_rotation_deg)
    wrong = turned | {n for n in offsets if off_m[n] > reach_m}
    few = min((1.0 - config.min_inliers) * len(tied), len(tied) - 1)
    squares = [off_m[n] ** 2 for n in offsets if n not in wrong]
    residual_m = math.sqrt(sum(squares) / max(len(squares), 1))
    join = Join(found.target_from_source, residual_m, 1.0)
    # Two wrong views have nothing in common: two that are but displaced tell of slip.
    slip = vouched and len(wrong) > 1 and not turned
    if len(wrong) <= few and not slip:
        return join, wrong, ''
    objection = (
        f'the window disagrees with the odometry about {len(wrong)} of {len(tied)} '
        f'keyframes by up to {max(off_m.values()):.3f} m and '
        f'{max(off_deg.values()):.1f} degrees')
    if len(turned) > few:
        raise AlignmentError(objection)
    return join, frozenset(), objection


def tied_to_odometry(
    views: Sequence[Prediction], by_id: Keyframes,
) -> list[tuple[Prediction, Array]]:
    """Return the views that odometry knows, each with its ``odom_from_camera`` (4,4)."""
    return [
        (view, odometry) for view in views
        if (odometry := by_id[view.keyframe_id].odom_from_camera) is not None]


def _pose_pairs(view: Prediction, pose: Array, length_m: float, reach_m: float) -> Pairs:
    """Make a camera's centre and the ends of its axes points that should meet, weight 1."""
    frame = np.vstack([np.zeros(3), length_m * np.eye(3)])

    def ends(target_from_camera: Array) -> Array:
        return frame @ target_from_camera[:3, :3].T + target_from_camera[:3, 3]

    return Pairs(
        ends(view.world_from_camera), ends(pose), np.full(4, 0.25), np.full(4, reach_m))


def _pixel_pairs(view: Prediction, placed: Placed, reach: float) -> list[Pairs]:
    """Make pixels that both windows keep points that should meet, weight 1 in all."""
    before = placed.view.to(view.depth_m.device)
    if before.mask.shape != view.mask.shape:
        return []
    row, column = (before.mask & view.mask).nonzero(as_tuple=True)
    if len(row) < MIN_SHARED_PIXELS:
        return []
    stride = max(1, len(row) // JOIN_PIXELS)
    row, column = row[::stride], column[::stride]
    # One copy to the host.
    depth_m, before_m, confidence, before_confidence, u, v = torch.stack([
        view.depth_m[row, column], before.depth_m[row, column],
        view.confidence[row, column], before.confidence[row, column],
        column.float(), row.float()]).cpu().numpy().astype(float)
    weight = np.sqrt(confidence * before_confidence) + 1e-3
    return [Pairs(
        _points(u, v, depth_m, view.intrinsics, view.world_from_camera),
        _points(u, v, before_m, before.intrinsics, placed.map_from_camera),
        weight / weight.sum(), reach * before_m)]


def _points(u: Array, v: Array, depth_m: Array, intrinsics: Array, pose: Array) -> Array:
    """Return pixels as (N,3) points in the frame of a camera's (4,4) pose."""
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(intrinsics).T
    return (rays * depth_m[:, None]) @ pose[:3, :3].T + pose[:3, 3]


def median_depth(views: Sequence[Prediction]) -> float:
    """Return the median depth of all that views keep."""
    depths = torch.cat([view.depth_m[view.mask] for view in views])
    return float(depths.median()) if len(depths) else 1.0


def _angle_deg(transform: Array) -> float:
    return math.degrees(float(Rotation.from_matrix(transform[:3, :3]).magnitude()))
