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

"""What the node would publish, as a bag to play beside the input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from tf2_msgs.msg import TFMessage

from mapanything_ros.core.config import Config, TfConfig
from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.map.export import whole
from mapanything_ros.core.map.packing import pack_points
from mapanything_ros.core.map.voxel_map import VoxelMap
from mapanything_ros.offline.bag import LATCHED, VERSION
from mapanything_ros.offline.export.views import inverse
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore
from mapanything_ros.ros.conversions import to_cloud
from mapanything_ros.ros.messages import keyframe_messages, map_message, PathMaker
from mapanything_ros.ros.transforms import to_header, to_pose, to_transform

NODE = '/mapanything'
LASTING = {f'{NODE}/map', f'{NODE}/path'}
TYPES = {
    **{f'{NODE}/keyframe/{name}': f'sensor_msgs/msg/{kind}' for name, kind in {
        'image': 'Image', 'camera_info': 'CameraInfo', 'depth': 'Image', 'confidence': 'Image',
        'points': 'PointCloud2'}.items()},
    f'{NODE}/points': 'sensor_msgs/msg/PointCloud2',
    f'{NODE}/map': 'sensor_msgs/msg/PointCloud2',
    f'{NODE}/map_updates': 'sensor_msgs/msg/PointCloud2',
    f'{NODE}/path': 'nav_msgs/msg/Path',
    f'{NODE}/pose': 'geometry_msgs/msg/PoseStamped',
    '/tf': 'tf2_msgs/msg/TFMessage',
}


class _Output(NamedTuple):
    stamp_ns: int
    topic: str
    message: Any


def write_bag(folder: Path, keyframes: KeyframeStore, config: Config) -> None:
    """
    Write an MCAP bag of the node's topics, frames and stamps; raise ExportError.

    All is at its final place: poses do not jump when a loop closes. A message is recorded at its
    keyframe's stamp, so that the bag runs in step with the one it came from. ~/points has the
    newest keyframe, ~/map and ~/path come as often as config.map says and at the end. TF follows
    config.tf_mode.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    with whole(folder) as part:
        writer = Writer(part, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connections = {
                topic: writer.add_connection(
                    topic, kind, typestore=store,
                    offered_qos_profiles=[LATCHED] if topic in LASTING else [])
                for topic, kind in TYPES.items()}
            for output in _in_step(keyframes, config):
                writer.write(
                    connections[output.topic], output.stamp_ns,
                    serialize_message(output.message))


def _in_step(keyframes: KeyframeStore, config: Config) -> Iterator[_Output]:
    """Yield all messages in order of their stamps."""
    corrections = _Corrections(config.tf)
    maps = _Maps(keyframes, config)
    for record in keyframes:
        if config.tf_mode == 'map_to_odom':
            yield from corrections.until(record)
        elif config.tf_mode == 'map_to_camera':
            yield _camera_transform(record, config.tf)
        yield from _keyframe(record, config.tf.map_frame)
        yield from maps.after(record)


def _keyframe(record: KeyframeRecord, map_frame: str) -> Iterator[_Output]:
    view, stamp_ns = record.prediction(), record.stamp_ns
    for name, message in keyframe_messages(view, stamp_ns, record.frame_id).items():
        yield _Output(stamp_ns, f'{NODE}/keyframe/{name}', message)
    header = to_header(stamp_ns, map_frame)
    yield _Output(stamp_ns, f'{NODE}/pose', to_pose(record.map_from_camera, header))
    yield _Output(stamp_ns, f'{NODE}/points', to_cloud(
        pack_points(view, record.map_from_camera), header))


def _camera_transform(record: KeyframeRecord, tf: TfConfig) -> _Output:
    pose, child = record.map_from_camera, record.frame_id
    if record.base_from_camera is not None:
        pose, child = pose @ inverse(record.base_from_camera), tf.base_frame
    return _transform(pose, record.stamp_ns, tf.map_frame, child)


def _transform(pose: Array, stamp_ns: int, parent: str, child: str) -> _Output:
    message = to_transform(pose, to_header(stamp_ns, parent), child)
    return _Output(stamp_ns, '/tf', TFMessage(transforms=[message]))


class _Corrections:
    """The correction of odometry at a steady rate; it changes at keyframes."""

    def __init__(self, tf: TfConfig) -> None:
        self._tf = tf
        self._period_ns = round(1e9 / tf.rate_hz)
        self._map_from_odom: Array = np.eye(4)
        self._sent_ns: int | None = None

    def until(self, record: KeyframeRecord) -> Iterator[_Output]:
        """Yield what holds until this keyframe, and what holds from it on."""
        at_ns = record.stamp_ns if self._sent_ns is None else self._sent_ns + self._period_ns
        for stamp_ns in range(at_ns, record.stamp_ns, self._period_ns):
            yield self._output(stamp_ns)
        if record.odom_from_camera is not None:
            self._map_from_odom = record.map_from_camera @ inverse(record.odom_from_camera)
        yield self._output(record.stamp_ns)
        self._sent_ns = record.stamp_ns

    def _output(self, stamp_ns: int) -> _Output:
        return _transform(self._map_from_odom, stamp_ns, self._tf.map_frame, self._tf.odom_frame)


class _Maps:
    """The map and the path as they grow."""

    def __init__(self, keyframes: KeyframeStore, config: Config) -> None:
        self._config = config
        self._voxels = VoxelMap(config.map)
        self._trajectory = keyframes.trajectory()
        self._path_maker = PathMaker(config.tf.map_frame)
        self._seen = 0
        self._told_ns = self._whole_ns = self._trajectory[0][0] if self._trajectory else 0

    def after(self, record: KeyframeRecord) -> Iterator[_Output]:
        """Add a keyframe; yield what is due by then, all of it after the last one."""
        stamp_ns, config = record.stamp_ns, self._config.map
        frame = self._config.tf.map_frame
        self._voxels.insert(record.prediction(), record.map_from_camera)
        self._seen += 1
        last = self._seen == len(self._trajectory)
        if last or stamp_ns - self._told_ns >= config.period_s * 1e9:
            self._told_ns = stamp_ns
            yield _Output(stamp_ns, f'{NODE}/map_updates', map_message(
                self._voxels.updates(), stamp_ns, frame))
            yield _Output(stamp_ns, f'{NODE}/path', self._path_maker.message(
                self._trajectory[:self._seen], stamp_ns))
        if last or stamp_ns - self._whole_ns >= config.full_period_s * 1e9:
            self._whole_ns = stamp_ns
            yield _Output(stamp_ns, f'{NODE}/map', map_message(
                self._voxels.points(), stamp_ns, frame))
