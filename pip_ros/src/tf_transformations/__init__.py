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

Quaternions are (x, y, z, w); matrices are 4 x 4 and act on columns; angles are in radians.
"""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import transforms3d
from transforms3d.affines import compose, decompose

Quaternion = tuple[float, float, float, float]
Vector = Sequence[Any] | np.ndarray
_EPS = np.finfo(float).eps * 4.0


def identity_matrix() -> np.ndarray:
    return np.eye(4)


def translation_matrix(direction: Vector) -> np.ndarray:
    return compose(direction, np.eye(3), np.ones(3))


def translation_from_matrix(matrix: Vector) -> np.ndarray:
    return decompose(np.asarray(matrix))[0]


def rotation_matrix(angle: float, direction: Vector, point: Any = None) -> np.ndarray:
    """Return the rotation by an angle about an axis through a point, else the origin."""
    return transforms3d.axangles.axangle2aff(direction, angle, point=point)


def rotation_from_matrix(matrix: Vector) -> tuple[float, np.ndarray, np.ndarray]:
    """Return angle, axis and a point on the axis."""
    direction, angle, point = transforms3d.axangles.aff2axangle(np.asarray(matrix))
    return angle, direction, point


def scale_matrix(factor: float, origin: Any = None, direction: Any = None) -> np.ndarray:
    """Return the scaling by a factor about an origin, in one direction or in all."""
    return transforms3d.zooms.zfdir2aff(factor, direction=direction, origin=origin)


def scale_from_matrix(matrix: Vector) -> tuple[float, np.ndarray, Any]:
    """Return factor, origin and direction."""
    factor, direction, origin = transforms3d.zooms.aff2zfdir(np.asarray(matrix))
    return factor, origin, direction


def compose_matrix(
    scale: Any = None,
    shear: Any = None,
    angles: Vector | None = None,
    translate: Any = None,
    perspective: Any = None,
) -> np.ndarray:
    """Return the matrix of scale, then shear, then static xyz angles, then translation."""
    rotation = np.eye(3) if angles is None else transforms3d.euler.euler2mat(*angles)
    return compose(
        np.zeros(3) if translate is None else translate,
        rotation,
        np.ones(3) if scale is None else scale,
        np.zeros(3) if shear is None else shear,
    )


def decompose_matrix(matrix: Vector) -> tuple[Any, Any, Any, Any, None]:
    """Return scale, shear, static xyz angles, translation, and None for the perspective."""
    translation, rotation, scale, shear = decompose(np.asarray(matrix))
    return scale, shear, euler_from_matrix(rotation), translation, None


def euler_matrix(ai: float, aj: float, ak: float, axes: str = 'sxyz') -> np.ndarray:
    return compose(np.zeros(3), transforms3d.euler.euler2mat(ai, aj, ak, axes=axes), np.ones(3))


def euler_from_matrix(matrix: Vector, axes: str = 'sxyz') -> tuple[float, float, float]:
    return transforms3d.euler.mat2euler(np.asarray(matrix), axes=axes)


def euler_from_quaternion(
    quaternion: Vector, axes: str = 'sxyz'
) -> tuple[float, float, float]:
    return euler_from_matrix(quaternion_matrix(quaternion), axes)


def quaternion_from_euler(ai: float, aj: float, ak: float, axes: str = 'sxyz') -> Quaternion:
    return _xyzw(transforms3d.euler.euler2quat(ai, aj, ak, axes=axes))


def quaternion_about_axis(angle: float, axis: Vector) -> Quaternion:
    return _xyzw(transforms3d.quaternions.axangle2quat(axis, angle))


def quaternion_matrix(quaternion: Vector) -> np.ndarray:
    rotation = transforms3d.quaternions.quat2mat(_wxyz(quaternion))
    return compose(np.zeros(3), rotation, np.ones(3))


def quaternion_from_matrix(matrix: Vector) -> Quaternion:
    """Return the rotation of a 4 x 4 matrix, scale and shear left out, with w >= 0."""
    return _xyzw(transforms3d.quaternions.mat2quat(decompose(np.asarray(matrix))[1]))


def quaternion_multiply(
    quaternion1: Vector, quaternion0: Vector
) -> Quaternion:
    """Return the rotation by `quaternion0`, then by `quaternion1`."""
    return _xyzw(transforms3d.quaternions.qmult(_wxyz(quaternion1), _wxyz(quaternion0)))


def quaternion_conjugate(quaternion: Vector) -> np.ndarray:
    return np.asarray(quaternion, dtype=float) * (-1.0, -1.0, -1.0, 1.0)


def quaternion_inverse(quaternion: Vector) -> np.ndarray:
    return quaternion_conjugate(quaternion) / np.dot(quaternion, quaternion)


def quaternion_slerp(
    quat0: Vector,
    quat1: Vector,
    fraction: float,
    spin: int = 0,
    shortestpath: bool = True,
) -> np.ndarray:
    """Interpolate from `quat0` (0) to `quat1` (1) along the arc, with `spin` half turns more."""
    start, end = unit_vector(quat0[:4]), unit_vector(quat1[:4])
    if fraction == 1.0:
        return end
    cosine = float(np.dot(start, end))
    if fraction == 0.0 or abs(abs(cosine) - 1.0) < _EPS:
        return start
    if shortestpath and cosine < 0.0:
        cosine, end = -cosine, -end
    angle = math.acos(cosine) + spin * math.pi
    if abs(angle) < _EPS:
        return start
    weights = math.sin((1.0 - fraction) * angle), math.sin(fraction * angle)
    return (weights[0] * start + weights[1] * end) / math.sin(angle)


def random_quaternion(rand: Vector | None = None) -> np.ndarray:
    """Return a uniformly random rotation; `rand` are three numbers in [0, 1)."""
    first, second, third = np.random.default_rng().random(3) if rand is None else rand
    a, b = 2 * math.pi * second, 2 * math.pi * third
    near, far = math.sqrt(1.0 - first), math.sqrt(first)
    return np.array(
        (math.sin(a) * near, math.cos(a) * near, math.sin(b) * far, math.cos(b) * far)
    )


def random_rotation_matrix(rand: Vector | None = None) -> np.ndarray:
    return quaternion_matrix(random_quaternion(rand))


def vector_norm(data: Vector, axis: int | None = None) -> Any:
    """Return the length of a vector, or of each vector along an axis."""
    values = np.asarray(data, dtype=float)
    if values.ndim == 1:
        return math.sqrt(np.dot(values, values))
    return np.atleast_1d(np.sqrt(np.sum(values * values, axis=axis)))


def unit_vector(data: Vector, axis: int | None = None) -> np.ndarray:
    """Return a vector, or each vector along an axis, with the length one."""
    values = np.asarray(data, dtype=float)
    length = np.sqrt(np.sum(values * values, axis=axis, keepdims=axis is not None))
    return values / length


def inverse_matrix(matrix: Vector) -> np.ndarray:
    return np.linalg.inv(matrix)


def concatenate_matrices(*matrices: Vector) -> np.ndarray:
    """Return the product of matrices; the last one acts first."""
    product = np.eye(4)
    for matrix in matrices:
        product = product @ np.asarray(matrix)
    return product


def is_same_transform(matrix0: Vector, matrix1: Vector) -> bool:
    first, second = np.asarray(matrix0, dtype=float), np.asarray(matrix1, dtype=float)
    return bool(np.allclose(first / first[3, 3], second / second[3, 3]))


def _wxyz(quaternion: Vector) -> Quaternion:
    x, y, z, w = quaternion
    return w, x, y, z


def _xyzw(quaternion: Vector) -> Quaternion:
    w, x, y, z = quaternion
    return x, y, z, w
