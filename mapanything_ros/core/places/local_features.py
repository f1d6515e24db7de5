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

"""Points of a keyframe that can be found again in another picture of the same place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from mapanything_ros.core.datatypes import Array, Keyframe, Prediction

# The strongest points of a picture that are kept: 45 kB a keyframe.
MAX_FEATURES = 300
# Wider pictures are made smaller: finer detail is not what places are told by.
MAX_WIDTH_PX = 640


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """
    SIFT points of one picture that have a depth.

    ``pixels`` (N,2) float32 on a picture of ``size`` (width, height) with ``intrinsics`` (3,3);
    ``points_m`` (N,3) float32 in the camera's optical frame; ``descriptors`` (N,128) uint8.
    """

    pixels: NDArray[np.float32]
    points_m: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    size: tuple[int, int]
    intrinsics: Array

    def __len__(self) -> int:
        return len(self.pixels)

    def unit_descriptors(self) -> NDArray[np.float32]:
        """Return (N,128) unit rows: the roots of the shares (Arandjelovic and Zisserman 2012)."""
        values = self.descriptors.astype(np.float32)
        return np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1.0))


def extract(keyframe: Keyframe, view: Prediction) -> LocalFeatures:
    """Return the features of a keyframe where the view's mask keeps the depth."""
    gray, intrinsics = _picture(keyframe, view)
    sift = cv2.SIFT_create()  # type: ignore[attr-defined]
    keypoints = sift.detect(gray, None)
    size = (gray.shape[1], gray.shape[0])
    pixels = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2)
    rays = np.column_stack([
        (pixels - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]], np.ones(len(pixels))])
    depth_m = _depth(view, rays)
    # SIFT sorts nothing, and its own choice of the strongest knows nothing of the depth.
    strongest = np.argsort([-point.response for point in keypoints], kind='stable')
    kept = strongest[depth_m[strongest] > 0][:MAX_FEATURES]
    if not len(kept):
        nothing = np.empty((0, 2), np.float32)
        return LocalFeatures(
            nothing, np.empty((0, 3), np.float32), np.empty((0, 128), np.uint8), size, intrinsics)
    # Of these alone: describing all that a textured picture has costs as much again.
    _, descriptors = sift.compute(gray, [keypoints[index] for index in kept])
    return LocalFeatures(
        pixels[kept], (rays * depth_m[:, None])[kept].astype(np.float32),
        descriptors.astype(np.uint8), size, intrinsics)


def _picture(keyframe: Keyframe, view: Prediction) -> tuple[NDArray[Any], Array]:
    """Return a gray picture and its intrinsics: the keyframe's own, which is sharper, if known."""
    if keyframe.intrinsics is None:
        return cv2.cvtColor(view.rgb.cpu().numpy(), cv2.COLOR_RGB2GRAY), view.intrinsics
    gray = cv2.cvtColor(keyframe.rgb, cv2.COLOR_RGB2GRAY)
    intrinsics = keyframe.intrinsics.copy()
    if gray.shape[1] > MAX_WIDTH_PX:
        width, height = gray.shape[1], gray.shape[0]
        gray = cv2.resize(
            gray, (MAX_WIDTH_PX, round(height * MAX_WIDTH_PX / width)),
            interpolation=cv2.INTER_AREA)
        scale = np.array([gray.shape[1] / width, gray.shape[0] / height])
        intrinsics[:2] *= scale[:, None]
        intrinsics[:2, 2] += 0.5 * scale - 0.5
    return gray, intrinsics


def _depth(view: Prediction, rays: Array) -> NDArray[np.float32]:
    """Return the depth (N,) along rays (N,3) with z = 1; 0 where the view has none."""
    height, width = view.mask.shape
    pixels = np.rint(rays @ view.intrinsics[:2].T).astype(int)
    inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
    column, row = torch.from_numpy(np.where(inside[:, None], pixels, 0)).to(view.mask.device).T
    depth_m = torch.where(view.mask[row, column], view.depth_m[row, column], 0.0)
    return np.where(inside, depth_m.cpu().numpy(), np.float32(0))
