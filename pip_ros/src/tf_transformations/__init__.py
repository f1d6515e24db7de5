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
Transforms under the names of the classic transformations.py, on top of transforms3d.

Quaternions are (x, y, z, w); matrices are 4 x 4 and act on columns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import transforms3d
from transforms3d.affines import compose, decompose

Vector = Sequence[Any] | np.ndarray


def quaternion_matrix(quaternion: Vector) -> np.ndarray:
    x, y, z, w = quaternion
    rotation = transforms3d.quaternions.quat2mat((w, x, y, z))
    return compose(np.zeros(3), rotation, np.ones(3))


def quaternion_from_matrix(matrix: Vector) -> tuple[float, float, float, float]:
    """Return the rotation of a 4 x 4 matrix, scale and shear left out, with w >= 0."""
    w, x, y, z = transforms3d.quaternions.mat2quat(decompose(np.asarray(matrix))[1])
    return x, y, z, w
