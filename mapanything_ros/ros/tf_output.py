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

"""The transforms that the node sends (REP-105)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
import time

import numpy as np
from rclpy.node import Node
from tf2_ros import TransformBroadcaster, TransformException

from mapanything_ros.core.config import Config, TfConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Submap
from mapanything_ros.core.frames.keyframes import Decision, PARKED
from mapanything_ros.core.reconstructor import REST_NS
from mapanything_ros.ros.reporter import Reporter
from mapanything_ros.ros.transforms import lookup, to_header, to_transform
from mapanything_ros.ros.tree_buffer import TreeBuffer

# A transform that was not heard for longer is forgotten, here as in tf2's buffers.
CACHE_S = 10.0
REPORT_PERIOD_S = 1.0


@dataclass(frozen=True, eq=False)
class _Placed:
    """The keyframe that was sent last."""

    stamp_ns: int
    map_from_child: Array
    child: str


class TfOutput:
    """
    Sends map->odom at a steady rate, or where the camera is at each new keyframe, or nothing.

    Where the camera is, is said of the robot's base, or without one of the root of the camera's
    own tree: a frame has one parent. Where another node already gives the child a parent, nothing
    is sent and that is reported. May be called from several threads.
    """

    def __init__(self, node: Node, config: Config, buffer: TreeBuffer, reporter: Reporter) -> None:
        self._mode = config.tf_mode
        self._tf = config.tf
        self._tolerance_ns = round(config.tf.tolerance_s * 1e9)
        self._buffer = buffer
        self._reporter = reporter
        self._node = node
        self._broadcaster = TransformBroadcaster(node)
        self._lock = Lock()
        # Not sent while the node is inactive.
        self.active = False
        self._map_from_odom = np.eye(4)
        self._sent_ns = 0
        self._placed: _Placed | None = None
        # The newest keyframe, and the newest image of which it was the place.
        self._keyframe_ns = 0
        self._parked_ns = 0
        self._reported_s = float('-inf')

    def destroy(self) -> None:
        """Give the topic back."""
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def reset(self, now_ns: int) -> None:
        """Forget what was sent: the map starts again, and perhaps time, or that of the images."""
        with self._lock:
            self._map_from_odom = np.eye(4)
            self._placed = None
            # While time goes on, no stamp of map->odom is sent twice.
            if self._mode != 'map_to_odom' or now_ns + self._tolerance_ns < self._sent_ns:
                self._sent_ns = 0

    def correct(self, map_from_odom: Array | None) -> None:
        """Take the (4,4) correction of odometry; without odometry there is none."""
        if map_from_odom is not None:
            with self._lock:
                self._map_from_odom = map_from_odom

    def take_frames(self, tf: TfConfig) -> None:
        """Take the names of frames that odometry gives."""
        self._tf = tf

    def follow(self, stamp_ns: int, decision: Decision) -> None:
        """Take note of an image: of a keyframe, or of the place of the one before."""
        if decision.accepted:
            self._keyframe_ns = stamp_ns
        elif decision.reason == PARKED:
            self._parked_ns = stamp_ns

    def tick(self, now_ns: int) -> None:
        """
        Send again what other nodes must not forget.

        That is the correction of odometry, valid ``tf.tolerance_s`` longer than now, as AMCL's
        is; the map starts where odometry does. Or where a camera that stands still is, valid at
        its newest image.
        """
        with self._lock:
            valid_ns = now_ns + self._tolerance_ns
            if self._mode == 'map_to_odom':
                # Odometry of a topic names its frame when it comes.
                if self._tf.odom_frame and valid_ns > self._sent_ns:
                    self._send(self._map_from_odom, valid_ns, self._tf.odom_frame)
                return
            placed, parked_ns = self._placed, self._parked_ns
            if (placed and placed.stamp_ns == self._keyframe_ns and parked_ns > self._sent_ns
                    and parked_ns - placed.stamp_ns >= REST_NS):
                self._send(placed.map_from_child, parked_ns, placed.child)

    def send_keyframes(self, submap: Submap, keyframes: Sequence[Keyframe]) -> None:
        """Send the pose of each new keyframe at its stamp, never one older than the last."""
        if self._mode != 'map_to_camera':
            return
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        with self._lock:
            for view in submap.views:
                keyframe = by_id[view.keyframe_id]
                if view.keyframe_id in submap.new_ids and keyframe.stamp_ns > self._sent_ns:
                    self._send_keyframe(submap.map_from_camera(view), keyframe)

    def _send_keyframe(self, map_from_camera: Array, keyframe: Keyframe) -> None:
        if keyframe.base_from_camera is not None:
            child, child_from_camera = self._tf.base_frame, keyframe.base_from_camera
        else:
            child = self._buffer.root(keyframe.frame_id, below=self._tf.map_frame)
            try:
                child_from_camera = np.eye(4) if child == keyframe.frame_id else lookup(
                    self._buffer, child, keyframe.frame_id, keyframe.stamp_ns)
            except (TransformException, ValueError) as error:
                self._reporter.warn(
                    'tf_root', f'{self._tf.map_frame}->{child} is not sent: TF does not tie '
                    f'{keyframe.frame_id} to {child}, the root of its tree, at the stamp of an '
                    f'image ({str(error).strip()})')
                return
        pose = map_from_camera @ np.linalg.inv(child_from_camera)
        self._placed = _Placed(keyframe.stamp_ns, pose, child)
        self._send(pose, keyframe.stamp_ns, child)

    def _send(self, map_from_child: Array, stamp_ns: int, child: str) -> None:
        if not self.active or self._has_other_parent(child):
            return
        transform = to_transform(map_from_child, to_header(stamp_ns, self._tf.map_frame), child)
        self._buffer.sending(transform)
        self._broadcaster.sendTransform(transform)
        self._sent_ns = stamp_ns

    def _has_other_parent(self, child: str) -> bool:
        """Say whether to leave a frame alone; report another parent, and a rival for the same."""
        parent = self._buffer.parent(child)
        if parent is None:
            return False
        edge = f'{self._tf.map_frame}->{child}'
        if parent != self._tf.map_frame:
            self._report(
                'tf_parent', f'{child} already has the parent {parent} in TF, so {edge} is not '
                'sent: set tf.mode, tf.odom_frame and tf.base_frame to match the robot')
            return True
        if self._buffer.silence_s(child) > CACHE_S:
            return False
        # Who has named odometry wants its correction from here.
        asked = self._mode == 'map_to_odom'
        self._report(
            'tf_rival', f'another node (as AMCL or slam_toolbox) sends {edge}, too'
            f'{"" if asked else ", so it is not sent"}: end one of them, or set tf.mode to none, '
            'or give this map a name of its own with tf.map_frame')
        return not asked

    def _report(self, kind: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._reported_s >= REPORT_PERIOD_S:
            self._reported_s = now_s
            self._reporter.warn(kind, text)
