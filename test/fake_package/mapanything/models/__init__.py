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

"""The network: it recognises what it sees, and answers with exact geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
import torch

from mapanything.fake_world import Sight, WORLD

PATCH_PX = 14
FAR = 10.0


@dataclass
class DenseOutput:
    """What the dense head says, (V,C,H,W)."""

    value: torch.Tensor


class Encoder(torch.nn.Module):
    """Asks torch.hub for its backbone, as uniception does."""

    def __init__(
        self, size: str, data_norm_type: str, torch_hub_pretrained: bool = True,
        torch_hub_force_reload: bool = False, **others: Any,
    ) -> None:
        super().__init__()
        self.data_norm_type = data_norm_type
        self.enc_embed_dim = {'small': 384, 'giant': 1536}[size]
        name = {'small': 'dinov2_vits14', 'giant': 'dinov2_vitg14'}[size]
        print(f'Loading pretrained {name} from torch hub')
        self.model = torch.hub.load(
            'facebookresearch/dinov2', name, force_reload=torch_hub_force_reload,
            pretrained=torch_hub_pretrained)

    def forward(self, image: torch.Tensor, data_norm_type: str) -> torch.Tensor:
        assert data_norm_type == self.data_norm_type, f'{data_norm_type} is not what it expects'
        assert image.ndim == 4 and image.shape[1] == 3, f'image of shape {tuple(image.shape)}'
        return self.model(image)


class MapAnything(torch.nn.Module):
    """Has the constructor, the tied tensors and the raw outputs of the real class."""

    def __init__(
        self, name: str, encoder_config: dict[str, Any], info_sharing_config: dict[str, Any],
        pred_head_config: dict[str, Any], geometric_input_config: dict[str, Any],
        fusion_norm_layer: Any = None, pretrained_checkpoint_path: str | None = None,
        load_specific_pretrained_submodules: bool = False,
        specific_pretrained_submodules: list[str] | None = None,
        torch_hub_force_reload: bool = False, use_register_tokens_from_encoder: bool = False,
        info_sharing_mlp_layer_str: str = 'mlp',
    ) -> None:
        super().__init__()
        self.geometric_input_config = geometric_input_config
        self.info_sharing_type = info_sharing_config['model_type']
        self.pred_head_type = pred_head_config['type']
        encoder_config = dict(encoder_config)
        del encoder_config['uses_torch_hub']
        self.encoder = Encoder(torch_hub_force_reload=torch_hub_force_reload, **encoder_config)
        geometric_input_config['scale_encoder_config']['enc_embed_dim'] = (
            self.encoder.enc_embed_dim)
        self.scale_token = torch.nn.Parameter(torch.zeros(self.encoder.enc_embed_dim))
        self.info_sharing = torch.nn.Module()
        self.info_sharing.register_buffer('view_pos_table', torch.ones(1, 4))
        self.dpt_feature_head = torch.nn.Conv2d(3, 1, 1)
        self.dpt_regressor_head = torch.nn.Module()
        self.dpt_regressor_head.conv2 = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 1))
        # One module by two names, as in the real class.
        self.dense_head = torch.nn.Sequential(self.dpt_feature_head, self.dpt_regressor_head)
        if pretrained_checkpoint_path is not None:
            self.load_state_dict(
                torch.load(pretrained_checkpoint_path, weights_only=False)['model'])

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def _encode_n_views(
        self, views: list[dict[str, Any]],
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...] | None]:
        WORLD.encoded += len(views)
        images = torch.cat([view['img'] for view in views], dim=0)
        features = self.encoder(images, views[0]['data_norm_type'][0])
        return features.chunk(len(views), dim=0), None

    def _configure_geometric_input_config(
        self, use_calibration: bool, use_depth: bool, use_pose: bool, use_depth_scale: bool,
        use_pose_scale: bool,
    ) -> None:
        if not hasattr(self, '_original_geometric_config'):
            self._original_geometric_config = dict(self.geometric_input_config)
        some = use_calibration or use_depth or use_pose
        self.geometric_input_config.update({
            'overall_prob': float(some), 'dropout_prob': float(not some),
            'ray_dirs_prob': float(use_calibration), 'depth_prob': float(use_depth),
            'cam_prob': float(use_pose), 'sparse_depth_prob': 0.0,
            'depth_scale_norm_all_prob': float(some and not use_depth_scale),
            'pose_scale_norm_all_prob': float(some and not use_pose_scale)})

    def _restore_original_geometric_input_config(self) -> None:
        if hasattr(self, '_original_geometric_config'):
            self.geometric_input_config.update(self._original_geometric_config)

    def forward(
        self, views: list[dict[str, Any]], memory_efficient_inference: bool = False,
        minibatch_size: int | None = None,
    ) -> list[dict[str, torch.Tensor]]:
        _, _, height, width = views[0]['img'].shape
        WORLD.window_px = len(views) * height * width
        features, _ = self._encode_n_views(views)
        inputs = [self._used(view) for view in views]
        _check(inputs, height, width)
        self._run_head(self._fused(views, inputs, features), (height, width), minibatch_size if (
            memory_efficient_inference) else None)
        seen = [
            WORLD.recognise(feature[0].float().cpu().numpy(), 'ray_directions_cam' in view)
            for feature, view in zip(features, views, strict=True)]
        answers = [
            _look(sight, given, (width, height), index)
            for index, (sight, given) in enumerate(zip(seen, inputs, strict=True))]
        scale = self._scale(seen, inputs, answers)
        poses = self._poses(seen, inputs, scale)
        poisoned = any(
            not torch.isfinite(value).all() for given in inputs for value in given.values())
        return self._pack(answers, poses, float('nan') if poisoned else scale)

    def _fused(
        self, views: list[dict[str, Any]], inputs: list[dict[str, torch.Tensor]],
        features: Any,
    ) -> torch.Tensor:
        """Return features (V,C,h,w) with the geometric inputs that count."""
        count = len(views)
        images = torch.cat(list(features))
        some = torch.ones(count, dtype=torch.bool, device=images.device)
        config = self.geometric_input_config
        rays = self._encode_and_fuse_ray_dirs(
            views, count, 1, images, some & bool(config['ray_dirs_prob']))
        for i, given in enumerate(inputs):
            expected = images[i] + _patches(given.get('ray_directions_cam'), images[i])
            if not torch.allclose(rays[i], expected, atol=1e-4, equal_nan=True):
                raise RuntimeError(f'view {i} has the features of other rays')
        fused = self._encode_and_fuse_depths(
            views, count, 1, rays, some & bool(config['depth_prob']))
        for i, given in enumerate(inputs):
            expected = rays[i] + _patches(given.get('depth_along_ray'), images[i])
            if not torch.allclose(fused[i], expected, atol=1e-4, equal_nan=True):
                raise RuntimeError(f'view {i} has the features of other depth')
        return fused

    def _encode_and_fuse_ray_dirs(
        self, views: list[dict[str, Any]], num_views: int, batch_size_per_view: int,
        features: torch.Tensor, counts: torch.Tensor,
    ) -> torch.Tensor:
        WORLD.rays_encoded += num_views
        return _fuse(views, 'ray_directions_cam', features, counts)

    def _encode_and_fuse_depths(
        self, views: list[dict[str, Any]], num_views: int, batch_size_per_view: int,
        features: torch.Tensor, counts: torch.Tensor,
    ) -> torch.Tensor:
        WORLD.depths_encoded += num_views
        return _fuse(views, 'depth_along_ray', features, counts)

    def _run_head(
        self, features: torch.Tensor, img_shape: tuple[int, int], minibatch_size: int | None,
    ) -> None:
        for batch in features.split(minibatch_size or len(features)):
            self.downstream_dense_head([batch] * 4, img_shape)

    def downstream_dense_head(
        self, dense_head_inputs: list[torch.Tensor], img_shape: tuple[int, int],
    ) -> DenseOutput:
        assert len(dense_head_inputs) == 4, 'features of four layers'
        count = len(dense_head_inputs[0])
        if WORLD.window_px > (WORLD.batched_memory_px if count == 1 else WORLD.memory_px):
            raise torch.OutOfMemoryError('CUDA out of memory (so the fake says)')
        WORLD.head_batches.append(count)
        return DenseOutput(dense_head_inputs[0].new_zeros(count, 6, *img_shape))

    def _used(self, view: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the geometric inputs that the configuration lets through."""
        config = self.geometric_input_config
        used = {
            'ray_directions_cam': config['ray_dirs_prob'], 'depth_along_ray': config['depth_prob'],
            'camera_pose_quats': config['cam_prob'], 'camera_pose_trans': config['cam_prob']}
        return {name: view[name] for name, share in used.items() if share and name in view}

    def _scale(
        self, seen: list[Sight], inputs: list[dict[str, torch.Tensor]],
        answers: list[dict[str, np.ndarray]],
    ) -> float:
        """Return how much larger than the truth the inputs say that the world is."""
        ratios = []
        if not self.geometric_input_config['depth_scale_norm_all_prob']:
            for given, answer in zip(inputs, answers, strict=True):
                if 'depth_along_ray' in given:
                    depth = given['depth_along_ray'][0, ..., 0].double().cpu().numpy()
                    known = (depth > 0) & answer['hit']
                    ratios.append(np.median(depth[known] / answer['distance'][known]))
        if not ratios and not self.geometric_input_config['pose_scale_norm_all_prob']:
            ratios = _baseline_ratios(seen, inputs)
        return float(np.median(ratios)) if ratios else WORLD.scale_error

    def _poses(
        self, seen: list[Sight], inputs: list[dict[str, torch.Tensor]], scale: float,
    ) -> list[np.ndarray]:
        """Return the poses of the views: as they were given, and else as they are."""
        first_from_world = np.linalg.inv(seen[0].world_from_camera)
        scaled = not self.geometric_input_config['pose_scale_norm_all_prob']
        made = []
        for sight, given in zip(seen, inputs, strict=True):
            pose = first_from_world @ sight.world_from_camera
            pose[:3, 3] *= scale
            if 'camera_pose_quats' in given and 'camera_pose_quats' in inputs[0]:
                relative = np.linalg.inv(_matrix(inputs[0])) @ _matrix(given)
                pose[:3, :3] = relative[:3, :3]
                if scaled:
                    pose[:3, 3] = relative[:3, 3]
            made.append(WORLD.first_pose @ pose)
        return made

    def _pack(
        self, answers: list[dict[str, np.ndarray]], poses: list[np.ndarray], scale: float,
    ) -> list[dict[str, torch.Tensor]]:
        def tensor(values: Any) -> torch.Tensor:
            return torch.from_numpy(np.asarray(values, np.float32)).to(self.device)

        # Views are chunks of one tensor, as in the real network.
        rays = tensor([answer['rays'] for answer in answers])
        distance = tensor([scale * answer['distance'] for answer in answers])[..., None]
        rotations = np.stack([pose[:3, :3] for pose in poses])
        centres = np.stack([pose[:3, 3] for pose in poses])
        quats = Rotation.from_matrix(rotations).as_quat()
        in_camera = rays * distance
        points = in_camera @ tensor(rotations).mT[:, None] + tensor(centres)[:, None, None]
        clear = torch.from_numpy(
            np.stack([a['hit'] & a['clear'] for a in answers])).to(self.device)
        confidence = 1 + 4 / (1 + distance[..., 0])
        factor = tensor([[scale]])
        poison = factor * 0
        return [
            {
                'pts3d': points[i:i + 1] + poison, 'pts3d_cam': in_camera[i:i + 1] + poison,
                'ray_directions': rays[i:i + 1] + poison,
                'depth_along_ray': distance[i:i + 1] + poison,
                'cam_trans': tensor(centres[i:i + 1]) + poison,
                'cam_quats': tensor(quats[i:i + 1]) + poison,
                'metric_scaling_factor': factor, 'conf': confidence[i:i + 1],
                'non_ambiguous_mask': clear[i:i + 1],
                'non_ambiguous_mask_logits': clear[i:i + 1].float() * 8 - 4}
            for i in range(len(answers))]


