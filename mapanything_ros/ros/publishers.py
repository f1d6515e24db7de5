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

"""Everything that a window makes, as messages on the node's topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry, Path
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
import torch

from mapanything_ros.core.config import TfConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Prediction, Submap
from mapanything_ros.core.map.packing import pack_points
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.core.out_of_memory import or_on_host
from mapanything_ros.ros.conversions import to_cloud
from mapanything_ros.ros.messages import (
    keyframe_messages,
    map_message,
    odometry_message,
    PathMaker,
    pose_message,
)
from mapanything_ros.ros.transforms import to_header, to_pose

# One message a keyframe, and a window's keyframes come at once.
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL)
KEYFRAME = {
    'image': Image, 'camera_info': CameraInfo, 'depth': Image, 'confidence': Image,
    'points': PointCloud2}
OTHERS = {
    'points': (PointCloud2, RELIABLE), 'map': (PointCloud2, LATCHED),
    'map_updates': (PointCloud2, RELIABLE), 'path': (Path, LATCHED),
    'pose': (PoseStamped, RELIABLE), 'odometry': (Odometry, RELIABLE),
    'pose_with_covariance': (PoseWithCovarianceStamped, RELIABLE)}
# How each is made of odometry.
ODOMETRY: Mapping[str, Callable[[Odometry], Any]] = {
    'odometry': lambda odometry: odometry, 'pose_with_covariance': pose_message}


class Publishers:
    """
    The node's output topics, but for TF and diagnostics; silent while the node is inactive.

    Of what comes with a window, nothing is made that nobody listens to.
    """

    def __init__(self, node: LifecycleNode, tf: TfConfig) -> None:
        self._map_frame = tf.map_frame
        self._base_frame = tf.base_frame
        self._path_maker = PathMaker(tf.map_frame)
        create = node.create_lifecycle_publisher
        self._keyframe = {
            name: create(kind, f'~/keyframe/{name}', RELIABLE) for name, kind in KEYFRAME.items()}
        self._others = {
            name: create(kind, f'~/{name}', quality) for name, (kind, quality) in OTHERS.items()}

    def destroy(self, node: LifecycleNode) -> None:
        """Give the topics back."""
        for publisher in (*self._keyframe.values(), *self._others.values()):
            node.destroy_lifecycle_publisher(publisher)

    def take_frames(self, tf: TfConfig) -> None:
        """Take the names of frames that odometry gives."""
        self._base_frame = tf.base_frame

    def wanted(self, name: str) -> bool:
        """Say whether somebody listens to a topic of OTHERS."""
        return _heard(self._others[name])

    def publish_window(self, submap: Submap, keyframes: Sequence[Keyframe]) -> None:
        """Publish the new keyframes of a window, each at its own stamp, and its points."""
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        names = [name for name, publisher in self._keyframe.items() if _heard(publisher)]
        for view in submap.views:
            if view.keyframe_id in submap.new_ids:
                keyframe = by_id[view.keyframe_id]
                messages = or_on_host(partial(_messages, keyframe, names), [view])
                for name, message in messages.items():
                    self._keyframe[name].publish(message)
                if self.wanted('pose'):
                    self._others['pose'].publish(to_pose(
                        submap.map_from_camera(view),
                        to_header(keyframe.stamp_ns, self._map_frame)))
                self._publish_odometry(submap, view, keyframe)
        if self.wanted('points'):
            newest = by_id[submap.views[-1].keyframe_id]
            header = to_header(newest.stamp_ns, self._map_frame)
            self._others['points'].publish(
                or_on_host(partial(_cloud, submap, header), submap.views))

    def _publish_odometry(
        self, submap: Submap, view: Prediction, keyframe: Keyframe,
    ) -> None:
        names = [name for name in ODOMETRY if self.wanted(name)]
        if not names:
            return
        message = odometry_message(
            submap.map_from_camera(view), submap.covariances[keyframe.id], keyframe,
            self._map_frame, self._base_frame)
        for name in names:
            self._others[name].publish(ODOMETRY[name](message))

    def publish_map(self, cloud: PointCloud, stamp_ns: int) -> None:
        """Publish the whole map, which may be empty."""
        self._others['map'].publish(map_message(cloud, stamp_ns, self._map_frame))

    def publish_map_updates(self, cloud: PointCloud, stamp_ns: int) -> None:
        """Publish what came or changed in the map, if anything."""
        if len(cloud):
            self._others['map_updates'].publish(map_message(cloud, stamp_ns, self._map_frame))

    def publish_path(self, trajectory: Sequence[tuple[int, Array]], stamp_ns: int) -> None:
        """Publish the poses of all keyframes in the map, maybe none, if they have changed."""
        # What is not active publishes nothing: the path is still that of before.
        if self._others['path'].is_activated and self._path_maker.changed(trajectory):
            self._others['path'].publish(self._path_maker.message(trajectory, stamp_ns))


def _heard(publisher: LifecyclePublisher) -> bool:
    return publisher.is_activated and publisher.get_subscription_count() > 0


def _messages(
    keyframe: Keyframe, names: Sequence[str], views: Sequence[Prediction],
) -> dict[str, Any]:
    return keyframe_messages(views[0], keyframe.stamp_ns, keyframe.frame_id, names)


def _cloud(submap: Submap, header: Header, views: Sequence[Prediction]) -> PointCloud2:
    return to_cloud(torch.cat([
        pack_points(view, submap.map_from_camera(view)) for view in views]), header)
