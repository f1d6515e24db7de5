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

"""Brings together what belongs to one image: calibration, depth and transforms."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
import time

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_ros import Buffer, TransformException

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Array, Frame, Keyframe
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.camera import Camera
from mapanything_ros.ros.conversions import (
    camera_from_info,
    gray_from_compressed,
    gray_from_image,
    rgb_from_compressed,
    rgb_from_image,
)
from mapanything_ros.ros.depths import Depths, SensedDepth
from mapanything_ros.ros.level import Level
from mapanything_ros.ros.odometry import OdometryTopic
from mapanything_ros.ros.reporter import Warns
from mapanything_ros.ros.stamps import StampGate
from mapanything_ros.ros.transforms import lookup, to_ns

# Images that may wait for their transform or depth; the oldest make room.
MAX_WAITING = 30
# Depth slower than this is depth that does not fit.
DEPTH_PERIOD_NS = 5 * 10**9

REFUSALS = {
    'stamp_zero': 'an image has no stamp (0): set it in the camera driver',
    'stamp_future': 'an image is stamped in the future: synchronise the clocks of camera and '
                    'robot; on a replayed bag set use_sim_time and play it with --clock',
    'stamp_repeated': 'an image has the same stamp as the one before: it is ignored',
    'stamp_backwards': 'an image is older than the one before: it is ignored',
}


@dataclass(frozen=True, eq=False)
class _Waiting:
    message: Image | CompressedImage
    stamp_ns: int
    since_s: float


class NotYetError(Exception):
    """Something that belongs to an image has not arrived; ``kind`` and the text say what."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class DepthlessError(Exception):
    """Depth goes on, but an image has none of its own: it is passed over."""


