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

"""Similarities: poses that stretch."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array


def scale_of(similarity: Array) -> float:
    """Return by how much a (4,4) similarity stretches."""
    return math.hypot(*similarity[:3, 0])


def stretched(similarity: Array, factor: float) -> Array:
    """Return a (4,4) similarity that stretches by ``factor`` more, before it moves."""
    return similarity @ np.diag([factor, factor, factor, 1.0])


def rigid(similarity: Array) -> Array:
    """Return where a (4,4) similarity puts a camera, without its scale."""
    return stretched(similarity, 1.0 / scale_of(similarity))


def difference(expected: Array, found: Array) -> Array:
    """
    Return what is between similarities (...,4,4): rotation vector, shift, logarithm of scale.

    (...,7), in the frame of ``expected`` and, for the shift, its unit.
    """
    between = np.linalg.inv(expected) @ found
    scale = np.linalg.norm(between[..., :3, 0], axis=-1, keepdims=True)
    turn = Rotation.from_matrix(between[..., :3, :3] / scale[..., None]).as_rotvec()
    return np.concatenate([turn, between[..., :3, 3], np.log(scale)], axis=-1)
