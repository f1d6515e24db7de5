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

"""A COLMAP model of a finished map, which COLMAP opens and Gaussian splatting starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mapanything_ros.core.backends.colmap.structure_from_motion import load_pycolmap
from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import whole
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.export.tracks import find_tracks, Track
from mapanything_ros.offline.export.views import inverse
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore

# Points of the cloud that go into the model.
MAX_POINTS = 200_000
# COLMAP's pixel centres are at halves.
HALF_PX = 0.5
# How COLMAP writes the error of a point that no image measures.
UNKNOWN = -1.0


def write_colmap(folder: Path, keyframes: KeyframeStore, cloud: PointCloud) -> None:
    """
    Write images, and a model of them in ``sparse/0`` (binary) and ``text``; raise ExportError.

    The world is the map. Images are the keyframes' pictures as PNG, each with its pinhole camera.
    Points are corners that keyframes see, with tracks that were measured in the pictures, and
    then up to 200,000 points of the cloud, evenly spread, without tracks: COLMAP's window hides
    those until its least track length is set to 0.
    """
    pycolmap = load_pycolmap('the format colmap')
    with whole(folder) as part:
        images, model = part / 'images', pycolmap.Reconstruction()
        images.mkdir(parents=True)
        tracks = find_tracks(keyframes)
        _add_images(pycolmap, model, images, keyframes, _observations(tracks))
        _add_points(pycolmap, model, tracks, cloud)
        model.update_point_3d_errors()
        for point in model.points3D.values():
            if not point.track.length():
                point.error = UNKNOWN
        for name, write in (('sparse/0', model.write_binary), ('text', model.write_text)):
            (part / name).mkdir(parents=True)
            write(str(part / name))
            _check(pycolmap, part / name, model)


def _check(pycolmap: Any, folder: Path, model: Any) -> None:
    """Read a model back; COLMAP does not notice where a file was cut off."""
    points = folder / 'points3D.bin'
    try:
        if points.exists() and points.stat().st_size != _points_size(model):
            # Reading it, pycolmap would take what lies behind the end for lengths of tracks:
            # minutes, and all memory.
            raise EOFError(points)
        read = pycolmap.Reconstruction(str(folder))
        same = (read.num_reg_images(), read.num_points3D(), read.compute_num_observations()) == (
            model.num_reg_images(), model.num_points3D(), model.compute_num_observations())
    except Exception as error:  # whatever a part of a file looks like
        raise ExportError(f'{folder} could not be written whole: the disk may be full') from error
    if not same:
        raise ExportError(f'{folder} could not be written whole: the disk may be full')


def _points_size(model: Any) -> int:
    """Return the bytes of ``points3D.bin``: number; id, xyz, rgb, error and track of each."""
    return (8 + (8 + 24 + 3 + 8 + 8) * model.num_points3D()
            + 8 * model.compute_num_observations())


def _observations(tracks: list[Track]) -> dict[int, list[Array]]:
    """Return all pixels of each keyframe, by id, in order of the tracks."""
    pixels: dict[int, list[Array]] = {}
    for track in tracks:
        for keyframe_id, pixel in track.pixels:
            pixels.setdefault(keyframe_id, []).append(pixel)
    return pixels


def _add_images(
    pycolmap: Any, model: Any, folder: Path, keyframes: KeyframeStore,
    pixels: dict[int, list[Array]],
) -> None:
    cameras: dict[tuple[float, ...], int] = {}
    for record in keyframes:
        name = f'{record.id:06d}.png'
        picture = cv2.imencode('.png', cv2.cvtColor(record.rgb, cv2.COLOR_RGB2BGR))[1]
        (folder / name).write_bytes(picture.tobytes())
        seen = np.reshape(pixels.get(record.id, []), (-1, 2)) + HALF_PX
        image = pycolmap.Image(
            name=name, keypoints=seen, camera_id=_camera(pycolmap, model, cameras, record),
            image_id=_image_id(record.id))
        pose = inverse(record.map_from_camera)[:3]
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))


def _camera(
    pycolmap: Any, model: Any, cameras: dict[tuple[float, ...], int], record: KeyframeRecord,
) -> int:
    """Return the id of the camera that took a keyframe; equal ones are one."""
    height, width = record.rgb.shape[:2]
    k = record.intrinsics
    numbers = [k[0, 0], k[1, 1], k[0, 2] + HALF_PX, k[1, 2] + HALF_PX]
    key = (float(width), float(height), *map(float, numbers))
    if key not in cameras:
        cameras[key] = len(cameras) + 1
        model.add_camera_with_trivial_rig(pycolmap.Camera(
            model='PINHOLE', width=width, height=height, params=numbers,
            camera_id=cameras[key]))
    return cameras[key]


def _add_points(pycolmap: Any, model: Any, tracks: list[Track], cloud: PointCloud) -> None:
    used: dict[int, int] = {}
    for track in tracks:
        elements = []
        for keyframe_id, _ in track.pixels:
            index = used.get(keyframe_id, 0)
            used[keyframe_id] = index + 1
            elements.append(pycolmap.TrackElement(_image_id(keyframe_id), index))
        model.add_point3D(track.point, pycolmap.Track(elements), track.rgb)
    spread = np.linspace(0, len(cloud) - 1, min(len(cloud), MAX_POINTS)).astype(np.int64)
    for point, rgb in zip(cloud.xyz[spread].astype(np.float64), cloud.rgb[spread], strict=True):
        model.add_point3D(point, pycolmap.Track(), rgb)


def _image_id(keyframe_id: int) -> int:
    """Return COLMAP's id, which may not be 0."""
    return keyframe_id + 1
