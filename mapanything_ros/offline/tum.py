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

"""Trajectories in TUM's text format."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import Trajectory

COLUMNS = 't x y z qx qy qz qw'
# What a stamp may be, in nanoseconds.
LARGEST_NS = np.iinfo(np.int64).max


def read_tum(path: Path) -> Trajectory:
    """
    Read lines ``t x y z qx qy qz qw``, t in seconds; the stamps are exact nanoseconds.

    Empty lines and those that begin with # are passed over. Raises InputError with the line that
    is at fault.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f'{path} cannot be read as a TUM trajectory: {error}') from error
    poses: dict[int, Array] = {}
    for number, line in enumerate(lines, start=1):
        if (text := line.strip()) and not text.startswith('#'):
            try:
                stamp_ns, pose = _pose(text)
            except (ValueError, InvalidOperation, OverflowError):
                raise InputError(
                    f'line {number} of {path} is no pose, which is {COLUMNS!r}, t in seconds: '
                    f'{text[:60]!r}'
                ) from None
            if stamp_ns in poses:
                raise InputError(f'line {number} of {path} has the stamp of an earlier one')
            poses[stamp_ns] = pose
    if not poses:
        raise InputError(f'{path} holds no poses ({COLUMNS!r})')
    stamps_ns = sorted(poses)
    return Trajectory(
        np.array(stamps_ns, np.int64), np.stack([poses[stamp_ns] for stamp_ns in stamps_ns]))


def _pose(text: str) -> tuple[int, Array]:
    stamp, *numbers = text.split()
    values = np.array([float(number) for number in numbers])
    if values.shape != (7,) or not np.isfinite(values).all():
        raise ValueError(text)
    pose = np.eye(4)
    pose[:3, 3] = values[:3]
    pose[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    # Nanoseconds since 1970 do not fit a float.
    stamp_ns = int((Decimal(stamp) * 10**9).to_integral_value())
    if abs(stamp_ns) > LARGEST_NS:
        raise ValueError(text)
    return stamp_ns, pose
