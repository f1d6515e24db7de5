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

"""Keyframes as small pictures: what the camera saw, and the depth that went into the map."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.offline.report.results import Results

PICTURES = 24
WIDTH_PX = 220
JPEG_QUALITY = 80
GREY = 170


@dataclass(frozen=True)
class Thumbnail:
    """A keyframe in the page; the pictures are data URIs, ``kept`` the share with a depth."""

    label: str
    picture: str
    depth: str
    width: int
    height: int
    kept: float


@dataclass(frozen=True)
class Strip:
    """Keyframes evenly over the path; depth is coloured from ``near`` to ``far``."""

    thumbnails: tuple[Thumbnail, ...]
    near: float
    far: float
    scale: str  # a data URI of the colours


class _Small(NamedTuple):
    label: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    kept: float


def strip(results: Results) -> Strip:
    """Return the strip; the keyframes are read one by one."""
    ids = results.keyframes.ids()
    chosen = np.unique(np.linspace(0, len(ids) - 1, PICTURES).round().astype(int))
    small = [_small(results, ids[i]) for i in chosen]
    known = np.concatenate([one.depth[np.isfinite(one.depth)] for one in small])
    near, far = np.percentile(known, (1, 99)).tolist() if len(known) else (0.0, 1.0)
    return Strip(
        tuple(
            Thumbnail(
                one.label, _jpeg(one.rgb), _jpeg(_coloured(one.depth, near, far)),
                one.rgb.shape[1], one.rgb.shape[0], one.kept)
            for one in small),
        near, far, _jpeg(_turbo(np.tile(np.linspace(0, 1, 128), (8, 1)))))


def _small(results: Results, keyframe_id: int) -> _Small:
    keyframe = results.keyframes[keyframe_id]
    height, width = keyframe.rgb.shape[:2]
    shrink = WIDTH_PX / max(width, height)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    rgb = cv2.resize(keyframe.rgb, size, interpolation=cv2.INTER_AREA)
    # No mean of two depths: between them there may be nothing.
    depth = cv2.resize(keyframe.depth_m, size, interpolation=cv2.INTER_NEAREST)
    return _Small(
        results.label(keyframe), rgb, depth,  # type: ignore[arg-type]
        float(np.isfinite(keyframe.depth_m).mean()))


def _coloured(depth: NDArray[np.float32], near: float, far: float) -> NDArray[np.uint8]:
    known = np.isfinite(depth)
    share = (np.where(known, depth, near) - near) / max(far - near, 1e-9)
    return np.where(known[..., None], _turbo(share), np.uint8(GREY))


def _turbo(share: Array) -> NDArray[np.uint8]:
    """Return RGB of shares of the way from near (blue) to far (red)."""
    grey = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_TURBO)[..., ::-1]


def _jpeg(rgb: NDArray[np.uint8]) -> str:
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return f'data:image/jpeg;base64,{b64encode(data.tobytes()).decode()}'
