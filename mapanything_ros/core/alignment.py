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

"""Places windows in the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math

import numpy as np
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.config import AlignmentConfig
from mapanything_ros.core.datatypes import (
    Array,
    Keyframe,
    Prediction,
    Scale,
    Submap,
    WindowPrediction,
)
from mapanything_ros.core.errors import AlignmentError

# REP-103: from the optical frame (x right, z forward) to the body frame (x forward, z up).
BODY_FROM_OPTICAL: Array = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])

# Pixels that two windows must share before their depths tell the scale.
MIN_SHARED_PIXELS = 100


@dataclass(frozen=True, eq=False)
class _Placed:
    """A view of an earlier window: its pose in the map, and its depth for the scale."""

    view: Prediction
    map_from_camera: Array


class Alignment:
    """
    Places each window in the map rigidly.

    With trusted odometry every window lies where odometry puts its keyframes, so that no error
    adds up from window to window. Otherwise windows are joined through the keyframes that both
    hold, found by id; the first lies where odometry says, else with the robot's base (or the
    camera's body frame) at the map's origin, and one that shares nothing with the last is placed
    by odometry, or starts a new segment. A window without metric scale takes that of the map.
    """

    def __init__(self, config: AlignmentConfig, trust_odometry: bool) -> None:
        self._config = config
        self._trust_odometry = trust_odometry
        self.segments = 0
        self.reset()

    def reset(self) -> None:
        """Forget the map: the next window is the first."""
        self._placed: dict[int, _Placed] = {}
        self._map_from_odom: Array | None = None
        self._last_pose: Array | None = None
        self._metric = False

    def place(self, window: WindowPrediction, keyframes: Sequence[Keyframe]) -> Submap:
        """
        Return the window in the map frame; ``keyframes`` are those that the backend was given.

        Raises AlignmentError, and leaves everything as it was, where the keyframes contradict
        the map or the odometry.
        """
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        window = self._scaled(window)
        known = {v.keyframe_id for v in window.views if v.keyframe_id in self._placed}
        first = by_id[window.views[0].keyframe_id]
        residual_m = 0.0
        if anchors := self._anchors(window, by_id):
            map_from_world, residual_m = self._join(window, anchors)
        else:
            map_from_world = self._start(first) @ np.linalg.inv(window.views[0].world_from_camera)
        submap = Submap(
            window.views, window.scale, map_from_world, residual_m,
            new_ids=frozenset(view.keyframe_id for view in window.views) - known,
            new_segment=not known and not self._tied(first))
        self._remember(submap, by_id)
        return submap

    @property
    def map_from_odom(self) -> Array | None:
        """Return the (4,4) correction of odometry by the newest window, None without odometry."""
        return self._map_from_odom

    def _scaled(self, window: WindowPrediction) -> WindowPrediction:
        """Give a window without metric scale the scale of the keyframes placed before."""
        if window.scale.metric:
            return window
        ratios = [self._depth_ratio(v) for v in window.views if v.keyframe_id in self._placed]
        ratio = torch.cat(ratios) if ratios else torch.empty(0)
        if len(ratio) < MIN_SHARED_PIXELS:
            return window
        factor = float(ratio.median())
        residual = float((ratio - factor).abs().median()) / factor
        views = tuple(_rescaled(view, factor) for view in window.views)
        source = 'map' if self._metric else 'none'
        return WindowPrediction(
            views, Scale(source, window.scale.factor * factor, residual))

    def _depth_ratio(self, view: Prediction) -> torch.Tensor:
        """Return the map's depth over the window's for the pixels that both keep, (N,)."""
        placed = self._placed[view.keyframe_id].view
        if placed.mask.shape != view.mask.shape:
            return torch.empty(0, device=view.mask.device)
        both = placed.mask & view.mask
        return placed.depth_m[both] / view.depth_m[both]

    def _anchors(self, window: WindowPrediction, by_id: dict[int, Keyframe]) -> dict[int, Array]:
        """Return where keyframes of the window are in the map, (4,4) by id, as far as known."""
        if self._trust_odometry:
            return {
                number: keyframe.odom_from_camera for number, keyframe in by_id.items()
                if keyframe.odom_from_camera is not None}
        return {
            view.keyframe_id: self._placed[view.keyframe_id].map_from_camera
            for view in window.views if view.keyframe_id in self._placed}

    def _join(self, window: WindowPrediction, anchors: dict[int, Array]) -> tuple[Array, float]:
        """Return the rigid transform that puts the window's views on their anchors."""
        views = [view for view in window.views if view.keyframe_id in anchors]
        old = np.stack([anchors[view.keyframe_id] for view in views])
        new = np.stack([view.world_from_camera for view in views])
        rotations = Rotation.from_matrix(old[:, :3, :3] @ new[:, :3, :3].transpose(0, 2, 1))
        rotation = rotations.mean()
        offsets = old[:, :3, 3] - rotation.apply(new[:, :3, 3])
        translation = offsets.mean(axis=0)
        residual_m = float(np.sqrt(((offsets - translation) ** 2).sum(axis=1).mean()))
        spread_deg = math.degrees(float((rotations * rotation.inv()).magnitude().max()))
        if residual_m > self._config.max_residual_m or spread_deg > self._config.max_rotation_deg:
            raise AlignmentError(
                f'the window disagrees with the {"odometry" if self._trust_odometry else "map"} '
                f'about {len(views)} keyframes by {residual_m:.3f} m and {spread_deg:.1f} degrees')
        map_from_world = np.eye(4)
        map_from_world[:3, :3] = rotation.as_matrix()
        map_from_world[:3, 3] = translation
        return map_from_world, residual_m

    def _start(self, keyframe: Keyframe) -> Array:
        """Return where the camera of a keyframe is in the map when no window tells."""
        if keyframe.odom_from_camera is not None:
            correction = np.eye(4) if self._map_from_odom is None else self._map_from_odom
            return correction @ keyframe.odom_from_camera
        if self._last_pose is not None:
            return self._last_pose
        if keyframe.base_from_camera is not None:
            return keyframe.base_from_camera
        return BODY_FROM_OPTICAL

    def _tied(self, keyframe: Keyframe) -> bool:
        """Say whether odometry ties the keyframe to what was placed before."""
        return self._map_from_odom is not None and keyframe.odom_from_camera is not None

    def _remember(self, submap: Submap, by_id: dict[int, Keyframe]) -> None:
        self._placed = {
            view.keyframe_id: _Placed(view, submap.map_from_camera(view))
            for view in submap.views}
        self._last_pose = submap.map_from_camera(submap.views[-1])
        odom_from_camera = by_id[submap.views[-1].keyframe_id].odom_from_camera
        if self._trust_odometry:
            self._map_from_odom = np.eye(4)
        elif odom_from_camera is not None:
            self._map_from_odom = self._last_pose @ np.linalg.inv(odom_from_camera)
        self._metric = submap.scale.metric
        self.segments += submap.new_segment


def _rescaled(view: Prediction, factor: float) -> Prediction:
    world_from_camera = view.world_from_camera.copy()
    world_from_camera[:3, 3] *= factor
    return replace(view, depth_m=view.depth_m * factor, world_from_camera=world_from_camera)