class FrameAssembler:
    """
    Turns images into frames, in order, each with what the configuration asks for.

    Nothing blocks and nothing is decoded here: an image waits, ``tf.timeout_s`` at most, until
    its calibration, depth (the nearest within ``depth_slop_s``) and transforms (interpolated at
    its stamp) are there. Where newer depth shows that an image will get none, it is passed over at
    once, and counted in ``without_depth``: colour may be faster. What is refused or given up is
    reported. ``clock`` gives the seconds that waiting is measured in. ``level`` tells the frames
    which way is up, and ``odometry`` where the robot was, where the configuration wants it of its
    topic.
    """

    def __init__(
        self, config: Config, buffer: Buffer, reporter: Warns,
        clock: Callable[[], float] = time.monotonic, odometry: OdometryTopic | None = None,
    ) -> None:
        self._config = config
        self._buffer = buffer
        self._reporter = reporter
        self._clock = clock
        self.level = Level(buffer, reporter, clock)
        self.odometry = odometry or OdometryTopic(config.tf, reporter)
        self._gate = StampGate()
        self._info: CameraInfo | None = None
        self._camera: Camera | None = None
        self._depth_info: CameraInfo | None = None
        self._depth_camera: Camera | None = None
        self._depths = Depths(config.depth_slop_s)
        # The image that had depth last, or the first one.
        self._depth_ns: int | None = None
        self.without_depth = 0
        self._waiting: deque[_Waiting] = deque()

    def reset(self) -> None:
        """Forget what waits and the newest stamp; the calibration stays."""
        self._gate.reset()
        self._depths.clear()
        self._depth_ns = None
        self._waiting.clear()

    def add_image(self, message: Image | CompressedImage, now_ns: int) -> bool:
        """Take an image; return True if it shows that time was set back (a bag that loops)."""
        stamp_ns = to_ns(message.header.stamp)
        if not message.header.frame_id:
            self._reporter.warn(
                'frame_id_empty', 'an image has no frame_id: set it in the camera driver')
            return False
        verdict = self._gate.check(stamp_ns, now_ns)
        if verdict in REFUSALS:
            self._reporter.warn(verdict, REFUSALS[verdict])
            return False
        if verdict == 'loop':
            self._waiting.clear()
            self._depth_ns = None
            self.odometry.clear()
        if len(self._waiting) == MAX_WAITING:
            self._waiting.popleft()
            self._reporter.warn(
                'waiting_full', f'more than {MAX_WAITING} images wait for their transform, depth '
                'or camera_info: the oldest is dropped')
        self._waiting.append(_Waiting(message, stamp_ns, self._clock()))
        return verdict == 'loop'

    def add_depth(self, message: Image | CompressedImage) -> None:
        """Take a depth image; the newest few are kept."""
        self._depths.add(message)

    def add_depth_camera_info(self, message: CameraInfo) -> None:
        """Take the calibration of depth that is not registered to the image."""
        camera = self._new_camera(message, self._depth_info, 'depth_camera_info', 'depth: ')
        if camera is not None:
            self._depth_camera, self._depth_info = camera, message

    def add_camera_info(self, message: CameraInfo) -> None:
        """Take a calibration; one that cannot be used is reported and the last good one stays."""
        camera = self._new_camera(message, self._info, 'camera_info')
        if camera is not None:
            self._camera, self._info = camera, message

    def frames(self) -> Iterator[Frame]:
        """Give the frames that are complete, oldest first."""
        while self._waiting:
            image = self._waiting[0]
            overdue = self._clock() - image.since_s >= self._config.tf.timeout_s
            try:
                frame = self._assemble(image, overdue)
            except NotYetError as missing:
                if not overdue:
                    return
                self._reporter.warn(missing.kind, str(missing))
                self._waiting.popleft()
                continue
            except DepthlessError:
                self._pass_over(image)
                continue
            self._waiting.popleft()
            yield frame

    def _new_camera(
        self, message: CameraInfo, known: CameraInfo | None, kind: str, whose: str = '',
    ) -> Camera | None:
        """Return the camera of a calibration; None for the known one, and for no use: reported."""
        if known is not None and _same_calibration(known, message):
            return None
        try:
            return camera_from_info(message, self._config.rectified)
        except InputError as error:
            self._reporter.warn(kind, f'{whose}{error}')
            return None

    def _pass_over(self, image: _Waiting) -> None:
        """Drop the oldest image, which has no depth; report it where none has had any for long."""
        self._waiting.popleft()
        self.without_depth += 1
        if self._depth_ns is None:
            self._depth_ns = image.stamp_ns
        elif image.stamp_ns - self._depth_ns > DEPTH_PERIOD_NS:
            self._reporter.warn(
                'depth_apart', 'depth comes, but none of it within depth_slop_s '
                f'({self._config.depth_slop_s:g} s) of an image; the nearest to the last one is '
                f'{self._depths.gap_s(image.stamp_ns):.3f} s off: synchronise the clocks of both '
                'cameras, or raise depth_slop_s')

    def _assemble(self, image: _Waiting, overdue: bool) -> Frame:
        camera = self._needed_camera()
        depth = self._needed_depth(image, overdue)
        frame_id = image.message.header.frame_id
        odom_from_camera = self._odom_from_camera(frame_id, image.stamp_ns)
        odom_variance = None
        if odom_from_camera is not None and self._config.odometry_source == 'topic':
            odom_variance = self.odometry.variance_at(image.stamp_ns)
        base_from_camera = self._transform(
            self.odometry.tf.base_frame, frame_id, image.stamp_ns)
        source = _Source(image.message, camera, depth, self._reporter)

        def keyframe(keyframe_id: int) -> Keyframe:
            rgb = source.rgb()
            return Keyframe(
                id=keyframe_id, stamp_ns=image.stamp_ns, frame_id=frame_id, rgb=rgb,
                intrinsics=camera.rectified_k if camera else None,
                depth_m=source.depth_m(),
                odom_from_camera=odom_from_camera, odom_variance=odom_variance,
                base_from_camera=base_from_camera)

        return Frame(
            image.stamp_ns, source.gray, keyframe, odom_from_camera,
            partial(self.level.up, frame_id, image.stamp_ns))

    def _needed_camera(self) -> Camera | None:
        if self._config.use_camera_info and self._camera is None:
            raise NotYetError(
                'no_camera_info', 'images arrive but no usable camera_info: remap camera_info to '
                'the topic of the calibration, or set use_camera_info to false')
        return self._camera

    def _needed_depth(self, image: _Waiting, overdue: bool) -> SensedDepth | None:
        if not self._config.use_depth:
            return None
        settled = self._depths.settled(image.stamp_ns)
        message = self._depths.find(image.stamp_ns) if settled or overdue else None
        if message is None and settled:
            raise DepthlessError
        if message is None:
            raise NotYetError(
                'no_depth', f'an image has no depth image within {self._config.depth_slop_s:g} s '
                '(depth_slop_s), and none newer comes: remap depth to the depth of the same '
                'camera, or set use_depth to false')
        self._depth_ns = image.stamp_ns
        depth_frame, frame_id = message.header.frame_id, image.message.header.frame_id
        info = self._depth_info
        known = info is not None and info.header.frame_id == depth_frame
        camera = self._depth_camera if known else None
        if depth_frame == frame_id:
            return SensedDepth(message, camera, None)
        if camera is None:
            raise NotYetError(
                'no_depth_camera_info', f'depth is in {depth_frame!r}, so not registered to the '
                f'image in {frame_id!r}, and no camera_info of {depth_frame!r} comes: remap '
                'depth/camera_info to it, or depth to registered depth')
        try:
            return SensedDepth(
                message, camera, lookup(self._buffer, frame_id, depth_frame, image.stamp_ns))
        except (TransformException, ValueError) as error:
            raise NotYetError(
                'no_depth_transform', f'depth is in {depth_frame!r}, so not registered to the '
                f'image in {frame_id!r}, and TF does not tie the two: {str(error).strip()}'
            ) from error

    def _odom_from_camera(self, frame_id: str, stamp_ns: int) -> Array | None:
        if self._config.odometry_source == 'tf':
            return self._transform(self._config.tf.odom_frame, frame_id, stamp_ns)
        try:
            odom_from_body = self.odometry.at(stamp_ns)
        except LookupError as error:
            raise NotYetError(
                'no_odometry', f'an image has no odometry at its stamp within '
                f'{self._config.tf.timeout_s} s; remap odometry to its topic and check its '
                f'stamps: {error}') from error
        body_from_camera = self._transform(self.odometry.body_frame, frame_id, stamp_ns)
        return None if body_from_camera is None else odom_from_body @ body_from_camera

    def _transform(self, target: str, frame_id: str, stamp_ns: int) -> Array | None:
        if not target:
            return None
        if target == frame_id:
            return np.eye(4)
        try:
            return lookup(self._buffer, target, frame_id, stamp_ns)
        except (TransformException, ValueError) as error:
            raise NotYetError(
                'no_transform', f'an image has no transform from {frame_id} to {target} at its '
                f'stamp within {self._config.tf.timeout_s} s; check tf.odom_frame, tf.base_frame '
                f'and that TF ties them to the camera: {str(error).strip()}') from error


