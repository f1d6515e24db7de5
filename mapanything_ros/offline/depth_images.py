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

"""Depth and confidence of keyframes as pictures that every tool reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mapanything_ros.core.errors import ExportError
from mapanything_ros.offline.keyframe_store import KeyframeStore

MILLIMETRES = 1000.0
LARGEST = (1 << 16) - 1


def write_depth_images(folder: Path, keyframes: KeyframeStore) -> None:
    """
    Write depth/ID.png and confidence/ID.png of all keyframes, 16 bits a pixel.

    Depth is in millimetres, 0 where it is unknown or beyond 65.535 m; confidence 65535 is 1.
    Raises ExportError.
    """
    for record in keyframes:
        depth_mm = np.nan_to_num(record.depth_m) * MILLIMETRES
        depth_mm[depth_mm > LARGEST] = 0
        name = f'{record.id:06d}.png'
        _write(folder / 'depth' / name, depth_mm)
        _write(folder / 'confidence' / name, record.confidence.clip(0, 1) * LARGEST)


def _write(path: Path, values: np.ndarray) -> None:
    data = cv2.imencode('.png', np.rint(values).astype(np.uint16))[1].tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ExportError(f'{path} could not be written: {error.strerror}') from error
