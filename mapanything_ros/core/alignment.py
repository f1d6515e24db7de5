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

from collections.abc import Mapping, Sequence
from dataclasses import replace
import math

import numpy as np
import torch

from mapanything_ros.core.config import AlignmentConfig, ScaleConfig
from mapanything_ros.core.datatypes import (
    Array,
    Keyframe,
    Prediction,
    Scale,
    Submap,
    WindowPrediction,
)
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.gravity import levelled
from mapanything_ros.core.joins import (
    Join,
    join_map,
    join_odometry,
    Keyframes,
    median_depth,
    MIN_SHARED_PIXELS,
    Placed,
    tied_to_odometry,
)
from mapanything_ros.core.map_scale import Fused, MapScale, Measured
from mapanything_ros.core.scale import (
    depth_evidence,
    Evidence,
    evidence_of_views,
    MIN_ODOMETRY_BASELINE_M,
    MIN_ODOMETRY_POSES,
    odometry_evidence,
    rescaled,
)
from mapanything_ros.core.uncertainty import Uncertainty

# REP-103: from the optical frame (x right, z forward) to the body frame (x forward, z up).
BODY_FROM_OPTICAL: Array = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])

# Keyframes that map and window must share to agree against the odometry.
VOUCHERS = 2
# How far a backend's own metric scale is off (log), where it has no evidence of its own.
MODEL_SIGMA = 0.1
MIN_MODEL_SIGMA = 0.01


