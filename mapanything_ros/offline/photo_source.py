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

"""Photos as frames, each of them a keyframe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
import re

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mapanything_ros.core.datatypes import Frame
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.camera import Camera
from mapanything_ros.core.frames.keyframes import EveryFrame
from mapanything_ros.offline.calibration import Calibration
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.picture_frame import picture_frame, Rgb
from mapanything_ros.offline.source import files_fingerprint

PHOTO_FILES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')
# What telephones and cameras write beside these, and Pillow does not read by itself.
OTHER_PICTURES = ('.heic', '.heif', '.avif', '.jxl', '.dng', '.cr2', '.cr3', '.nef', '.arw')
SECOND_NS = 10**9


class PhotoSource:
    """
    A folder of photos, or several photos, in the natural order of their names (2 before 10).

    The photos have no common clock: the stamp of the n-th is n seconds. Each is read when it is
    needed, and turned upright.
    """

    kind = 'photos'

    def __init__(
        self, paths: Sequence[Path], calibration: Calibration | None, notices: Notices,
    ) -> None:
        """Find the photos; raise InputError where there are none."""
        self._files = _photos(paths)
        self._calibration = calibration
        others = _others(paths[0])
        if others:
            notices.warn(
                'other_pictures', f'{len(others)} pictures like {others[0].name} are left out, as '
                'that kind cannot be read: save them as JPEG')
        self.total = len(self._files)
        self.read = 0

    def frames(self) -> Iterator[Frame]:
        """Give the photos; see Source."""
        for number, path in enumerate(self._files, start=1):
            yield picture_frame(number * SECOND_NS, _Photo(path, self._calibration).read)
            self.read += 1

    def selector(self) -> EveryFrame:
        """Choose every photo."""
        return EveryFrame()

    def name(self, stamp_ns: int) -> str:
        """Return the file name of the photo with a stamp."""
        return self._files[stamp_ns // SECOND_NS - 1].name

    def inputs(self) -> dict[str, object]:
        """Return what is read."""
        known = self._calibration.description() if self._calibration else 'none'
        return {'photos': self.total, 'intrinsics': known}

    def fingerprint(self) -> dict[str, object]:
        """Return what tells these photos from others."""
        known = self._calibration.fingerprint() if self._calibration else None
        return {
            'files': files_fingerprint(self._files), 'inputs': self.inputs(),
            'calibration': known}


class _Photo:

    def __init__(self, path: Path, calibration: Calibration | None) -> None:
        self._path = path
        self._calibration = calibration

    def read(self) -> tuple[Rgb, Camera | None]:
        try:
            with Image.open(self._path) as photo:
                upright = ImageOps.exif_transpose(photo)
                rgb = _rgb(upright)
                known = self._calibration
                return rgb, known.camera(*upright.size, photo.getexif()) if known else None
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError,
                SyntaxError, InputError) as error:
            raise InputError(f'{self._path.name} cannot be used: {error}') from error


def _rgb(photo: Image.Image) -> Rgb:
    """Return (H,W,3); of gray with 16 bits, which Pillow would clip, the upper 8."""
    if photo.mode == 'F':
        raise InputError('its pixels are floating-point numbers: save it with 8 or 16 bits')
    if photo.mode.startswith('I'):
        photo = Image.fromarray((np.asarray(photo).clip(0, 0xFFFF) >> 8).astype(np.uint8))
    return np.array(photo.convert('RGB'))


def _photos(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir() and len(paths) == 1:
            files += [child for child in path.iterdir() if child.suffix.lower() in PHOTO_FILES]
        elif path.is_file() and path.suffix.lower() in PHOTO_FILES:
            files.append(path)
        else:
            raise InputError(
                f'{path} is no photo ({", ".join(PHOTO_FILES)}): give one bag, one video, one '
                'folder of photos, or several photos')
    if not files:
        raise InputError(f'{paths[0]} holds no photos ({", ".join(PHOTO_FILES)}), and is no bag')
    return sorted(files, key=_natural)


def _others(path: Path) -> list[Path]:
    """Return the pictures in a folder that are of no use."""
    children = path.iterdir() if path.is_dir() else ()
    return sorted(child for child in children if child.suffix.lower() in OTHER_PICTURES)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r'(\d+)', path.name.lower())
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in parts], str(path)
