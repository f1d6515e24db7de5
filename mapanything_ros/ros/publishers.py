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

from collections.abc import Sequence

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
import torch

from mapanything_ros.core.datatypes import Array, Keyframe, Prediction, Submap
from mapanything_ros.core.packing import pack_cloud, pack_points
from mapanything_ros.core.voxel_map import PointCloud
from mapanything_ros.ros.conversions import to_camera_info, to_cloud, to_image
from mapanything_ros.ros.transforms import to_header, to_pose

# One message a keyframe, and a window's keyframes come at once.
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Publishers:
    """The node's output topics, but for TF and diagnostics; silent while the node is inactive."""

    def __init__(self, node: LifecycleNode, map_frame: str) -> None:
        self._map_frame = map_frame
        create = node.create_lifecycle_publisher
        self._image = create(Image, '~/keyframe/image', RELIABLE)
        self._camera_info = create(CameraInfo, '~/keyframe/camera_info', RELIABLE)
        self._depth = create(Image, '~/keyframe/depth', RELIABLE)
        self._confidence = create(Image, '~/keyframe/confidence', RELIABLE)
        self._keyframe_points = create(PointCloud2, '~/keyframe/points', RELIABLE)
        self._points = create(PointCloud2, '~/points', RELIABLE)
        self._map = create(PointCloud2, '~/map', LATCHED)
        self._map_updates = create(PointCloud2, '~/map_updates', RELIABLE)
        self._path = create(Path, '~/path', LATCHED)
        self._pose = create(PoseStamped, '~/pose', RELIABLE)
        self._all = [
            self._image, self._camera_info, self._depth, self._confidence, self._keyframe_points,
            self._points, self._map, self._map_updates, self._path, self._pose]

    def destroy(self, node: LifecycleNode) -> None:
        """Give the topics back."""
        for publisher in self._all:
            node.destroy_lifecycle_publisher(publisher)

    def publish_window(self, submap: Submap, keyframes: Sequence[Keyframe]) -> None:
        """Publish the new keyframes of a window, each at its own stamp, and its points."""
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        for view in submap.views:
            if view.keyframe_id in submap.new_ids:
                self._publish_keyframe(view, by_id[view.keyframe_id])
                self._pose.publish(to_pose(
                    submap.map_from_camera(view),
                    to_header(by_id[view.keyframe_id].stamp_ns, self._map_frame)))
        points = [pack_points(view, submap.map_from_camera(view)) for view in submap.views]
        newest = by_id[submap.views[-1].keyframe_id]
        self._points.publish(
            to_cloud(torch.cat(points), to_header(newest.stamp_ns, self._map_frame)))

    def map_wanted(self) -> bool:
        """Say whether somebody listens to the whole map."""
        return self._map.get_subscription_count() > 0

    def map_updates_wanted(self) -> bool:
        """Say whether somebody listens to what changes in the map."""
        return self._map_updates.get_subscription_count() > 0

    def publish_map(self, cloud: PointCloud, stamp_ns: int) -> None:
        """Publish the whole map, which may be empty."""
        self._map.publish(to_cloud(pack_cloud(cloud), to_header(stamp_ns, self._map_frame)))

    def publish_map_updates(self, cloud: PointCloud, stamp_ns: int) -> None:
        """Publish what came or changed in the map, if anything."""
        if len(cloud):
            self._map_updates.publish(
                to_cloud(pack_cloud(cloud), to_header(stamp_ns, self._map_frame)))

    def publish_path(self, trajectory: Sequence[tuple[int, Array]], stamp_ns: int) -> None:
        """Publish the poses of all keyframes in the map, which may be none."""
        header = to_header(stamp_ns, self._map_frame)
        self._path.publish(Path(header=header, poses=[
            to_pose(pose, to_header(at_ns, self._map_frame)) for at_ns, pose in trajectory]))

    def _publish_keyframe(self, view: Prediction, keyframe: Keyframe) -> None:
        header = to_header(keyframe.stamp_ns, keyframe.frame_id)
        height, width = view.depth_m.shape
        depth_m = torch.where(view.mask, view.depth_m, torch.nan)
        self._image.publish(to_image(view.rgb, 'rgb8', header))
        self._camera_info.publish(to_camera_info(view.intrinsics, width, height, header))
        self._depth.publish(to_image(depth_m, '32FC1', header))
        self._confidence.publish(to_image(view.confidence, '32FC1', header))
        self._keyframe_points.publish(to_cloud(pack_points(view, np.eye(4)), header))
