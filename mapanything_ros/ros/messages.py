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

"""The messages of the output topics, the same whether they are published or written to a bag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry, Path
import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
import torch

from mapanything_ros.core.datatypes import Array, Keyframe, Prediction
from mapanything_ros.core.map.packing import pack_cloud, pack_points
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.ros.conversions import to_camera_info, to_cloud, to_image
from mapanything_ros.ros.transforms import to_header, to_pose

# What RTAB-Map calls no covariance, and then takes that of the pose; for others it is large.
UNKNOWN = 9999.0


def _camera_info(view: Prediction, header: Header) -> CameraInfo:
    height, width = view.depth_m.shape
    return to_camera_info(view.intrinsics, width, height, header)


def _depth(view: Prediction, header: Header) -> Image:
    return to_image(torch.where(view.mask, view.depth_m, torch.nan), '32FC1', header)


# By their topics' last names.
KEYFRAME: Mapping[str, Callable[[Prediction, Header], Any]] = {
    'image': lambda view, header: to_image(view.rgb, 'rgb8', header),
    'camera_info': _camera_info,
    'depth': _depth,
    'confidence': lambda view, header: to_image(view.confidence, '32FC1', header),
    'points': lambda view, header: to_cloud(pack_points(view), header),
}


def keyframe_messages(
    view: Prediction, stamp_ns: int, frame_id: str, names: Iterable[str] = tuple(KEYFRAME),
) -> dict[str, Any]:
    """Return messages of a keyframe, in its camera's frame, by the names of KEYFRAME."""
    header = to_header(stamp_ns, frame_id)
    return {name: KEYFRAME[name](view, header) for name in names}


def map_message(cloud: PointCloud, stamp_ns: int, map_frame: str) -> PointCloud2:
    """Return a cloud in the map frame, which may be empty."""
    return to_cloud(pack_cloud(cloud), to_header(stamp_ns, map_frame))


def odometry_message(
    map_from_camera: Array, covariance: Array, keyframe: Keyframe, map_frame: str, base_frame: str,
) -> Odometry:
    """
    Return a keyframe's pose as odometry of the robot's base, or of the camera where that has none.

    ``covariance`` (6,6) is the camera's, in the order of PoseWithCovariance. Its velocity is not
    known.
    """
    pose, child = map_from_camera, keyframe.frame_id
    if keyframe.base_from_camera is not None:
        pose, child = pose @ np.linalg.inv(keyframe.base_from_camera), base_frame
    x, y, z = pose[:3, 3] - map_from_camera[:3, 3]
    # What turns the camera moves the base, by turn x lever.
    lever = np.eye(6)
    lever[:3, 3:] = [[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]]
    header = to_header(keyframe.stamp_ns, map_frame)
    message = Odometry(header=header, child_frame_id=child, pose=PoseWithCovariance(
        pose=to_pose(pose, header).pose, covariance=(lever @ covariance @ lever.T).ravel()))
    message.twist.covariance = (UNKNOWN * np.eye(6)).ravel()
    return message


def pose_message(odometry: Odometry) -> PoseWithCovarianceStamped:
    """Return the pose of odometry."""
    return PoseWithCovarianceStamped(header=odometry.header, pose=odometry.pose)


class PathMaker:
    """
    Makes the message of a path again and again while it grows, for hours.

    Only poses that are new or differ are converted. An array must not change.
    """

    def __init__(self, map_frame: str) -> None:
        self._map_frame = map_frame
        self._known: list[tuple[int, Array, PoseStamped]] | None = None

    def changed(self, trajectory: Sequence[tuple[int, Array]]) -> bool:
        """Say whether the path differs from that of the last message, if there was one."""
        return (
            self._known is None or len(self._known) != len(trajectory)
            or not all(map(_same_pose, self._known, trajectory)))

    def message(self, trajectory: Sequence[tuple[int, Array]], stamp_ns: int) -> Path:
        """Return stamps (ns) and (4,4) poses in the map frame as a path, which may be empty."""
        known = (self._known or [])[:len(trajectory)]
        self._known = [
            old if old and _same_pose(old, new) else self._converted(*new)
            for old, new in zip_longest(known, trajectory)]
        return Path(
            header=to_header(stamp_ns, self._map_frame),
            poses=[message for _, _, message in self._known])

    def _converted(self, at_ns: int, pose: Array) -> tuple[int, Array, PoseStamped]:
        return at_ns, pose, to_pose(pose, to_header(at_ns, self._map_frame))


def _same_pose(known: tuple[int, Array, PoseStamped], new: tuple[int, Array]) -> bool:
    return known[0] == new[0] and (known[1] is new[1] or np.array_equal(known[1], new[1]))
