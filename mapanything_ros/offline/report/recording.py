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

"""The map as a recording for Rerun's viewer: cameras, pictures, depth and points over time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import whole
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore
from mapanything_ros.offline.pictures import PATH_COLOUR

APPLICATION = 'mapanything_ros'
TIMELINE = 'stamp'
JPEG_QUALITY = 85
DRAIN_BYTES = 1 << 20
PATH_RGB = tuple(bytes.fromhex(PATH_COLOUR.removeprefix('#')))


def write_recording(
    path: Path, keyframes: KeyframeStore, cloud: PointCloud, spacing: float,
) -> None:
    """
    Write an .rrd file of a map whose points are ``spacing`` apart.

    Its timeline 'stamp' is that of the images: the map and the path are there at all times, a
    keyframe from its stamp on. Raises ExportError where rerun-sdk is not installed or the file
    cannot be written.
    """
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise ExportError('the format rrd needs rerun-sdk: pip install rerun-sdk') from error
    with whole(path) as part, _pipe_to(part) as pipe:
        recording = rerun.RecordingStream(APPLICATION)
        try:
            recording.save(pipe)
            _log_map(rerun, recording, keyframes, cloud, spacing)
            for keyframe in keyframes:
                _log_keyframe(rerun, recording, keyframe)
            recording.flush()
        finally:
            recording.disconnect()


@contextmanager
def _pipe_to(path: Path) -> Iterator[str]:
    """
    Give a path whose bytes go to a file; raise OSError at the end where that fails.

    Rerun's own thread for files now and then waits for ever where the disk is full.
    """
    source, sink = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        copied = pool.submit(_copy, source, path)
        try:
            yield f'/dev/fd/{sink}'
        finally:
            os.close(sink)
        copied.result()


def _copy(source: int, path: Path) -> None:
    """Copy a pipe to a file, to the pipe's end even where the file fails."""
    with open(source, 'rb') as pipe:
        try:
            with path.open('wb') as file:
                shutil.copyfileobj(pipe, file)
        finally:
            while pipe.read(DRAIN_BYTES):
                pass


def _log_map(
    rerun: Any, recording: Any, keyframes: KeyframeStore, cloud: PointCloud, spacing: float,
) -> None:
    path = [pose[:3, 3] for _, pose in keyframes.trajectory()]
    recording.log('map', rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    recording.log('map/points', rerun.Points3D(
        cloud.xyz, colors=cloud.rgb, radii=0.6 * spacing), static=True)
    recording.log('map/path', rerun.LineStrips3D(
        [path], colors=[PATH_RGB]), static=True)


def _log_keyframe(rerun: Any, recording: Any, keyframe: KeyframeRecord) -> None:
    recording.set_time(TIMELINE, timestamp=np.datetime64(keyframe.stamp_ns, 'ns'))
    height, width = keyframe.rgb.shape[:2]
    pose = keyframe.map_from_camera
    recording.log('map/camera', rerun.Transform3D(
        translation=pose[:3, 3], mat3x3=pose[:3, :3]))
    recording.log('map/camera/image', rerun.Pinhole(
        image_from_camera=keyframe.intrinsics, resolution=[width, height],
        camera_xyz=rerun.ViewCoordinates.RDF))
    recording.log('map/camera/image/rgb', rerun.Image(keyframe.rgb).compress(JPEG_QUALITY))
    recording.log('map/camera/image/depth', rerun.DepthImage(
        np.nan_to_num(keyframe.depth_m), meter=1.0))
    recording.log('keyframe', rerun.TextLog(f'{keyframe.id}: {keyframe.name}'))