def _patches(values: torch.Tensor | None, features: torch.Tensor) -> torch.Tensor:
    """Return the mean of values (1,H,W,C) in each patch of features (3,h,w), 0 for None."""
    if values is None:
        return torch.zeros_like(features)
    pooled = torch.nn.functional.avg_pool2d(values.permute(0, 3, 1, 2), PATCH_PX)
    return pooled[0].to(features.dtype).expand_as(features)


def _fuse(
    views: list[dict[str, Any]], name: str, features: torch.Tensor, counts: torch.Tensor,
) -> torch.Tensor:
    return torch.stack([
        feature + _patches(view.get(name) if count else None, feature)
        for view, feature, count in zip(views, features, counts.tolist(), strict=True)])


def _check(inputs: list[dict[str, torch.Tensor]], height: int, width: int) -> None:
    shapes = {
        'ray_directions_cam': (1, height, width, 3), 'depth_along_ray': (1, height, width, 1),
        'camera_pose_quats': (1, 4), 'camera_pose_trans': (1, 3)}
    for given in inputs:
        for name, value in given.items():
            if value.dtype != torch.float32:
                raise RuntimeError(f'{name} is {value.dtype}, and not what the features are')
            if tuple(value.shape) != shapes[name]:
                raise RuntimeError(f'{name} has the shape {tuple(value.shape)}')


