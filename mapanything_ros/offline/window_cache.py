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

"""What a backend made of windows, on disk, so that a run that was cut off need not do it again."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import ExportError

TENSORS = ('rgb', 'depth_m', 'confidence', 'mask', 'descriptor')


class CachedBackend:
    """
    A backend that is asked once for each window.

    The folder must be of the same recording and parameters: a window is known by its keyframes'
    ids and stamps. What comes from the folder equals what the backend said to the bit. A window
    that failed is tried again. Backends remember what they found out about keyframes; where a
    window that must be done shares keyframes with windows from the folder, the backend does
    those again first, so that its answer is that of a run that nothing cut off.
    """

    def __init__(self, backend: Backend, folder: Path, device: torch.device) -> None:
        """Use a folder, which is made; raise ExportError where it cannot be."""
        self.name = backend.name
        self._reused = 0
        self._backend = backend
        self._folder = folder
        self._device = device
        # Windows that came from the folder and that the next one may share keyframes with.
        self._skipped: list[Sequence[Keyframe]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExportError(f'{folder} could not be made: {error.strerror}') from error

    def prepare(self, keyframe: Keyframe) -> Keyframe:
        """Do what the backend does."""
        return self._backend.prepare(keyframe)

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """Reconstruct a window; see Backend. Raises ExportError where it cannot be kept."""
        first, last = keyframes[0], keyframes[-1]
        path = self._folder / f'{first.id}-{last.id}-{len(keyframes)}-{last.stamp_ns}.npz'
        known = self._read(path)
        if known is not None:
            self._reused += 1
            self._skipped = [*_sharing(self._skipped, keyframes), keyframes]
            return known
        for skipped in _sharing(self._skipped, keyframes):
            self._backend.infer(skipped)
        self._skipped = []
        prediction = self._backend.infer(keyframes)
        self._write(path, prediction)
        return prediction

    def statistics(self) -> dict[str, object]:
        """Return what the backend says about itself, and how many windows it did not do."""
        return {**self._backend.statistics(), 'windows_reused': self._reused}

    def _write(self, path: Path, prediction: WindowPrediction) -> None:
        scale = prediction.scale
        arrays: dict[str, Any] = {
            'ids': np.array([view.keyframe_id for view in prediction.views]),
            'scale_source': np.array(scale.source),
            'scale': np.array([scale.factor, scale.residual])}
        for view in prediction.views:
            for name in TENSORS:
                value = getattr(view, name)
                if value is not None:
                    arrays[f'{view.keyframe_id}_{name}'] = value.cpu().numpy()
            arrays[f'{view.keyframe_id}_intrinsics'] = view.intrinsics
            arrays[f'{view.keyframe_id}_pose'] = view.world_from_camera
        # What has the right name is whole.
        part = path.with_name('part.npz')
        try:
            np.savez(part, **arrays)
            os.replace(part, path)
        except OSError as error:
            raise ExportError(f'{path} could not be written: {error.strerror}') from error
        finally:
            part.unlink(missing_ok=True)

    def _read(self, path: Path) -> WindowPrediction | None:
        if not path.exists():
            return None
        try:
            with np.load(path) as arrays:
                views = tuple(self._view(arrays, int(number)) for number in arrays['ids'])
                factor, residual = arrays['scale'].tolist()
                return WindowPrediction(
                    views, Scale(str(arrays['scale_source']), factor, residual))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            # Damaged: to be had again at the cost of the window.
            return None

    def _view(self, arrays: np.lib.npyio.NpzFile, number: int) -> Prediction:
        tensors = {
            name: torch.from_numpy(arrays[f'{number}_{name}']).to(self._device)
            for name in TENSORS if f'{number}_{name}' in arrays}
        return Prediction(
            keyframe_id=number, intrinsics=arrays[f'{number}_intrinsics'],
            world_from_camera=arrays[f'{number}_pose'], **tensors)


def _sharing(
    windows: Sequence[Sequence[Keyframe]], keyframes: Sequence[Keyframe],
) -> list[Sequence[Keyframe]]:
    """Return the windows that have a keyframe in common with another."""
    ids = {keyframe.id for keyframe in keyframes}
    return [window for window in windows if ids & {keyframe.id for keyframe in window}]
