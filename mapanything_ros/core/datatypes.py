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

"""
The values that flow through the pipeline.

Transforms are (4,4) float64 numpy arrays named ``target_from_source``. Camera frames are optical
frames (REP-103: x right, y down, z forward). A pixel's centre has integer coordinates, as in
OpenCV and ROS. Depth is measured along the optical axis (z), in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """
    A camera image that may become a keyframe, not decoded yet.

    ``gray()`` gives a small (h,w) uint8 picture for the selector; ``keyframe(id)`` decodes, and
    rectifies, everything. ``odom_from_camera`` is (4,4), or None without odometry.
    ``up_in_camera()`` is asked until a map has begun; see Keyframe.
    """

    stamp_ns: int
    gray: Callable[[], NDArray[np.uint8]]
    keyframe: Callable[[int], Keyframe]
    odom_from_camera: Array | None = None
    up_in_camera: Callable[[], Array | None] = lambda: None


@dataclass(frozen=True, eq=False)
class Keyframe:
    """
    A rectified image and what is known about it.

    ``rgb`` (H,W,3) uint8; ``intrinsics`` (3,3) pixels; ``depth_m`` (H,W) float32 with 0 where
    invalid, registered to the image; ``odom_from_camera`` (4,4) from odometry;
    ``base_from_camera`` (4,4), how the camera is mounted; ``up_in_camera`` (3,), the unit vector
    against gravity, where that was measured at this time. ``id`` is unique in a run and rises.
    ``odom_variance`` (2,), where odometry says how uncertain it is: the variance of all its steps
    until then, of the heading (rad^2) and of a horizontal direction (m^2). ``prepared`` is what
    the backend made of it when it came, and for the backend alone.
    """

    id: int
    stamp_ns: int
    frame_id: str
    rgb: NDArray[np.uint8]
    intrinsics: Array | None = None
    depth_m: NDArray[np.float32] | None = None
    odom_from_camera: Array | None = None
    base_from_camera: Array | None = None
    up_in_camera: Array | None = None
    odom_variance: Array | None = None
    prepared: object = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """
    What a backend says about one keyframe, at the backend's own image size.

    Tensors share one device: ``rgb`` (H,W,3) uint8, ``depth_m`` (H,W) float32, ``confidence``
    (H,W) float32 in [0,1], ``mask`` (H,W) bool, True where the depth may be used (elsewhere depth
    means nothing). ``intrinsics`` (3,3) and ``world_from_camera`` (4,4) are float64 on the host;
    the window's world is the camera frame of its first view. ``descriptor`` (D,) float32 is alike
    for images of the same place, None where the backend has none.
    """

    keyframe_id: int
    rgb: torch.Tensor
    depth_m: torch.Tensor
    confidence: torch.Tensor
    mask: torch.Tensor
    intrinsics: Array
    world_from_camera: Array
    descriptor: torch.Tensor | None = None

    def to(self, device: torch.device) -> Prediction:
        """Return the same with its tensors on another device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)}
        return replace(self, **tensors)

    def points_in_camera(self) -> torch.Tensor:
        """Return the (H,W,3) float32 points of all pixels in the camera's optical frame."""
        height, width = self.depth_m.shape
        device = self.depth_m.device
        k = self.intrinsics
        x = (torch.arange(width, device=device, dtype=torch.float32) - k[0, 2]) / k[0, 0]
        y = (torch.arange(height, device=device, dtype=torch.float32) - k[1, 2]) / k[1, 1]
        rays = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None], x.new_ones(1)), dim=-1)
        return rays * self.depth_m[..., None]


@dataclass(frozen=True)
class Scale:
    """
    How a window got its metric scale.

    ``source`` is 'odometry', 'depth', 'model', 'map' (from windows placed before) or 'none' (not
    metric). ``factor`` multiplied the backend's own geometry; ``residual`` is the relative spread
    (median absolute deviation) of the evidence, nan where there is none.
    """

    source: str
    factor: float = 1.0
    residual: float = float('nan')

    @property
    def metric(self) -> bool:
        """Say whether the window's lengths are metres."""
        return self.source != 'none'


@dataclass(frozen=True, eq=False)
class WindowPrediction:
    """The views that a backend could reconstruct, by rising keyframe id, and their scale."""

    views: tuple[Prediction, ...]
    scale: Scale


@dataclass(frozen=True, eq=False)
class Submap:
    """
    A window's predictions placed in the map.

    ``poses`` are ``map_from_camera`` (4,4) of the views by keyframe id, rigid: any change of scale
    is already in the predictions. ``residual_m`` is how far the window has its cameras from there,
    rms, ``inliers`` the share of its views that was kept; ``new_ids`` are the keyframes that no
    window placed before, ``gone`` those that were placed and are contradicted now.
    ``new_segment`` says that nothing ties the window to what was placed before; ``moved`` that it
    closed a loop, which moved earlier keyframes; ``warning`` is what the user should know, or
    empty. ``covariances`` (6,6) are those of the new keyframes' poses, by id, in the order of
    geometry_msgs/PoseWithCovariance: metres along the map's axes, then radians about them.
    """

    views: tuple[Prediction, ...]
    scale: Scale
    poses: Mapping[int, Array]
    residual_m: float = 0.0
    new_ids: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
    new_segment: bool = False
    moved: bool = False
    inliers: float = 1.0
    warning: str = ''
    covariances: Mapping[int, Array] = field(default_factory=dict)

    def map_from_camera(self, view: Prediction) -> Array:
        """Return the (4,4) pose of a view of this window in the map frame."""
        return self.poses[view.keyframe_id]
