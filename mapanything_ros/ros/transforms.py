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

"""Between (4,4) matrices, integer stamps and their messages; lookups in the TF tree."""

from __future__ import annotations

from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseStamped,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
import numpy as np
from rclpy.time import Time
from std_msgs.msg import Header
from tf2_ros import Buffer
from tf_transformations import quaternion_from_matrix, quaternion_matrix

from mapanything_ros.core.datatypes import Array


def to_ns(stamp: TimeMsg) -> int:
    """Return a stamp as integer nanoseconds."""
    return stamp.sec * 10**9 + stamp.nanosec


def to_header(stamp_ns: int, frame_id: str) -> Header:
    """Return a header with exactly this stamp."""
    sec, nanosec = divmod(stamp_ns, 10**9)
    return Header(stamp=TimeMsg(sec=sec, nanosec=nanosec), frame_id=frame_id)


def to_matrix(transform: Transform) -> Array:
    """Return the (4,4) matrix of a transform message."""
    return _matrix(transform.translation, transform.rotation)


def pose_to_matrix(pose: Pose) -> Array:
    """Return the (4,4) matrix of a pose message."""
    return _matrix(pose.position, pose.orientation)


def to_transform(
    target_from_source: Array, header: Header, child_frame_id: str
) -> TransformStamped:
    """Return the transform message from child (source) to header.frame_id (target)."""
    message = TransformStamped(header=header, child_frame_id=child_frame_id)
    _fill(message.transform.translation, message.transform.rotation, target_from_source)
    return message


def to_pose(target_from_source: Array, header: Header) -> PoseStamped:
    """Return the pose of the source frame in header.frame_id (target)."""
    pose = Pose()
    _fill(pose.position, pose.orientation, target_from_source)
    return PoseStamped(header=header, pose=pose)


def _matrix(t: Point | Vector3, q: Quaternion) -> Array:
    matrix: Array = quaternion_matrix([q.x, q.y, q.z, q.w])
    matrix[:3, 3] = t.x, t.y, t.z
    return matrix


def _fill(position: object, orientation: object, matrix: Array) -> None:
    position.x, position.y, position.z = (float(v) for v in matrix[:3, 3])  # type: ignore[attr-defined]
    x, y, z, w = (float(v) for v in quaternion_from_matrix(matrix))
    orientation.x, orientation.y, orientation.z, orientation.w = x, y, z, w  # type: ignore[attr-defined]


def lookup(buffer: Buffer, target: str, source: str, stamp_ns: int) -> Array:
    """
    Return (4,4) ``target_from_source`` at exactly this time, interpolated.

    Never waits: raises tf2_ros.TransformException where the tree does not tell yet.
    """
    transform = buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns)).transform
    matrix = to_matrix(transform)
    if not np.isfinite(matrix).all():
        raise ValueError(f'the transform from {source} to {target} is not finite')
    return matrix