class Alignment:
    """
    Places each window in the map.

    With trusted odometry every window lies where odometry puts its keyframes, so that no error
    adds up from window to window. Otherwise windows are joined through the keyframes that both
    hold, found by id, by their full poses and by their pixels: the same pixel is the same point.
    The first window lies where odometry says, else with the robot's base (or the camera's body
    frame) at the map's origin, level where gravity was measured, and one that shares nothing with
    the last is placed by odometry, or starts a new segment. The map starts again with the first
    window in metres where it was not in metres before, and where more windows contradict its scale
    than have made it.
    """

    def __init__(
        self, config: AlignmentConfig, scale: ScaleConfig, trust_odometry: bool,
    ) -> None:
        self._config = config
        # Poses that are the truth say how long things are, too.
        self._scale_source = (
            'odometry' if trust_odometry and scale.source == 'model' else scale.source)
        self._trust_odometry = trust_odometry
        self._uncertainty = Uncertainty()
        self.segments = 0
        self.reset()

    def reset(self) -> None:
        """Forget the map: the next window is the first."""
        # Whether measured gravity made the map's z axis point up.
        self.levelled = False
        self._placed: dict[int, Placed] = {}
        self._map_from_odom: Array | None = None
        self._last_pose: Array | None = None
        self._scale = MapScale()

    def place(self, window: WindowPrediction, keyframes: Sequence[Keyframe]) -> Submap:
        """
        Return the window in the map frame; ``keyframes`` are those that it was made of.

        Raises AlignmentError, and leaves the map as it was, where the keyframes contradict the
        map or the odometry, or nothing tells the scale of a window that must fit them. What such
        a window says against the map's scale counts all the same.
        """
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        window, left_out = self._without_wrong(window, by_id)
        measured = self._measured(window, by_id)
        fused = self._fused(measured)
        window, warning = self._scaled(window, measured, fused)
        self._require_scale(window, by_id)
        vouched = self._vouched(window.views)
        odometry, _, objection = join_odometry(window.views, by_id, self._config, vouched)
        # Nothing in metres goes with what is not.
        over = fused.outvotes or window.scale.metric and self._placed and not self._scale.metric
        if objection:
            if over or _witness(measured, fused) or not vouched:
                raise AlignmentError(objection)
            objection += ": it is where the map has it; check the robot's odometry (slip)"
        up_in_world = self._up(window.views, by_id)
        if over:
            self.reset()
        warning = '; '.join(filter(None, (left_out, objection, warning)))
        known = self._known(window.views)
        first = next((view for view, _ in tied_to_odometry(window.views, by_id)), window.views[0])
        if self._trust_odometry and odometry is not None:
            join = odometry
        elif known:
            join = join_map(window.views, self._placed, self._config)
        else:
            join = Join(
                self._start(first, by_id[first.keyframe_id], up_in_world)
                @ np.linalg.inv(first.world_from_camera), 0.0, 1.0)
        submap = Submap(
            window.views, window.scale, join.map_from_world, join.residual_m,
            new_ids=frozenset(view.keyframe_id for view in window.views) - known,
            new_segment=not known and not self._bridged(by_id[first.keyframe_id]),
            inliers=join.inliers, warning=warning)
        submap = replace(submap, covariances=self._covariances(submap, by_id, fused))
        self._remember(submap, by_id)
        self._scale.remember(measured, fused, submap.scale.metric)
        return submap

    def repose(self, poses: Mapping[int, Array]) -> None:
        """Take corrected poses ``map_from_camera`` (4,4) of keyframes, by id."""
        if self._placed and (newest := max(self._placed)) in poses:
            self._last_pose = poses[newest]
            if self._map_from_odom is not None:
                correction = poses[newest] @ np.linalg.inv(self._placed[newest].map_from_camera)
                self._map_from_odom = correction @ self._map_from_odom
        for number in self._placed.keys() & poses.keys():
            self._placed[number] = Placed(self._placed[number].view, poses[number])

    @property
    def map_from_odom(self) -> Array | None:
        """Return the (4,4) correction of odometry by the newest window, None without odometry."""
        return self._map_from_odom

    def _without_wrong(
        self, window: WindowPrediction, by_id: Keyframes,
    ) -> tuple[WindowPrediction, str]:
        """Leave out the few views that odometry belies; at any scale, which is not known yet."""
        evidence = odometry_evidence(window.views, by_id)
        if evidence is None and not window.scale.metric:
            return window, ''
        factor = evidence.factor if evidence else 1.0
        vouched = self._vouched(window.views)
        _, wrong, objection = join_odometry(
            [rescaled(view, factor) for view in window.views], by_id, self._config, vouched)
        if objection and not vouched:
            raise AlignmentError(objection)
        if objection or not wrong:
            return window, ''
        kept = tuple(view for view in window.views if view.keyframe_id not in wrong)
        return replace(window, views=kept), (
            f'{len(wrong)} of {len(window.views)} keyframes of a window were left out: it '
            'disagrees with the odometry about them')

    # Scale

    def _measured(self, window: WindowPrediction, by_id: Keyframes) -> Measured:
        """Return all that tells the window's scale."""
        odometry = odometry_evidence(window.views, by_id)
        anchor = self._anchor(window, by_id, odometry)
        chain = self._chain(window)
        bridged = chain is None and anchor is None
        if bridged:
            # Nothing is shared, but what odometry's metres are in the map is known.
            chain = self._scale.bridged(odometry)
        # A map that was anchored keeps its scale where the source is silent for a while.
        kept = chain is not None and self._scale_source != 'model' and self._scale.metric
        if anchor is None and window.scale.metric and not kept:
            own = window.scale
            sigma = MODEL_SIGMA if own.source == 'model' else max(
                MIN_MODEL_SIGMA, 0.0 if math.isnan(own.residual) else own.residual)
            anchor = Evidence(own.source, 1.0, own.residual, sigma)
        if anchor is not None and self._config.model == 'se3':
            # Only what the source of scale cannot say is taken from the map.
            chain = None
        return Measured(chain, anchor, odometry, bridged)

    def _anchor(
        self, window: WindowPrediction, by_id: Keyframes, odometry: Evidence | None,
    ) -> Evidence | None:
        """Return what the configured source says; the model is asked apart."""
        if self._scale_source == 'odometry':
            return odometry
        return depth_evidence(window.views, by_id) if self._scale_source == 'depth' else None

    def _fused(self, measured: Measured) -> Fused:
        """Return the window's factor, by the anchor alone where that outvotes the map."""
        fused = self._scale.fuse(measured)
        if fused is None or not fused.conflict:
            return fused or Fused(1.0, math.inf)
        chain, anchor = measured.chain, measured.anchor
        assert chain is not None and anchor is not None
        if self._scale.outvoted(measured):
            return Fused(anchor.factor, anchor.sigma, outvotes=True)
        if measured.bridged:
            raise AlignmentError(
                'the window shares no depth with the map, and odometry makes it '
                f'{chain.factor / anchor.factor:.2f} times as large as the {anchor.source} does: '
                "check the robot's odometry (slip)")
        return fused

    def _scaled(
        self, window: WindowPrediction, measured: Measured, fused: Fused,
    ) -> tuple[WindowPrediction, str]:
        """Return the window in metres, as far as they are known, and what contradicts that."""
        chain = measured.chain
        used = chain if fused.conflict else measured.anchor or chain
        if used is None:
            return window, ''
        source = 'none' if used is chain and not self._scale.metric else used.source
        views = tuple(rescaled(view, fused.factor) for view in window.views)
        scale = Scale(source, window.scale.factor * fused.factor, used.residual)
        contradicted = fused.conflict or fused.outvotes
        return WindowPrediction(views, scale), (
            _contradiction(measured, fused.outvotes) if contradicted else '')

    def _chain(self, window: WindowPrediction) -> Evidence | None:
        """Compare the depth of pixels that the window shares with the map."""
        return evidence_of_views('map', [
            self._depth_ratio(view).cpu().numpy().astype(float)
            for view in window.views if view.keyframe_id in self._placed], MIN_SHARED_PIXELS)

    def _depth_ratio(self, view: Prediction) -> torch.Tensor:
        """Return the map's depth over the window's for the pixels that both keep, (N,)."""
        placed = self._placed[view.keyframe_id].view.to(view.depth_m.device)
        if placed.mask.shape != view.mask.shape:
            return torch.empty(0, device=view.mask.device)
        both = placed.mask & view.mask
        return placed.depth_m[both] / view.depth_m[both]

    def _require_scale(self, window: WindowPrediction, by_id: Keyframes) -> None:
        """Raise AlignmentError where a window without metres meets odometry or a map in metres."""
        if window.scale.metric:
            return
        odometry = any(by_id[v.keyframe_id].odom_from_camera is not None for v in window.views)
        if odometry or self._scale.metric and self._known(window.views):
            raise AlignmentError(
                'nothing tells how large the window is, which odometry or map have in metres: '
                'set scale.source to odometry or depth; odometry tells it where the camera has '
                f'moved {MIN_ODOMETRY_BASELINE_M:g} m in {MIN_ODOMETRY_POSES} keyframes')

    # Place

    def _covariances(self, submap: Submap, by_id: Keyframes, fused: Fused) -> dict[int, Array]:
        """Return how far the new keyframes' poses may be off, (6,6) by id."""
        poses = {view.keyframe_id: submap.map_from_camera(view) for view in submap.views}
        shared = [number for number in poses if number in self._placed]
        before = [self._placed[number].map_from_camera for number in shared]
        after = [poses[number] for number in shared]
        tied = [poses[view.keyframe_id] for view, _ in tied_to_odometry(submap.views, by_id)]
        # Without metres lengths are what the first window says.
        sigma = fused.sigma if submap.scale.metric and math.isfinite(fused.sigma) else 0.0
        first = poses[submap.views[0].keyframe_id]
        self._uncertainty.expect(median_depth(submap.views))
        if self._trust_odometry and tied:
            self._uncertainty.anchor(before, after, tied, sigma)
        elif shared:
            self._uncertainty.follow(before, after, sigma)
        elif submap.new_segment or self._last_pose is None:
            self._uncertainty.begin(first, sigma)
        else:
            self._uncertainty.bridge(self._last_pose, first, sigma)
        return {number: self._uncertainty.at(poses[number]) for number in submap.new_ids}

    def _vouched(self, views: Sequence[Prediction]) -> bool:
        """Say whether the map can tell that views are right which odometry contradicts."""
        return not self._trust_odometry and len(self._known(views)) >= VOUCHERS

    def _up(self, views: Sequence[Prediction], by_id: Keyframes) -> Array | None:
        """Return which way is up in a window's world, (3,), by gravity or by a level map."""
        for view in views:
            up_in_camera = by_id[view.keyframe_id].up_in_camera
            if up_in_camera is None and self.levelled and view.keyframe_id in self._placed:
                up_in_camera = self._placed[view.keyframe_id].map_from_camera[2, :3]
            if up_in_camera is not None:
                return view.world_from_camera[:3, :3] @ up_in_camera
        return None

    def _start(self, view: Prediction, keyframe: Keyframe, up_in_world: Array | None) -> Array:
        """Return where the camera of a keyframe is in the map when no window tells."""
        if keyframe.odom_from_camera is not None:
            correction = np.eye(4) if self._map_from_odom is None else self._map_from_odom
            return correction @ keyframe.odom_from_camera
        if self._last_pose is not None:
            return self._last_pose
        start = BODY_FROM_OPTICAL
        if keyframe.base_from_camera is not None:
            start = keyframe.base_from_camera
        if up_in_world is None:
            return start
        self.levelled = True
        return levelled(start, view.world_from_camera[:3, :3].T @ up_in_world)

    def _known(self, views: Sequence[Prediction]) -> set[int]:
        """Return the keyframes, by id, that the map has already."""
        return {view.keyframe_id for view in views} & self._placed.keys()

    def _bridged(self, keyframe: Keyframe) -> bool:
        """Say whether odometry ties the keyframe to what was placed before."""
        return self._map_from_odom is not None and keyframe.odom_from_camera is not None

    def _remember(self, submap: Submap, by_id: Keyframes) -> None:
        # A keyframe that was left out of this window may be in the next one again.
        kept = {} if submap.new_segment else {
            number: placed for number, placed in self._placed.items() if number in by_id}
        self._placed = kept | {
            view.keyframe_id: Placed(view, submap.map_from_camera(view))
            for view in submap.views}
        self._last_pose = submap.map_from_camera(submap.views[-1])
        if self._trust_odometry:
            self._map_from_odom = np.eye(4)
        elif tied := tied_to_odometry(submap.views, by_id):
            view, odom_from_camera = tied[-1]
            self._map_from_odom = submap.map_from_camera(view) @ np.linalg.inv(odom_from_camera)
        self.segments += submap.new_segment


def _witness(measured: Measured, fused: Fused) -> bool:
    """Say whether something other than odometry contradicts the map."""
    return fused.conflict and measured.anchor is not measured.odometry


def _contradiction(measured: Measured, outvoted: bool) -> str:
    """Return the warning where the source of scale contradicts the map."""
    chain, anchor = measured.chain, measured.anchor
    assert chain is not None and anchor is not None
    larger = anchor.factor / chain.factor
    if outvoted:
        return (
            f'more windows say by {anchor.source} that lengths in the map must be multiplied by '
            f'{larger:.2f} than have made it: the map starts again')
    if anchor.source == 'model':
        return (
            f'the model sees this window {larger:.2f} times as large as the map, whose scale is '
            'kept')
    return (
        f'the scale by {anchor.source} is {larger:.2f} times that of the map, which is kept for '
        "this window: check the robot's odometry (slip) or depth sensor")
