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

"""The classical backend: structure from motion where poses are missing, then a plane sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.backends.colmap.consistency import check, CheckedDepth
from mapanything_ros.core.backends.colmap.metric_scale import estimate_scale
from mapanything_ros.core.backends.colmap.picture import Picture, shrink
from mapanything_ros.core.backends.colmap.plane_sweep import (
    box_sum,
    choose_sources,
    sweep,
    SweepView,
    SweptDepth,
)
from mapanything_ros.core.backends.colmap.structure_from_motion import (
    SparseView,
    StructureFromMotion,
)
from mapanything_ros.core.config import ColmapConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.core.estimation.scale import rescaled

# A 7x7 patch with a smaller standard deviation, in grey values of 1.0, has no texture.
TEXTURE = 3.0 / 255.0
# A window in which a smaller share of the pixels has texture shows a blank wall, or darkness.
MIN_TEXTURED = 0.05
# With less parallax than this, at the working size, depth is noise.
MIN_PARALLAX_PX = 2.0
# Fewer points in a view do not tell how near and how far its scene reaches.
MIN_RANGE_POINTS = 20


@dataclass(frozen=True, eq=False)
class Camera:
    """Where a keyframe was taken from, and between which depths its scene lies."""

    world_from_camera: Array
    near: float
    far: float


class ColmapBackend(Backend):
    """Needs a static scene with texture and a calibrated camera that moves sideways."""

    name = 'colmap'

    def __init__(self, config: ColmapConfig, device: torch.device) -> None:
        """Load pycolmap; raise MissingLibraryError where there is none."""
        self._config = config
        self._device = device
        self._structure_from_motion = StructureFromMotion(config.max_features)
        # Sweeps of the last window by keyframe, where their unit was the metre.
        self._swept: dict[int, SweptDepth] = {}

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """Reconstruct a window; see Backend."""
        _require_intrinsics(keyframes)
        pictures = {keyframe.id: self._picture(keyframe) for keyframe in keyframes}
        _require_texture(pictures.values())
        # Poses: trusted where every keyframe has one, else estimated, up to scale.
        trusted = all(keyframe.odom_from_camera is not None for keyframe in keyframes)
        if not trusted:
            self._swept = {}
        cameras = self._trusted(keyframes) if trusted else self._estimated(keyframes)
        views = {
            number: self._sweep_view(pictures[number], camera)
            for number, camera in cameras.items()
        }
        _require_parallax(views, _middle_of_range(views))
        # Depth: a plane sweep in every view, and what the views agree on.
        depths = self._depths(views, trusted)
        self._require_kept(depths.values())
        _require_parallax(views, _middle_depth(depths))
        predictions = [
            self._prediction(number, pictures[number], view, depths[number])
            for number, view in views.items()
        ]
        # Scale: the trusted poses', else from depth or odometry, else none.
        if trusted:
            return WindowPrediction(tuple(predictions), Scale('odometry'))
        scale = estimate_scale(predictions, {keyframe.id: keyframe for keyframe in keyframes})
        return WindowPrediction(tuple(rescaled(view, scale.factor) for view in predictions), scale)

    def statistics(self) -> dict[str, object]:
        """Return nothing: there is nothing to say."""
        return {}

    def _picture(self, keyframe: Keyframe) -> Picture:
        assert keyframe.intrinsics is not None
        return shrink(keyframe.rgb, keyframe.intrinsics, self._config.width_px)

    def _trusted(self, keyframes: Sequence[Keyframe]) -> dict[int, Camera]:
        given = {k.id: k.odom_from_camera for k in keyframes if k.odom_from_camera is not None}
        world_from_odom = np.linalg.inv(given[keyframes[0].id])
        poses = {number: world_from_odom @ pose for number, pose in given.items()}
        near, far = self._config.min_depth_m, self._config.max_depth_m
        if not self._config.refine_poses:
            return {number: Camera(pose, near, far) for number, pose in poses.items()}
        refined = self._structure_from_motion.refine(keyframes, poses)
        return _anchored(refined, near, far)

    def _estimated(self, keyframes: Sequence[Keyframe]) -> dict[int, Camera]:
        found = {
            number: view
            for number, view in self._structure_from_motion.estimate(keyframes).items()
            if len(view.depths) >= MIN_RANGE_POINTS}
        if len(found) < 2:
            raise ReconstructionError(
                f'{len(found)} of {len(keyframes)} images share {MIN_RANGE_POINTS} points or more '
                'with others: the scene needs more texture, or the images more in common')
        return _anchored(found, 0.0, np.inf)

    def _sweep_view(self, picture: Picture, camera: Camera) -> SweepView:
        return SweepView(
            gray=torch.from_numpy(picture.gray()).to(self._device),
            intrinsics=picture.intrinsics,
            world_from_camera=camera.world_from_camera,
            near=camera.near,
            far=camera.far)

    def _depths(self, views: dict[int, SweepView], metric: bool) -> dict[int, CheckedDepth]:
        window = list(views.values())
        swept = {
            number: self._known(number, view) or self._sweep(window, index)
            for index, (number, view) in enumerate(views.items())}
        if metric:
            self._swept = swept
        checked = check(
            window, list(swept.values()), self._config.consistency, self._config.consistent_views)
        return dict(zip(views, checked, strict=True))

    def _known(self, number: int, view: SweepView) -> SweptDepth | None:
        """Return the sweep of a keyframe that stayed in the window, half of the work."""
        swept = self._swept.get(number)
        return swept if swept and swept.depth.shape == view.gray.shape else None

    def _sweep(self, window: list[SweepView], index: int) -> SweptDepth:
        sources = choose_sources(window, index, self._config.sources)
        return sweep(window[index], [window[k] for k in sources], self._config.planes)

    def _prediction(
        self, number: int, picture: Picture, view: SweepView, depth: CheckedDepth
    ) -> Prediction:
        return Prediction(
            keyframe_id=number,
            rgb=torch.from_numpy(picture.rgb).to(self._device),
            depth_m=depth.depth,
            confidence=depth.confidence,
            mask=depth.mask,
            intrinsics=picture.intrinsics,
            world_from_camera=view.world_from_camera)

    def _require_kept(self, depths: Iterable[CheckedDepth]) -> None:
        kept = torch.cat([depth.mask.flatten() for depth in depths]).float().mean().item()
        if kept < self._config.min_kept:
            raise ReconstructionError(
                f'the views of the window agree on the depth of {kept:.0%} of the pixels, and '
                f'colmap.min_kept is {self._config.min_kept:.0%}: the poses may be wrong, the '
                f'scene may move, or lack texture')


def _anchored(sparse: dict[int, SparseView], near: float, far: float) -> dict[int, Camera]:
    """Express poses in the frame of the first *view*: the first keyframe may be missing."""
    world_from_model = np.linalg.inv(next(iter(sparse.values())).world_from_camera)
    return {
        number: Camera(world_from_model @ view.world_from_camera, *_depth_range(view, near, far))
        for number, view in sparse.items()
    }


def _depth_range(view: SparseView, near: float, far: float) -> tuple[float, float]:
    """Return the depths of the sparse points, without outliers, with a margin, inside bounds."""
    if len(view.depths) < MIN_RANGE_POINTS:
        return near, far
    nearest, farthest = np.percentile(view.depths, (2.0, 98.0))
    low, high = max(near, 0.6 * float(nearest)), min(far, 1.8 * float(farthest))
    return (low, high) if low < high else (near, far)


def _require_intrinsics(keyframes: Sequence[Keyframe]) -> None:
    missing = [keyframe.id for keyframe in keyframes if keyframe.intrinsics is None]
    if missing:
        raise ReconstructionError(
            f'keyframe {missing[0]} has no intrinsics, and the colmap backend needs them: '
            f'provide camera_info, and set use_camera_info')


def _require_texture(pictures: Iterable[Picture]) -> None:
    shares = []
    for picture in pictures:
        gray = torch.from_numpy(picture.gray())
        pixels = box_sum(torch.ones_like(gray))
        variance = box_sum(gray.square()) / pixels - (box_sum(gray) / pixels).square()
        shares.append((variance > TEXTURE ** 2).float().mean().item())
    if np.mean(shares) < MIN_TEXTURED:
        raise ReconstructionError(
            f'{np.mean(shares):.0%} of the pixels of the window have texture: the camera sees a '
            f'blank surface, or darkness')


def _middle_of_range(views: dict[int, SweepView]) -> float:
    return float(np.median([2.0 / (1.0 / view.near + 1.0 / view.far) for view in views.values()]))


def _middle_depth(depths: dict[int, CheckedDepth]) -> float:
    return torch.cat([depth.depth[depth.mask] for depth in depths.values()]).median().item()


def _require_parallax(views: dict[int, SweepView], middle: float) -> None:
    """Refuse a window whose widest parallax, at its middle depth, is too small."""
    centres = np.array([view.world_from_camera[:3, 3] for view in views.values()])
    baseline = float(np.linalg.norm(centres[:, None] - centres[None], axis=-1).max())
    focal_px = float(np.mean([view.intrinsics[0, 0] for view in views.values()]))
    parallax = focal_px * baseline / middle
    if parallax < MIN_PARALLAX_PX:
        raise ReconstructionError(
            f'the camera moved too little for its distance to the scene: {parallax:.1f} pixels '
            f'of parallax, at least {MIN_PARALLAX_PX} are needed; move it sideways')
