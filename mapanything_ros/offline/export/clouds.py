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

"""Writes clouds for other programs: PCD, XYZ, LAS and LAZ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import whole
from mapanything_ros.core.map.voxel_map import PointCloud

# LAS counts in steps of this, 32 bits of them.
LAS_STEP_M = 1e-5


def write_xyz(path: Path, cloud: PointCloud, normals: Array | None = None) -> None:
    """
    Write lines of ``x y z r g b``, then ``nx ny nz`` if normals (N,3) are given.

    Coordinates read back to the bit as float32, colours are 0 to 255. Raises ExportError.
    """
    columns: list[NDArray[Any]] = [cloud.xyz, cloud.rgb]
    formats = ['%.9g'] * 3 + ['%d'] * 3
    if normals is not None:
        columns.append(normals)
        formats += ['%.6f'] * 3
    with whole(path) as part:
        np.savetxt(part, np.hstack([column.astype(np.float64) for column in columns]), formats)


def write_las(path: Path, cloud: PointCloud) -> None:
    """
    Write LAS 1.2 with colours, compressed if the suffix is .laz; raise ExportError.

    Coordinates are rounded to 0.01 mm; colours take the upper 8 of LAS's 16 bits and the lower.
    """
    try:
        import laspy
        import lazrs  # noqa: F401  laspy says nothing clear where it is missing
    except ImportError as error:
        raise ExportError(
            "LAS and LAZ need laspy: install it with pip install 'laspy[lazrs]'") from error
    header = laspy.LasHeader(point_format=2, version='1.2')
    header.scales = np.full(3, LAS_STEP_M)
    header.offsets = np.floor(cloud.xyz.min(axis=0)) if len(cloud) else np.zeros(3)
    las = laspy.LasData(header)
    try:
        las.xyz = cloud.xyz.astype(np.float64)
    except OverflowError as error:
        raise ExportError(
            f'{path}: LAS cannot hold a map of more than 21 km at 0.01 mm') from error
    las.red, las.green, las.blue = cloud.rgb.astype(np.uint16).T * 257
    with whole(path) as part:
        las.write(part)
