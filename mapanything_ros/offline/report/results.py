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

"""A finished reconstruction, read back from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore
from mapanything_ros.offline.pictures import bounds
from mapanything_ros.offline.ply import check_whole

EVALUATION = 'evaluation.json'
# What the summary must tell for the report.
NEEDED = {
    'backend', 'device', 'ended', 'images_read', 'inputs', 'keyframes_in_map', 'metric', 'notes',
    'parameters', 'scale', 'seconds', 'source', 'statistics', 'version', 'voxel_m', 'warnings',
    'windows'}


@dataclass(frozen=True, eq=False)
class Results:
    """
    What `reconstruct` has written, and what `evaluate` found where it has run.

    ``cameras`` (K,4,4) are the ``map_from_camera`` of the keyframes, optical axes, in order of
    time; ``stamps_ns`` (K,) is when. ``evaluation`` is None without truth.
    """

    folder: Path
    summary: Mapping[str, Any]
    cloud: PointCloud
    keyframes: KeyframeStore
    stamps_ns: NDArray[np.int64]
    cameras: Array
    evaluation: Mapping[str, Any] | None

    @classmethod
    def open(cls, folder: Path) -> Results:
        """Read a folder; raise InputError where it is no whole result of `reconstruct`."""
        summary = read_json(folder / 'summary.json')
        if missing := sorted(NEEDED - summary.keys()):
            raise InputError(
                f'{folder / "summary.json"} is not of reconstruct: it lacks {", ".join(missing)}')
        keyframes = KeyframeStore.open(folder / 'keyframes')
        path = keyframes.trajectory()
        if not path:
            raise InputError(f'{folder} holds no keyframes: there is nothing to show')
        evaluation = folder / EVALUATION
        return cls(
            folder, summary, read_cloud(folder / 'map.ply'), keyframes,
            np.array([stamp_ns for stamp_ns, _ in path], np.int64),
            np.stack([pose for _, pose in path]),
            read_json(evaluation) if evaluation.exists() else None)

    @property
    def unit(self) -> str:
        """Return what lengths are in."""
        return 'm' if self.summary['metric'] else 'map units'

    @property
    def spacing(self) -> float:
        """Return how far apart the points of the map are."""
        return float(self.summary['voxel_m'])

    def extent(self) -> tuple[Array, Array]:
        """Return the corners of the box that holds the path and all but stray points."""
        return bounds(self.cloud.xyz.astype(float), self.cameras[:, :3, 3])

    def path_length(self) -> float:
        """Return how far the camera went from keyframe to keyframe."""
        return float(np.linalg.norm(np.diff(self.cameras[:, :3, 3], axis=0), axis=1).sum())

    def label(self, keyframe: KeyframeRecord) -> str:
        """Return what a person calls a keyframe: its file, or the seconds since the first one."""
        if keyframe.name != str(keyframe.stamp_ns):
            return keyframe.name
        return f'{(keyframe.stamp_ns - int(self.stamps_ns[0])) * 1e-9:.1f} s'


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; raise InputError where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f'{path} cannot be read ({error}): give a folder that reconstruct has written'
        ) from error
    if not isinstance(content, dict):
        raise InputError(f'{path} holds no JSON object')
    return content


def read_cloud(path: Path) -> PointCloud:
    """Return a coloured cloud of any format of Open3D; raise InputError where there is none."""
    import open3d

    if not path.is_file():
        raise InputError(f'there is no map at {path}: give a folder that reconstruct has written')
    if path.suffix == '.ply':
        check_whole(path)
    cloud = open3d.io.read_point_cloud(path)
    points = np.asarray(cloud.points, np.float32)
    if not len(points):
        raise InputError(f'{path} holds no points')
    rgb = np.rint(np.asarray(cloud.colors) * 255).astype(np.uint8)
    return PointCloud(points, rgb if len(rgb) else np.full(points.shape, 128, np.uint8))
