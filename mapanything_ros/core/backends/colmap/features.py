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

"""SIFT features of keyframes, kept for keyframes that come again, and their matches."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from types import ModuleType

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from mapanything_ros.core.datatypes import Array, Keyframe

# A match must be this much closer than the second best (Lowe's ratio).
RATIO = 0.8
# Windows overlap by half at most times: this covers several of them.
CACHED_IMAGES = 64


@dataclass(frozen=True, eq=False)
class Features:
    """``pixels`` (N,2), centres at +0.5 as COLMAP has them; ``descriptors`` (N,128) unit rows."""

    pixels: Array
    descriptors: NDArray[np.float32]


class FeatureExtractor:
    """Extracts features once per keyframe id; the oldest are forgotten first."""

    def __init__(self, pycolmap: ModuleType, max_features: int) -> None:
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu = False
        options.num_threads = 1
        options.sift.max_num_features = max_features
        self._pycolmap = pycolmap
        self._sift = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
        self._cache: OrderedDict[int, Features] = OrderedDict()

    def features(self, keyframe: Keyframe) -> Features:
        """Return the features of a keyframe's full-size image."""
        if keyframe.id not in self._cache:
            self._cache[keyframe.id] = self._extract(keyframe.rgb)
        self._cache.move_to_end(keyframe.id)
        while len(self._cache) > CACHED_IMAGES:
            self._cache.popitem(last=False)
        return self._cache[keyframe.id]

    def _extract(self, rgb: NDArray[np.uint8]) -> Features:
        keypoints, descriptors = self._sift.extract_from_uint8_array(
            cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        pixels = self._pycolmap.keypoints_to_matrix(keypoints)[:, :2].astype(np.float64)
        values = descriptors.data.astype(np.float32)
        length = np.linalg.norm(values, axis=1, keepdims=True)
        return Features(pixels, values / np.maximum(length, 1e-6))


def match(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Match unit descriptors (N,128) and (M,128); return mutual, distinct pairs (K,2)."""
    if len(first) < 2 or len(second) < 2:
        return np.empty((0, 2), np.uint32)
    # Torch, because OpenBLAS spins on cores that others use, and then takes 20 times as long.
    similarity = (torch.from_numpy(first) @ torch.from_numpy(second).T).numpy()
    forward = similarity.argmax(axis=1)
    backward = similarity.argmax(axis=0)
    rows = np.arange(len(first))
    best = similarity[rows, forward]
    similarity[rows, forward] = -1.0
    next_best = similarity.max(axis=1)
    # Squared distances of unit vectors are 2 - 2 cos.
    keep = (backward[forward] == rows) & (1.0 - best < RATIO ** 2 * (1.0 - next_best))
    return np.stack([rows[keep], forward[keep]], axis=1).astype(np.uint32)
