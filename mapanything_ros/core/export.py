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
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.voxel_map import PointCloud

# How Open3D ends a header, and the bytes of a coloured point and of a normal after that.
LAYOUTS = {'.ply': (b'end_header\n', 27, 24), '.pcd': (b'DATA binary\n', 16, 12)}
HEADER_BYTES = 4096


def write_cloud(path: Path, cloud: PointCloud, normals: Array | None = None) -> None:
    """
    Write a coloured binary PLY or PCD, by suffix; raise ExportError where that fails.

    ``normals`` (N,3) are unit vectors.
    """
    # Imported here: it takes a second, and only saving needs it.
    import open3d

    points = to_open3d(cloud)
    if normals is not None:
        points.normals = open3d.utility.Vector3dVector(normals)
    with whole(path) as part:
        written = open3d.io.write_point_cloud(part, points)
        if not (written and _holds(part, len(cloud), normals is not None)):
            raise ExportError(f'{path} could not be written whole: the disk may be full')


def _holds(path: Path, points: int, with_normals: bool) -> bool:
    """Say whether a file has bytes for all points; Open3D does not notice where they end."""
    header_end, point_bytes, normal_bytes = LAYOUTS[path.suffix]
    with path.open('rb') as file:
        start = file.read(HEADER_BYTES).find(header_end) + len(header_end)
    return path.stat().st_size - start == points * (point_bytes + with_normals * normal_bytes)


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
