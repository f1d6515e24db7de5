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
Rigid transforms as plain tuples: for single poses these are several times faster than numpy.

A quaternion is (x, y, z, w), a vector (x, y, z).
"""

import math
from typing import NamedTuple

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Rigid(NamedTuple):
    """A rotation of unit length, then a translation in metres."""

    quat_xyzw: Quaternion
    translation_m: Vector


IDENTITY = Rigid((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by + ay * bw + az * bx - ax * bz,
        aw * bz + az * bw + ax * by - ay * bx,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def rotate(quat: Quaternion, vector: Vector) -> Vector:
    x, y, z, w = quat
    vx, vy, vz = vector
    tx, ty, tz = 2 * (y * vz - z * vy), 2 * (z * vx - x * vz), 2 * (x * vy - y * vx)
    return (
        vx + w * tx + y * tz - z * ty,
        vy + w * ty + z * tx - x * tz,
        vz + w * tz + x * ty - y * tx,
    )


def compose(a: Rigid, b: Rigid) -> Rigid:
    """Return the transform that applies `b`, then `a`."""
    rx, ry, rz = rotate(a.quat_xyzw, b.translation_m)
    tx, ty, tz = a.translation_m
    return Rigid(multiply(a.quat_xyzw, b.quat_xyzw), (rx + tx, ry + ty, rz + tz))


def invert(transform: Rigid) -> Rigid:
    x, y, z, w = transform.quat_xyzw
    inverse = (-x, -y, -z, w)
    tx, ty, tz = rotate(inverse, transform.translation_m)
    return Rigid(inverse, (-tx, -ty, -tz))


def canonical(quat: Quaternion) -> Quaternion:
    """
    Normalise a quaternion and choose its sign as a rotation matrix would give it back.

    The original keeps rotations as matrices, so its quaternions come out with a positive w, or
    with a positive largest component where w is below one half. NaN where the length is zero.
    """
    length = math.sqrt(sum(part * part for part in quat))
    if length == 0.0 or not math.isfinite(length):
        return (math.nan,) * 4
    x, y, z, w = (part / length for part in quat)
    if 4 * w * w > 1:
        leading = w
    else:
        leading = max((x, y, z), key=abs)
    return (-x, -y, -z, -w) if leading < 0 else (x, y, z, w)


def interpolate(a: Rigid, b: Rigid, ratio: float) -> Rigid:
    """Interpolate from `a` (0) to `b` (1): linear in position, the shorter arc in rotation."""
    translation = tuple(
        p + (q - p) * ratio for p, q in zip(a.translation_m, b.translation_m, strict=True)
    )
    return Rigid(_slerp(a.quat_xyzw, b.quat_xyzw, ratio), translation)  # type: ignore[arg-type]


def _slerp(a: Quaternion, b: Quaternion, ratio: float) -> Quaternion:
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    theta = math.acos(min(abs(dot), 1.0))
    if theta == 0.0:
        return a
    weight_a = math.sin((1.0 - ratio) * theta) / math.sin(theta)
    weight_b = math.copysign(math.sin(ratio * theta) / math.sin(theta), dot)
    return tuple(  # type: ignore[return-value]
        weight_a * p + weight_b * q for p, q in zip(a, b, strict=True)
    )