class _Source:
    """Decodes one image, once, when it is asked to."""

    def __init__(
        self, message: Image | CompressedImage, camera: Camera | None,
        depth: SensedDepth | None, reporter: Warns,
    ) -> None:
        self._message = message
        self._camera = camera
        self._depth = depth
        self._reporter = reporter
        self._gray: NDArray[np.uint8] | None = None

    def gray(self) -> NDArray[np.uint8]:
        if self._gray is None:
            if isinstance(self._message, Image):
                self._gray = gray_from_image(self._message)
            else:
                width = self._camera.width if self._camera else 0
                self._gray = gray_from_compressed(self._message, width)
        return self._gray

    def rgb(self) -> NDArray[np.uint8]:
        if isinstance(self._message, Image):
            picture = rgb_from_image(self._message)
        else:
            picture = rgb_from_compressed(self._message)
        return self._camera.rectify(picture) if self._camera else picture

    def depth_m(self) -> NDArray[np.float32] | None:
        """Return the depth of the rectified image; None, and a report, where there is none."""
        if self._depth is None or self._camera is None:
            return None
        try:
            depth_m = self._depth.seen_by(self._camera)
        except InputError as error:
            self._reporter.warn('depth', f'depth: {error}; the keyframe goes on without depth')
            return None
        if not depth_m.any():
            self._reporter.warn(
                'depth', 'depth: not one pixel is a finite, positive number; the keyframe goes on '
                'without depth')
            return None
        return depth_m


def _same_calibration(a: CameraInfo, b: CameraInfo) -> bool:
    return (
        (a.width, a.height, a.distortion_model, a.header.frame_id)
        == (b.width, b.height, b.distortion_model, b.header.frame_id)
        and np.array_equal(a.k, b.k) and np.array_equal(a.p, b.p) and np.array_equal(a.d, b.d))
