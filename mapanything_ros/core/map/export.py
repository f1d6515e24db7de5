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

"""Writes results to files, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
import shutil
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.voxel_map import PointCloud

PLY_TYPES = {'f': 'float', 'u': 'uchar'}


def write_cloud(path: Path, cloud: PointCloud, normals: Array | None = None) -> None:
    """
    Write a coloured binary PLY or PCD, by suffix; raise ExportError where that fails.

    ``normals`` (N,3) are unit vectors. A coordinate reads back equal to the bit.
    """
    columns, header = (
        (_pcd_columns, _pcd_header) if path.suffix == '.pcd' else (_ply_columns, _ply_header))
    named = columns(cloud, normals)
    rows = np.empty(len(cloud), [
        (name, 'u1' if column.dtype == np.uint8 else '<f4') for name, column in named.items()])
    for name, column in named.items():
        rows[name] = column
    with whole(path) as part, part.open('wb') as file:
        file.write(header(rows).encode())
        file.write(rows.tobytes())


def _ply_columns(cloud: PointCloud, normals: Array | None) -> dict[str, NDArray[Any]]:
    columns = dict(zip('xyz', cloud.xyz.T, strict=True))
    if normals is not None:
        columns.update(zip(('nx', 'ny', 'nz'), normals.T, strict=True))
    return {**columns, **dict(zip(('red', 'green', 'blue'), cloud.rgb.T, strict=True))}


def _ply_header(rows: NDArray[Any]) -> str:
    properties = ''.join(
        f'property {PLY_TYPES[rows.dtype[name].kind]} {name}\n' for name in rows.dtype.names or ())
    return ('ply\nformat binary_little_endian 1.0\n'
            f'element vertex {len(rows)}\n{properties}end_header\n')


def _pcd_columns(cloud: PointCloud, normals: Array | None) -> dict[str, NDArray[Any]]:
    """Return the fields of PCL's PointXYZRGB: a colour is three bytes in the bits of a float."""
    columns = dict(zip('xyz', cloud.xyz.T, strict=True))
    packed = cloud.rgb.astype('<u4') << np.array([16, 8, 0], '<u4')
    columns['rgb'] = packed.sum(axis=1, dtype='<u4').view('<f4')
    if normals is not None:
        columns.update(zip(('normal_x', 'normal_y', 'normal_z'), normals.T, strict=True))
    return columns


def _pcd_header(rows: NDArray[Any]) -> str:
    names = rows.dtype.names or ()
    fields, each = ' '.join(names), len(names)
    return (
        f'# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS {fields}\n'
        f'SIZE{" 4" * each}\nTYPE{" F" * each}\nCOUNT{" 1" * each}\n'
        f'WIDTH {len(rows)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n'
        f'POINTS {len(rows)}\nDATA binary\n')


def to_open3d(cloud: PointCloud) -> Any:
    """Return the open3d.geometry.PointCloud of a cloud."""
    import open3d

    points = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.xyz.astype(float)))
    points.colors = open3d.utility.Vector3dVector(cloud.rgb / 255.0)
    return points


def write_tum(path: Path, poses: Iterable[tuple[int, Array]]) -> None:
    """
    Write stamps (ns) and (4,4) poses as a TUM trajectory; raise ExportError where that fails.

    A line is ``t x y z qx qy qz qw``; the seconds keep all nine decimals of the stamp.
    """
    lines = []
    for stamp_ns, pose in poses:
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        quat_xyzw = Rotation.from_matrix(pose[:3, :3]).as_quat()
        numbers = ' '.join(f'{value:.9f}' for value in np.concatenate([pose[:3, 3], quat_xyzw]))
        lines.append(f'{seconds}.{nanoseconds:09d} {numbers}\n')
    with whole(path) as part:
        part.write_text(''.join(lines))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """
    Give a temporary path; the file or folder made there takes the place of ``path`` at the end.

    Where the body fails, ``path`` stays as it was; an OSError, such as a full disk, becomes an
    ExportError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix='.', dir=path.parent))
    except OSError as error:
        raise ExportError(f'{path.parent} cannot be written to: {error.strerror}') from error
    part = hidden / path.name
    try:
        yield part
        if part.is_dir() and path.exists():
            shutil.rmtree(path)
        part.replace(path)
    except OSError as error:
        raise ExportError(f'{path} could not be written: {error.strerror}') from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
