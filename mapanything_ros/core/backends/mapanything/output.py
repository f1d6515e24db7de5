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

"""The network's raw outputs as predictions, without leaving the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.backends.mapanything.input import ModelView
from mapanything_ros.core.backends.mapanything.masks import confidence_mask, edge_mask
from mapanything_ros.core.backends.mapanything.multiview_confidence import multiview_confidence
from mapanything_ros.core.config import InferConfig
from mapanything_ros.core.datatypes import Array, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import ReconstructionError

# The intrinsics are fitted to about this many rays along each axis, as in the package.
RAYS = 50

Outputs = Sequence[dict[str, torch.Tensor]]


class ModelOutput:
    """Turns raw outputs of ``forward`` into what the package's ``infer`` would have made."""

    def __init__(self, config: InferConfig) -> None:
        self._config = config

    def window(
        self, outputs: Outputs, views: Sequence[ModelView],
        descriptors: Sequence[torch.Tensor] = (),
    ) -> WindowPrediction:
        """
        Return the window of views that are given in the order of the model.

        The world is the camera of the first keyframe; the scale is the network's own, metric.
        Raises ReconstructionError where the network answers with numbers that are not finite.
        """
        depth_m = torch.cat([output['pts3d_cam'][..., 2] for output in outputs])
        cameras = _Cameras(outputs, views, self._config.ignore_calibration_inputs)
        confidence = self._confidence(outputs, depth_m, cameras)
        mask = self._mask(outputs, depth_m, confidence)
        predictions = (
            Prediction(
                keyframe_id=view.keyframe.id,
                rgb=view.rgb,
                depth_m=depth_m[i],
                confidence=self._unit(confidence[i]),
                mask=mask[i],
                intrinsics=cameras.intrinsics[i],
                world_from_camera=cameras.world_from_camera[i],
                descriptor=descriptors[i] if descriptors else None)
            for i, view in enumerate(views))
        return WindowPrediction(
            tuple(sorted(predictions, key=lambda prediction: prediction.keyframe_id)),
            Scale('model', cameras.scale))

    def _confidence(
        self, outputs: Outputs, depth_m: torch.Tensor, cameras: _Cameras,
    ) -> torch.Tensor:
        """Return what ``infer`` calls ``conf``, (V,H,W)."""
        if not self._config.use_multiview_confidence:
            return torch.cat([output['conf'] for output in outputs])
        return multiview_confidence(
            depth_m, cameras.fitted, cameras.world_from_camera_on_device,
            torch.cat([output['non_ambiguous_mask'] for output in outputs]),
            self._config.multiview_conf_depth_abs_thresh,
            self._config.multiview_conf_depth_rel_thresh)

    def _unit(self, confidence: torch.Tensor) -> torch.Tensor:
        """Bring confidence to [0,1], keeping its order; the learned one begins at 1, unbounded."""
        if self._config.use_multiview_confidence:
            return confidence
        return 1 - 1 / confidence

    def _mask(
        self, outputs: Outputs, depth_m: torch.Tensor, confidence: torch.Tensor,
    ) -> torch.Tensor:
        """Return ``mask`` of ``infer``, (V,H,W), less what no point can be made of."""
        usable = torch.isfinite(depth_m) & (depth_m > 0)
        config = self._config
        if not config.apply_mask:
            return usable
        mask = torch.cat([output['non_ambiguous_mask'] for output in outputs])
        if config.apply_confidence_mask:
            mask = mask & confidence_mask(confidence, config.confidence_percentile)
        if config.mask_edges:
            points = torch.cat([output['pts3d'] for output in outputs])
            mask = mask & ~edge_mask(
                points, depth_m, mask, config.edge_normal_threshold, config.edge_depth_threshold)
        return mask & usable


class _Cameras:
    """
    Poses, intrinsics and scale of the views, brought to the host in one copy.

    ``fitted`` (V,3,3) and ``world_from_camera_on_device`` (V,4,4), float32, are the model's own;
    ``intrinsics`` are the calibrated ones where there are any, else fitted.
    """

    def __init__(self, outputs: Outputs, views: Sequence[ModelView], estimated: bool) -> None:
        self.fitted = fit_intrinsics(torch.cat([output['ray_directions'] for output in outputs]))
        quaternions = torch.cat([output['cam_quats'] for output in outputs])
        centres = torch.cat([output['cam_trans'] for output in outputs])
        count = len(outputs)
        numbers = torch.cat([
            quaternions, centres, self.fitted.reshape(count, 9),
            torch.cat([output['metric_scaling_factor'] for output in outputs])], dim=1,
        ).cpu().numpy()
        if not np.isfinite(numbers).all():
            raise ReconstructionError(
                'the network answered with numbers that are not finite; where amp_dtype is fp16, '
                'set it to bf16, or use_amp to false')
        self.scale = float(numbers[0, 16])
        poses = _poses(numbers[:, :4], numbers[:, 4:7])
        self.world_from_camera_on_device = torch.from_numpy(poses).float().to(
            quaternions.device)
        # Nothing in the network makes the first pose the identity.
        first = min(range(count), key=lambda i: views[i].keyframe.id)
        self.world_from_camera = np.linalg.inv(poses[first]) @ poses
        self.intrinsics = [
            fitted.astype(np.float64) if estimated or view.intrinsics is None else view.intrinsics
            for fitted, view in zip(numbers[:, 7:16].reshape(count, 3, 3), views, strict=True)]


def _poses(quats_xyzw: Array, centres: Array) -> Array:
    poses = np.tile(np.eye(4), (len(centres), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(quats_xyzw.astype(np.float64)).as_matrix()
    poses[:, :3, 3] = centres
    return poses


def fit_intrinsics(rays: torch.Tensor) -> torch.Tensor:
    """
    Fit pinhole intrinsics (V,3,3) to ray directions (V,H,W,3).

    A least-squares line for each axis, x = cx + fx * (rx / rz), in float64 but for the result.
    """
    views, height, width, _ = rays.shape
    rows, columns = (torch.arange(0, length, max(1, length // RAYS), device=rays.device)
                     for length in (height, width))
    rays = rays[:, rows[:, None], columns].double()
    intrinsics = torch.zeros(views, 3, 3, device=rays.device, dtype=torch.float64)
    intrinsics[:, 2, 2] = 1
    for axis, pixels in ((0, columns.double()), (1, rows.double()[:, None])):
        slopes = rays[..., axis] / rays[..., 2]
        middle = slopes.mean(dim=(1, 2), keepdim=True)
        spread = slopes - middle
        focal = (spread * (pixels - pixels.mean())).sum((1, 2)) / spread.square().sum((1, 2))
        intrinsics[:, axis, axis] = focal
        intrinsics[:, axis, 2] = pixels.mean() - focal * middle[:, 0, 0]
    return intrinsics.float()
