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

"""The pictures of a video as frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mapanything_ros.core.datatypes import Frame
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.camera import Camera
from mapanything_ros.offline.calibration import Calibration
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.picture_frame import picture_frame, Rgb
from mapanything_ros.offline.source import files_fingerprint

SECOND_NS = 10**9


class VideoSource:
    """
    A video file; the stamp of a picture is its time in the video, plus one second.

    Pictures are upright, as players show them.
    """

    kind = 'video'

    def __init__(self, path: Path, calibration: Calibration | None, notices: Notices) -> None:
        """Look at the video; raise InputError where it cannot be read."""
        self._path = path
        self._calibration = calibration
        self._notices = notices
        video = self._open()
        self.total = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        video.release()
        self.read = 0

    def frames(self) -> Iterator[Frame]:
        """Give the pictures; see Source."""
        video = self._open()
        newest_ns = 0
        try:
            while True:
                good, picture = video.read()
                if not good:
                    break
                stamp_ns = SECOND_NS + round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                if stamp_ns > newest_ns:
                    newest_ns = stamp_ns
                    rgb = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
                    yield picture_frame(stamp_ns, _Picture(rgb, self._calibration).read)
                self.read += 1
        finally:
            video.release()
        if self.read < self.total:
            self._notices.warn(
                'video_cut_off', f'{self._path.name} says that it has {self.total} pictures, but '
                f'only {self.read} could be read: it may be cut off or damaged')

    def selector(self) -> None:
        """Choose keyframes as the configuration says."""

    def name(self, stamp_ns: int) -> str:
        """Return the time of a picture in the video."""
        return f'{(stamp_ns - SECOND_NS) * 1e-9:.3f} s'

    def inputs(self) -> dict[str, object]:
        """Return what is read."""
        known = self._calibration.description() if self._calibration else 'none'
        return {'video': self._path.name, 'pictures': self.total, 'intrinsics': known}

    def fingerprint(self) -> dict[str, object]:
        """Return what tells this video from others."""
        known = self._calibration.fingerprint() if self._calibration else None
        return {
            'files': files_fingerprint([self._path]), 'inputs': self.inputs(),
            'calibration': known}

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self._path))
        if not (video.isOpened() and video.grab()):
            raise InputError(
                f'{self._path} cannot be read as a video: it may be damaged, or of a kind that '
                "this machine's OpenCV does not know; convert it with ffmpeg")
        video.release()
        return cv2.VideoCapture(str(self._path))


class _Picture:

    def __init__(self, rgb: Rgb, calibration: Calibration | None) -> None:
        self._rgb = rgb
        self._calibration = calibration

    def read(self) -> tuple[Rgb, Camera | None]:
        height, width = self._rgb.shape[:2]
        known = self._calibration
        return self._rgb, known.camera(width, height, None) if known else None
