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

"""A bag's images as the very frames that the node would have made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import math
from pathlib import Path
import sys
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Frame
from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.bag import Bag, BagError, BagMessage
from mapanything_ros.offline.calibration import Calibration
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.source import files_fingerprint, TopicNames
from mapanything_ros.offline.truth import (
    camera_info_beside,
    choose_camera_info,
    choose_depth,
    choose_image,
)
from mapanything_ros.ros.frames import FrameAssembler
from mapanything_ros.ros.odometry import OdometryTopic

NO_CAMERA_INFO = (
    'choose with --camera-info-topic, or map without calibration: --set use_camera_info=false '
    '(backend mapanything alone)')
DAY_NS = 86_400 * 10**9


class BagSource:
    """
    The images of a bag with what belongs to them.

    All transforms and the first calibration are known from the start. As long as the bag's time
    has not gone on by ``tf.timeout_s``, an image waits for its depth.
    """

    kind = 'bag'

    def __init__(
        self, path: Path, config: Config, topics: TopicNames, calibration: Calibration | None,
        notices: Notices,
    ) -> None:
        """Choose the topics; raise InputError where the bag lacks what the parameters want."""
        if calibration is not None:
            raise InputError('--intrinsics is for photos and videos: a bag brings camera_info')
        self._path = path
        self._config = config
        self._notices = notices
        self._now_s = 0.0
        with Bag(path) as bag:
            self._image, self._compressed = choose_image(bag, topics.image)
            self._camera_info = choose_camera_info(
                bag, self._image, topics.camera_info, NO_CAMERA_INFO
            ) if config.use_camera_info else None
            self._depth: str | None = None
            self._depth_compressed = False
            if config.use_depth:
                self._depth, self._depth_compressed = self._needed_depth(bag, topics.depth)
            self._depth_camera_info = self._depth and camera_info_beside(bag, self._depth)
            self._imu = bag.find_topic(
                'sensor_msgs/msg/Imu', topics.imu or None,
                hint='choose with --imu-topic, or set use_imu to false'
            ) if config.levels else None
            self._odometry = _odometry_topic(
                bag, topics) if config.odometry_source == 'topic' else None
            needed = config.tf.odom_frame or config.tf.base_frame
            self._transforms = [
                t for t in ('/tf_static', '/tf')
                if (needed or config.use_depth or self._imu or self._odometry)
                and t in bag.topics]
            if needed and not self._odometry and not self._transforms:
                raise BagError(
                    f'{path} has neither /tf nor /tf_static: leave tf.odom_frame and '
                    'tf.base_frame empty (and pose_source none)')
            self.total = bag.counts[self._image]
        if not self.total:
            raise BagError(f'{path} has no message on {self._image}: record it again')
        self.read = 0

    def frames(self) -> Iterator[Frame]:
        """Give the frames; see Source."""
        with Bag(self._path) as bag:
            # A day more: stamps and recording times may be apart.
            buffer = Buffer(cache_time=Duration(nanoseconds=bag.duration_ns + DAY_NS))
            damage = self._load_transforms(bag, buffer)
            odometry = OdometryTopic(
                self._config.tf, self._notices, keep_ns=bag.duration_ns + DAY_NS)
            damage = damage or self._load_odometry(bag, odometry)
            assembler = FrameAssembler(
                self._config, buffer, self._notices, lambda: self._now_s, odometry)
            for topic in filter(None, {self._camera_info, self._depth_camera_info}):
                first = next(bag.messages([topic]), None)
                if first:
                    self._take(assembler, first)
            for message in bag.messages(self._topics()):
                self._now_s = message.log_time_ns * 1e-9
                self.read += message.topic == self._image
                if self._take(assembler, message):
                    self._notices.warn(
                        'stamps_go_back', f'the stamps on {self._image} go back: what was '
                        'recorded after that is left out; map it from a bag of its own')
                    return
                yield from assembler.frames()
            # Nothing more will come.
            self._now_s = math.inf
            yield from assembler.frames()
        if assembler.without_depth:
            self._notices.warn(
                'without_depth', f'{assembler.without_depth} of {self.total} images have no depth '
                f'within {self._config.depth_slop_s:g} s (depth_slop_s): they are passed over')
        if damage:
            raise damage

    def selector(self) -> None:
        """Choose keyframes as the configuration says."""

    def name(self, stamp_ns: int) -> str:
        """Return the stamp in digits."""
        return str(stamp_ns)

    def inputs(self) -> dict[str, object]:
        """Return what is read."""
        return {
            'bag': self._path.name, 'images': self.total, 'image_topic': self._image,
            'camera_info_topic': self._camera_info, 'depth_topic': self._depth,
            'imu_topic': self._imu,
            'odometry': self._odometry or self._config.tf.odom_frame or None}

    def fingerprint(self) -> dict[str, object]:
        """Return what tells this bag from others."""
        files = sorted(self._path.iterdir()) if self._path.is_dir() else [self._path]
        return {'files': files_fingerprint(files), 'inputs': self.inputs()}

    def _take(self, assembler: FrameAssembler, message: BagMessage) -> bool:
        """Hand a message on; return True where an image shows that time was set back."""
        if message.topic == self._depth:
            if depth := self._decoded(
                    message, CompressedImage if self._depth_compressed else Image):
                assembler.add_depth(depth)
        elif message.topic in (self._camera_info, self._depth_camera_info):
            if info := self._decoded(message, CameraInfo):
                if message.topic == self._camera_info:
                    assembler.add_camera_info(info)
                if message.topic == self._depth_camera_info:
                    assembler.add_depth_camera_info(info)
        elif message.topic == self._imu:
            if imu := self._decoded(message, Imu):
                assembler.level.add(imu)
        elif image := self._decoded(message, CompressedImage if self._compressed else Image):
            # No stamp is in the future of a recording.
            return assembler.add_image(image, sys.maxsize)
        return False

    def _decoded(self, message: BagMessage, kind: Any) -> Any:
        """Return the message; None, and a report, where it is damaged."""
        try:
            return deserialize_message(message.cdr, kind)
        except RuntimeError as error:
            self._notices.warn(
                'message_damaged',
                f'a message on {message.topic} is damaged and left out: {error}')
            return None

    def _topics(self) -> list[str]:
        return [
            topic for topic in (
                self._image, self._camera_info, self._depth, self._depth_camera_info, self._imu)
            if topic]

    def _needed_depth(self, bag: Bag, name: str) -> tuple[str, bool]:
        depth, compressed = choose_depth(bag, name)
        if depth is None:
            raise BagError(
                f'{bag.path} has no depth images: set use_depth to false, or choose with '
                '--depth-topic')
        return depth, compressed

    def _load_odometry(self, bag: Bag, odometry: OdometryTopic) -> BagError | None:
        """Fill the odometry; return why that was not possible to the end, if so."""
        try:
            for message in bag.messages([self._odometry] if self._odometry else []):
                if known := self._decoded(message, Odometry):
                    odometry.add(known)
        except BagError as error:  # images before that have theirs
            return error
        return None

    def _load_transforms(self, bag: Bag, buffer: Buffer) -> BagError | None:
        """Fill the buffer; return why that was not possible to the end, if so."""
        try:
            for message in bag.messages(self._transforms):
                fixed = message.topic == '/tf_static'
                known = self._decoded(message, TFMessage)
                for transform in known.transforms if known else ():
                    if fixed:
                        buffer.set_transform_static(transform, self.kind)
                    else:
                        buffer.set_transform(transform, self.kind)
        except BagError as error:  # images before that have theirs
            return error
        return None


def with_frames_of_odometry(config: Config, path: Path, topics: TopicNames) -> Config:
    """Return the configuration with the frames that a bag's odometry names."""
    with Bag(path) as bag:
        first = next(bag.messages([_odometry_topic(bag, topics)]), None)
    if first is None:
        return config
    odometry = OdometryTopic(config.tf, Notices(lambda text: None))
    odometry.add(deserialize_message(first.cdr, Odometry))
    return replace(config, tf=odometry.tf)


def _odometry_topic(bag: Bag, topics: TopicNames) -> str:
    return bag.find_topic(
        'nav_msgs/msg/Odometry', topics.odometry or None,
        hint='choose with --odometry-topic, or set odometry_source to tf')
