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

"""Points in the layout of a PointCloud2, made on the device that the prediction lies on."""

from __future__ import annotations

import numpy as np
import torch

from mapanything_ros.core.datatypes import Array, Prediction
from mapanything_ros.core.map.voxel_map import PointCloud

# Where the colours lie in the 16 bytes of a point: a little-endian integer after three floats.
RED_GREEN_BLUE_BYTES = [14, 13, 12]


def pack_points(view: Prediction, target_from_camera: Array | None = None) -> torch.Tensor:
    """
    Return (N,4) float32 of the pixels that the mask keeps, row by row: x, y, z and PCL's rgb.

    Points are in metres in the target frame; without one in the camera's own, equal to the bit to
    what depth_image_proc makes of the depth image. The bits of the last number are those of the
    integer ``r << 16 | g << 8 | b``; it must be copied, never computed with.
    """
    row, column = view.mask.nonzero(as_tuple=True)
    depth_m = view.depth_m[row, column]
    u, v = column.float(), row.float()
    packed = depth_m.new_empty(len(row), 4)
    if target_from_camera is None:
        k = view.intrinsics
        packed[:, 0] = (u - float(k[0, 2])) * depth_m * float(1 / k[0, 0])
        packed[:, 1] = (v - float(k[1, 2])) * depth_m * float(1 / k[1, 1])
        packed[:, 2] = depth_m
    else:
        # A pixel's ray, turned into the target frame.
        ray = target_from_camera[:3, :3] @ np.linalg.inv(view.intrinsics)
        for axis in range(3):
            du, dv, rest = (float(number) for number in ray[axis])
            direction = torch.add(u * du + rest, v, alpha=dv)
            offset = float(target_from_camera[axis, 3])
            torch.addcmul(
                depth_m.new_tensor(offset), depth_m, direction, out=packed[:, axis])
    red, green, blue = view.rgb[row, column].int().unbind(dim=1)
    packed.view(torch.int32)[:, 3] = red << 16 | green << 8 | blue
    return packed


def pack_cloud(cloud: PointCloud) -> torch.Tensor:
    """Return a cloud in the layout of ``pack_points``, on the host."""
    packed = np.empty((len(cloud), 4), np.float32)
    packed[:, :3] = cloud.xyz
    red, green, blue = cloud.rgb.astype(np.uint32).T
    packed.view(np.uint32)[:, 3] = red << 16 | green << 8 | blue
    return torch.from_numpy(packed)


def unpack(packed: torch.Tensor) -> PointCloud:
    """Return what ``pack_points`` made as a cloud on the host."""
    rows = packed.cpu().numpy()
    return PointCloud(
        rows[:, :3], np.ascontiguousarray(rows.view(np.uint8)[:, RED_GREEN_BLUE_BYTES]))
