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

"""Where frames come from: a bag, photos or a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Frame
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.keyframes import Selector
from mapanything_ros.offline.calibration import Calibration
from mapanything_ros.offline.notices import Notices

BAG_FILES = ('.mcap', '.db3')
VIDEO_FILES = ('.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v')


class Source(Protocol):
    """
    Gives the frames of a recording, in order, the same ones each time.

    ``kind`` is 'bag', 'photos' or 'video', ``total`` how many images there are, and ``read`` how
    many of them have been considered.
    """

    kind: str
    total: int
    read: int

    def frames(self) -> Iterator[Frame]:
        """
        Give the frames, each read when it is asked for; stamps rise.

        Raises InputError where the recording cannot be read on.
        """
        ...

    def selector(self) -> Selector | None:
        """Return what chooses keyframes, None for what the configuration says."""
        ...

    def name(self, stamp_ns: int) -> str:
        """Return what the image of a stamp is called."""
        ...

    def inputs(self) -> dict[str, object]:
        """Return what is read, for people: topics, calibration, number of images."""
        ...

    def fingerprint(self) -> dict[str, object]:
        """Return what tells this recording from others, for JSON."""
        ...


@dataclass(frozen=True)
class TopicNames:
    """The topics of a bag that were asked for by name; empty ones are found by type."""

    image: str = ''
    camera_info: str = ''
    depth: str = ''
    imu: str = ''
    odometry: str = ''


def open_source(
    paths: Sequence[Path], config: Config, topics: TopicNames, calibration: Calibration | None,
    notices: Notices,
) -> Source:
    """
    Return the source that one bag, video or folder of photos, or several photos, are.

    ``calibration`` is for photos and video, and for a bag in place of its camera_info. Raises
    InputError, with what to do, for anything else.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f'there is no {path}: give a bag, a folder of photos, or a video')
    first = paths[0]
    if len(paths) == 1:
        if first.suffix.lower() in BAG_FILES or (first / 'metadata.yaml').exists():
            # Imported here: photos and videos need no ROS.
            from mapanything_ros.offline.bag_source import BagSource

            return BagSource(first, config, topics, calibration, notices)
        if first.is_dir() and any(child.suffix in BAG_FILES for child in first.iterdir()):
            raise InputError(
                f'{first} has no metadata.yaml: give one of its .mcap or .db3 files, or run '
                f'"ros2 bag reindex {first}" if its recording was cut off')
    _refuse_robot_inputs(config, topics)
    if config.backend == 'colmap' and calibration is None:
        raise InputError(
            'the colmap backend needs the intrinsics of the camera: give --intrinsics, as exif, '
            "fx,fy,cx,cy or the YAML file of ROS's camera_calibration")
    if len(paths) == 1 and first.suffix.lower() in VIDEO_FILES and first.is_file():
        from mapanything_ros.offline.video_source import VideoSource

        return VideoSource(first, calibration, notices)
    from mapanything_ros.offline.photo_source import PhotoSource

    return PhotoSource(paths, calibration, notices)


def files_fingerprint(files: Sequence[Path]) -> list[list[object]]:
    """Return name, size and time of those of the paths that are files."""
    return [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns]
        for path in files if path.is_file()]


def _refuse_robot_inputs(config: Config, topics: TopicNames) -> None:
    if config.use_depth or config.use_imu or config.has_odometry or config.tf.base_frame:
        raise InputError(
            'photos and videos bring neither depth nor transforms, odometry or an IMU: set '
            'use_depth and use_imu to false and leave tf.odom_frame and tf.base_frame empty (and '
            'pose_source none, odometry_source tf)')
    if topics != TopicNames():
        raise InputError('only a bag has topics: leave the options for topics away')
