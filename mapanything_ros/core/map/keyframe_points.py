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

"""The points of one keyframe, few enough to be kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
import torch

from mapanything_ros.core.datatypes import Array, Prediction
from mapanything_ros.core.map.voxels import sum_voxels, voxel_keys, voxel_means

# What a pixel of full confidence weighs; the least is 1, as a point that all other views
# contradict still counts where nothing better is known.
FULL_WEIGHT = 256
# A voxel weighs as 255 pixels at most, however near it was seen.
MAX_WEIGHT = (1 << 16) - 1


@dataclass(frozen=True, eq=False)
class KeyframePoints:
    """
    One point a voxel of the keyframe's own grid, on the host.

    ``xyz`` (N,3) float32 metres in the camera's optical frame, ``rgb`` (N,3) uint8, ``weight``
    (N,) uint16: the confidence of its pixels, in 256ths. No point is farther from the camera
    than ``reach_m``.
    """

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    weight: NDArray[np.uint16]
    reach_m: float

    def __len__(self) -> int:
        return len(self.xyz)

    def voxel_sums(
        self, target_from_camera: Array, voxel_m: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """
        Return keys (M,) and sums (M,7) of the voxels in the target frame that hold points.

        ``target_from_camera`` (4,4) is a similarity: its scale multiplies the keyframe's depth.
        """
        key, sums = sum_voxels(
            self._placed(target_from_camera), torch.from_numpy(self.rgb),
            torch.from_numpy(self.weight.astype(np.int64)), voxel_m)
        return key.numpy(), sums.numpy()

    def within(
        self, key: NDArray[np.int64], target_from_camera: Array, voxel_m: float
    ) -> KeyframePoints:
        """Return the points in voxels of the target frame, given by their keys (M,)."""
        keys = voxel_keys(self._placed(target_from_camera), voxel_m).numpy()
        inside = np.isin(keys, key)
        return replace(
            self, xyz=self.xyz[inside], rgb=self.rgb[inside], weight=self.weight[inside])

    def _placed(self, target_from_camera: Array) -> torch.Tensor:
        x, y, z = torch.from_numpy(self.xyz).double().unbind(dim=1)
        # Element by element: the same points and pose give the same bits, always.
        return torch.stack([
            x * a + y * b + z * c + offset for a, b, c, offset in target_from_camera[:3].tolist()],
            dim=1)


def reduce_view(
    view: Prediction, voxel_m: float, radius_m: float, max_points: int
) -> KeyframePoints:
    """
    Average what the mask keeps of a view in voxels, weighted by confidence, on its device.

    Points farther than ``radius_m`` (0: no limit) are left out; of more than ``max_points`` those
    of least weight go.
    """
    xyz = view.points_in_camera()[view.mask]
    rgb, confidence = view.rgb[view.mask], view.confidence[view.mask]
    if radius_m:
        near = xyz.norm(dim=1) <= radius_m
        xyz, rgb, confidence = xyz[near], rgb[near], confidence[near]
    weight = (confidence * FULL_WEIGHT).round().clamp(1, FULL_WEIGHT).long()
    key, sums = sum_voxels(xyz, rgb, weight, voxel_m)
    if len(key) > max_points:
        heaviest = sums[:, 0].argsort(descending=True, stable=True)[:max_points].sort().values
        key, sums = key[heaviest], sums[heaviest]
    xyz, rgb = voxel_means(key, sums, voxel_m)
    # One copy to the host.
    packed = torch.empty(len(key), 5, dtype=torch.float32, device=xyz.device)
    packed[:, :3] = xyz
    whole = packed.view(torch.int32)
    red, green, blue = rgb.int().unbind(dim=1)
    whole[:, 3] = red | green << 8 | blue << 16
    whole[:, 4] = sums[:, 0].clamp(max=MAX_WEIGHT)
    return _unpacked(packed.cpu().numpy())


def _unpacked(packed: NDArray[np.float32]) -> KeyframePoints:
    xyz = packed[:, :3].copy()
    reach_m = float(np.linalg.norm(xyz, axis=1).max(initial=0.0))
    rgb = packed.view(np.uint8)[:, 12:15].copy()
    weight = packed.view(np.int32)[:, 4].astype(np.uint16)
    return KeyframePoints(xyz, rgb, weight, reach_m)
