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

"""Keyframes with all that is known about them, on disk: one in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
import json
from pathlib import Path
import shutil
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
import torch

from mapanything_ros.core.datatypes import Array, Prediction
from mapanything_ros.core.errors import ExportError, InputError
from mapanything_ros.core.estimation.similarity import rigid, scale_of

INDEX = 'index.json'
POSES = ('odom_from_camera', 'base_from_camera')


@dataclass(frozen=True, eq=False)
class KeyframeRecord:
    """
    A keyframe as it went into the map.

    ``name`` is the picture's file name, or its stamp in digits. ``rgb`` (h,w,3) uint8,
    ``intrinsics`` (3,3) in pixels of that size, ``depth_m`` (h,w) float32 along the optical axis
    with NaN where it may not be used, ``confidence`` (h,w) float32 in [0,1] and
    ``map_from_camera`` (4,4) of the camera's optical frame, ``frame_id`` in TF. Where they are
    known, ``odom_from_camera`` (4,4) is the odometry and ``base_from_camera`` (4,4) the mounting.
    """

    id: int
    stamp_ns: int
    name: str
    rgb: NDArray[np.uint8]
    intrinsics: Array
    depth_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    map_from_camera: Array
    frame_id: str = 'camera'
    odom_from_camera: Array | None = None
    base_from_camera: Array | None = None

    def prediction(self) -> Prediction:
        """Return it as a backend's prediction, on the host, in a window of its own."""
        depth_m = torch.from_numpy(self.depth_m)
        return Prediction(
            self.id, torch.from_numpy(self.rgb), depth_m.nan_to_num(),
            torch.from_numpy(self.confidence), depth_m.isfinite(), self.intrinsics, np.eye(4))


@dataclass(frozen=True, eq=False)
class _Entry:
    id: int
    stamp_ns: int
    name: str
    map_from_camera: Array
    scale: float = 1.0  # of the depth in the file


class KeyframeStore:
    """
    The keyframes of a map in a folder, a file each; only names, stamps and poses are in memory.

    Iterating reads them one by one, in order of their stamps. What was added is found by ``open``
    once ``close`` has written the index.
    """

    def __init__(self, folder: Path) -> None:
        """Start an empty store in a folder, which is made; raise ExportError if it cannot be."""
        self._folder = folder
        self._entries: dict[int, _Entry] = {}
        # The scale that the pose had when the depth was written.
        self._units: dict[int, float] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error

    @classmethod
    def open(cls, folder: Path) -> KeyframeStore:
        """Return the closed store of a folder; raise InputError where there is none."""
        try:
            entries = json.loads((folder / INDEX).read_text())
            store = cls(folder)
            for entry in entries:
                pose = np.array(entry['map_from_camera'], float).reshape(4, 4)
                store._entries[entry['id']] = _Entry(
                    entry['id'], entry['stamp_ns'], entry['name'], pose, entry['scale'])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f'{folder} holds no keyframes of a finished reconstruction: {error}') from error
        return store

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[KeyframeRecord]:
        for entry in self._in_order():
            yield self._read(entry)

    def __getitem__(self, keyframe_id: int) -> KeyframeRecord:
        return self._read(self._entries[keyframe_id])

    def ids(self) -> list[int]:
        """Return the ids in order of the stamps."""
        return [entry.id for entry in self._in_order()]

    def trajectory(self) -> list[tuple[int, Array]]:
        """Return stamps (ns), rising, and (4,4) ``map_from_camera``."""
        return [(entry.stamp_ns, entry.map_from_camera) for entry in self._in_order()]

    def add(self, record: KeyframeRecord, unit: float = 1.0) -> None:
        """
        Write a keyframe, in place of one of the same id; raise ExportError if it cannot be.

        Its depth is ``unit`` times what it was when it first came.
        """
        path = self._path(record.id)
        known = {name: pose for name in POSES if (pose := getattr(record, name)) is not None}
        try:
            np.savez_compressed(
                path, rgb=record.rgb, intrinsics=record.intrinsics, depth_m=record.depth_m,
                confidence=record.confidence, frame_id=np.array(record.frame_id), **known)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._entries[record.id] = _Entry(
            record.id, record.stamp_ns, record.name, record.map_from_camera)
        self._units[record.id] = unit

    def update_poses(self, poses: Mapping[int, Array]) -> None:
        """
        Move keyframes, by id, to where ``map_from_camera`` (4,4) says.

        Similarities: their scale is that of the depth since it first came.
        """
        for number in self._entries.keys() & poses.keys():
            pose = poses[number]
            self._entries[number] = replace(
                self._entries[number], map_from_camera=rigid(pose),
                scale=scale_of(pose) / self._units[number])

    def place(self, poses: Mapping[int, Array]) -> None:
        """Put the cameras of keyframes, by id, at rigid poses (4,4); their depth stays."""
        for number, pose in poses.items():
            self._entries[number] = replace(self._entries[number], map_from_camera=pose)

    def forget(self, numbers: Iterable[int]) -> None:
        """Remove keyframes by id; those that it does not hold are passed over."""
        for number in self._entries.keys() & set(numbers):
            del self._entries[number], self._units[number]
            self._path(number).unlink(missing_ok=True)

    def absorb(self, other: KeyframeStore) -> None:
        """Take all keyframes of another store, and remove that; raise ExportError on failure."""
        for number, entry in other._entries.items():
            try:
                other._path(number).rename(self._path(number))
            except OSError as error:
                raise _unwritable(self._path(number), error) from error
            self._entries[number], self._units[number] = entry, other._units[number]
        other.remove()

    def rescale(self, factor: float) -> None:
        """Multiply all lengths: depth, and where the cameras are in the map."""
        for entry in self._in_order():
            pose = entry.map_from_camera.copy()
            pose[:3, 3] *= factor
            self._entries[entry.id] = replace(
                entry, map_from_camera=pose, scale=entry.scale * factor)

    def move(self, folder: Path) -> None:
        """Move all files to a folder that does not exist yet; raise ExportError if that fails."""
        try:
            self._folder.rename(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._folder = folder

    def remove(self) -> None:
        """Remove all files and the folder."""
        self._entries.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Write the index; raise ExportError if it cannot be."""
        entries = [
            {'id': entry.id, 'stamp_ns': entry.stamp_ns, 'name': entry.name,
             'map_from_camera': entry.map_from_camera.tolist(), 'scale': entry.scale}
            for entry in self._in_order()]
        try:
            (self._folder / INDEX).write_text(json.dumps(entries, indent=1) + '\n')
        except OSError as error:
            raise _unwritable(self._folder / INDEX, error) from error

    def _in_order(self) -> list[_Entry]:
        return sorted(self._entries.values(), key=lambda entry: entry.stamp_ns)

    def _path(self, keyframe_id: int) -> Path:
        return self._folder / f'{keyframe_id:06d}.npz'

    def _read(self, entry: _Entry) -> KeyframeRecord:
        path = self._path(entry.id)
        try:
            with np.load(path) as arrays:
                return KeyframeRecord(
                    entry.id, entry.stamp_ns, entry.name, arrays['rgb'], arrays['intrinsics'],
                    arrays['depth_m'] * np.float32(entry.scale), arrays['confidence'],
                    entry.map_from_camera, str(arrays['frame_id']),
                    *(arrays.get(name) for name in POSES))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(f'the keyframe {path} cannot be read: {error}') from error


def _unwritable(path: Path, error: OSError) -> ExportError:
    return ExportError(f'{path} could not be written: {error.strerror}')
