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

"""What is known of the camera of photos and videos: nothing, its focal length, or all."""

from __future__ import annotations

from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Exif
import yaml

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.camera import Camera

# The diagonal of 24x36 mm film, which EXIF compares focal lengths on.
FILM_DIAGONAL_MM = math.hypot(24.0, 36.0)
# By number: Pillow before 9.3, so Ubuntu 22.04's, has no ExifTags.Base.
EXIF_SUB_DIRECTORY = 0x8769
FOCAL_LENGTH_ON_FILM = 0xA405


class Calibration(Protocol):
    """Knows the camera that took a picture."""

    def camera(self, width: int, height: int, exif: Exif | None) -> Camera:
        """Return the camera of a picture, upright, of this size; raise InputError if unknown."""
        ...

    def description(self) -> str:
        """Return in words where it comes from."""
        ...

    def fingerprint(self) -> object:
        """Return what tells this calibration from others, exactly, for JSON."""
        ...


@dataclass(frozen=True)
class ExifCalibration:
    """
    The focal length that each picture itself tells, its centre in the middle, no distortion.

    Good to a few per cent. EXIF gives it as it would be on 35 mm film, compared by the diagonal.
    """

    def camera(self, width: int, height: int, exif: Exif | None) -> Camera:
        """Return the camera of a picture; see Calibration."""
        film_mm = exif.get_ifd(EXIF_SUB_DIRECTORY).get(FOCAL_LENGTH_ON_FILM) if exif else 0
        if not film_mm:
            raise InputError(
                'it has no focal length in its EXIF data: give --intrinsics fx,fy,cx,cy or a '
                'calibration file')
        focal_px = float(film_mm) / FILM_DIAGONAL_MM * math.hypot(width, height)
        return pinhole(width, height, (focal_px, focal_px, (width - 1) / 2, (height - 1) / 2))

    def description(self) -> str:
        """Say where it comes from."""
        return 'focal length from EXIF'

    def fingerprint(self) -> object:
        """Tell it from others; see Calibration."""
        return 'exif'


@dataclass
class PinholeCalibration:
    """
    Four numbers, fx, fy, cx and cy in pixels, that hold for pictures of one size.

    That is the size of the first picture.
    """

    numbers: tuple[float, ...]
    _size: tuple[int, int] | None = None

    def camera(self, width: int, height: int, exif: Exif | None) -> Camera:
        """Return the camera of a picture; see Calibration."""
        self._size = self._size or (width, height)
        _check_size((width, height), self._size)
        return pinhole(width, height, self.numbers)

    def description(self) -> str:
        """Say where it comes from."""
        return 'given: fx, fy, cx, cy = ' + ', '.join(f'{number:g}' for number in self.numbers)

    def fingerprint(self) -> object:
        """Tell it from others; see Calibration."""
        return self.numbers


@dataclass(frozen=True, eq=False)
class FileCalibration:
    """A whole camera model, with distortion, from a file."""

    path: Path
    model: Camera

    def camera(self, width: int, height: int, exif: Exif | None) -> Camera:
        """Return the camera of a picture; see Calibration."""
        _check_size((width, height), (self.model.width, self.model.height))
        return self.model

    def description(self) -> str:
        """Say where it comes from."""
        return f'from {self.path.name}'

    def fingerprint(self) -> object:
        """Tell it from others; see Calibration."""
        camera = self.model
        return [
            camera.width, camera.height, camera.model,
            *(numbers.tolist() for numbers in (camera.k, camera.d, camera.p))]


def parse_calibration(text: str) -> Calibration | None:
    """
    Read 'none', 'exif', 'fx,fy,cx,cy' or the name of a file.

    The file is that of ROS's camera_calibration (a camera_info in YAML). Raises InputError.
    """
    if text == 'none':
        return None
    if text == 'exif':
        return ExifCalibration()
    try:
        numbers = tuple(float(part) for part in text.split(','))
    except ValueError:
        return _read(Path(text))
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise InputError(
            f'--intrinsics {text}: four numbers fx,fy,cx,cy are needed, got {len(numbers)}')
    pinhole(1, 1, numbers)
    return PinholeCalibration(numbers)


def pinhole(width: int, height: int, numbers: tuple[float, ...]) -> Camera:
    """Return the camera without distortion that fx, fy, cx and cy make."""
    fx, fy, cx, cy = numbers
    k: Array = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    if not (fx > 0 and fy > 0):
        raise InputError(f'focal lengths must be above 0, got {fx:g} and {fy:g}')
    return Camera(width, height, k, np.zeros(0), np.zeros((3, 4)))


def _check_size(size: tuple[int, int], known: tuple[int, int]) -> None:
    if size != known:
        raise InputError(
            f'it is {size[0]}x{size[1]}, but the intrinsics are for {known[0]}x{known[1]}')


def _read(path: Path) -> FileCalibration:
    try:
        values: Any = yaml.safe_load(path.read_text())
        camera = Camera(
            int(values['image_width']), int(values['image_height']),
            np.array(values['camera_matrix']['data'], float).reshape(3, 3),
            np.array(values['distortion_coefficients']['data'], float),
            np.array(values['projection_matrix']['data'], float).reshape(3, 4),
            values['distortion_model'])
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise InputError(
            f'--intrinsics {path}: it is no calibration as ROS writes it (image_width, '
            f'camera_matrix, distortion_model, ...), nor exif or fx,fy,cx,cy: {reason}'
        ) from error
    return FileCalibration(path, camera)
