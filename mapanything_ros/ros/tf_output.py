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
import time

import numpy as np
from rclpy.node import Node
from tf2_ros import Buffer, TransformBroadcaster
import yaml

from mapanything_ros.core.config import Config, TfConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Submap
from mapanything_ros.ros.reporter import Reporter
from mapanything_ros.ros.transforms import to_header, to_transform

CHECK_PERIOD_S = 1.0


class TfOutput:
    """
    Sends map->odom at a steady rate, or map->base (or camera) at each new keyframe, or nothing.

    A frame has one parent: where another node already gives the child a parent, nothing is sent
    and that is reported.
    """

    def __init__(self, node: Node, config: Config, buffer: Buffer, reporter: Reporter) -> None:
        self._mode = config.tf_mode
        self._tf = config.tf
        self._buffer = buffer
        self._reporter = reporter
        self._node = node
        self._broadcaster = TransformBroadcaster(node)
        # Not sent while the node is inactive.
        self.active = False
        self._map_from_odom = np.eye(4)
        self._sent_ns = 0
        # By child: when to look again, and whether another node gives it a parent.
        self._checked: dict[str, tuple[float, bool]] = {}

    def destroy(self) -> None:
        """Give the topic back."""
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def reset(self, now_ns: int) -> None:
        """Forget what was sent: the map starts again, and perhaps time, or that of the images."""
        self._map_from_odom = np.eye(4)
        # While time goes on, no stamp of map->odom is sent twice.
        if self._mode != 'map_to_odom' or now_ns < self._sent_ns:
            self._sent_ns = 0

    def correct(self, map_from_odom: Array | None) -> None:
        """Take the (4,4) correction of odometry; without odometry there is none."""
        if map_from_odom is not None:
            self._map_from_odom = map_from_odom

    def take_frames(self, tf: TfConfig) -> None:
        """Take the names of frames that odometry gives."""
        self._tf = tf

    def send_map_from_odom(self, now_ns: int) -> None:
        """Send the correction of odometry, valid now; the map starts where odometry does."""
        named = self._mode == 'map_to_odom' and self._tf.odom_frame
        if named and now_ns > self._sent_ns:
            self._send(self._map_from_odom, now_ns, self._tf.odom_frame)

    def send_keyframes(self, submap: Submap, keyframes: Sequence[Keyframe]) -> None:
        """Send the pose of each new keyframe at its stamp, never one older than the last."""
        if self._mode != 'map_to_camera':
            return
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        for view in submap.views:
            keyframe = by_id[view.keyframe_id]
            if view.keyframe_id in submap.new_ids and keyframe.stamp_ns > self._sent_ns:
                pose, child = submap.map_from_camera(view), keyframe.frame_id
                if keyframe.base_from_camera is not None:
                    pose = pose @ np.linalg.inv(keyframe.base_from_camera)
                    child = self._tf.base_frame
                self._send(pose, keyframe.stamp_ns, child)

    def _send(self, map_from_child: Array, stamp_ns: int, child: str) -> None:
        if not self.active or self._has_other_parent(child):
            return
        self._broadcaster.sendTransform(
            to_transform(map_from_child, to_header(stamp_ns, self._tf.map_frame), child))
        self._sent_ns = stamp_ns

    def _has_other_parent(self, child: str) -> bool:
        """Look the child up in the tree as it was heard, once a second."""
        now_s = time.monotonic()
        again_s, blocked = self._checked.get(child, (now_s, False))
        if now_s >= again_s:
            frames = yaml.safe_load(self._buffer.all_frames_as_yaml()) or {}
            parent = frames[child]['parent'] if child in frames else self._tf.map_frame
            blocked = parent != self._tf.map_frame
            self._checked[child] = now_s + CHECK_PERIOD_S, blocked
            if blocked:
                self._reporter.warn(
                    'tf_parent', f'{child} already has the parent {parent} in TF, so '
                    f'{self._tf.map_frame}->{child} is not sent: set tf.mode, tf.odom_frame and '
                    'tf.base_frame to match the robot')
        return blocked