def _look(
    sight: Sight, given: dict[str, torch.Tensor], size: tuple[int, int], seed: int,
) -> dict[str, np.ndarray]:
    """Cast the rays that were given, or the true ones, into the scene."""
    if 'ray_directions_cam' in given:
        rays = given['ray_directions_cam'][0].double().cpu().numpy()
    else:
        k = sight.intrinsics_at(size, calibrated=False)
        v, u = np.mgrid[:size[1], :size[0]]
        rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], 2)
    rays = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    pose = sight.world_from_camera
    distance = sight.cast(pose[:3, 3], rays @ pose[:3, :3].T)
    hit = np.isfinite(distance)
    random = np.random.default_rng(seed)
    errors = 1 + WORLD.noise * random.standard_normal(distance.shape)
    return {
        'rays': rays, 'hit': hit, 'distance': np.where(hit, distance, FAR) * errors,
        'clear': random.random(distance.shape) >= WORLD.ambiguous}


def _matrix(given: dict[str, torch.Tensor]) -> np.ndarray:
    made = np.eye(4)
    if all(torch.isfinite(given[f'camera_pose_{part}']).all() for part in ('quats', 'trans')):
        quats = given['camera_pose_quats'][0].double().cpu().numpy()
        made[:3, :3] = Rotation.from_quat(quats).as_matrix()
        made[:3, 3] = given['camera_pose_trans'][0].double().cpu().numpy()
    return made


def _baseline_ratios(seen: list[Sight], inputs: list[dict[str, torch.Tensor]]) -> list[float]:
    ratios = []
    for sight, given in zip(seen[1:], inputs[1:], strict=True):
        true = np.linalg.norm(sight.world_from_camera[:3, 3] - seen[0].world_from_camera[:3, 3])
        if 'camera_pose_trans' in given and 'camera_pose_trans' in inputs[0] and true > 1e-6:
            relative = np.linalg.inv(_matrix(inputs[0])) @ _matrix(given)
            ratios.append(float(np.linalg.norm(relative[:3, 3]) / true))
    return ratios
