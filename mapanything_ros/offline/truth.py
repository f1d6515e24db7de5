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

"""What a bag knows besides its images: which topics to use, true poses and depth, odometry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.compressed_depth import decode_depth
from mapanything_ros.core.measures.evaluation import RecordedCamera, Trajectory
from mapanything_ros.offline.bag import Bag

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
COMPRESSED_DEPTH = '/compressedDepth'
TRUE_POSE_TOPIC = '/ground_truth/pose'
TRUE_SURFACE_FILE = 'scene.ply'


@dataclass(frozen=True)
class Topics:
    """
    The topics of a bag that the demo plays; ``depth`` is None where there is none.

    ``depth_camera_info`` is the calibration beside the depth, None where there is none.
    """

    image: str
    compressed: bool
    camera_info: str
    depth: str | None
    depth_compressed: bool = False
    depth_camera_info: str | None = None


def choose_topics(bag: Bag, image: str = '', camera_info: str = '', depth: str = '') -> Topics:
    """
    Choose an open bag's topics by type, or by name where one is given.

    The camera_info beside the image is preferred, and depth that is ``aligned`` or ``registered``
    by its name. A choice that is not clear raises BagError with the candidates.
    """
    image, compressed = choose_image(bag, image)
    chosen, depth_compressed = choose_depth(bag, depth)
    return Topics(
        image=image, compressed=compressed,
        camera_info=choose_camera_info(bag, image, camera_info), depth=chosen,
        depth_compressed=depth_compressed,
        depth_camera_info=chosen and camera_info_beside(bag, chosen))


def choose_image(bag: Bag, name: str) -> tuple[str, bool]:
    """Return the topic of the images (raw before compressed), and whether it is compressed."""
    raw = [topic for topic, kind in bag.topics.items() if kind == IMAGE and 'depth' not in topic]
    kind = IMAGE if raw else COMPRESSED_IMAGE
    if name:
        kind = COMPRESSED_IMAGE if bag.topics.get(name) == COMPRESSED_IMAGE else IMAGE
    topic = bag.find_topic(kind, name or None, without='depth', hint='choose with --image-topic')
    return topic, kind == COMPRESSED_IMAGE


def choose_camera_info(
    bag: Bag, image: str, name: str, hint: str = 'choose with --camera-info-topic',
) -> str:
    """Return the topic of the calibration, that beside the images where there is one."""
    beside = camera_info_beside(bag, image)
    if not name and beside:
        return beside
    return bag.find_topic(CAMERA_INFO, name or None, hint=hint)


def camera_info_beside(bag: Bag, image: str) -> str | None:
    """Return the topic of the calibration beside images, as image_transport has it; or None."""
    base = image.removesuffix('/compressed').removesuffix(COMPRESSED_DEPTH)
    topic = f'{base.rsplit("/", 1)[0]}/camera_info'
    return topic if bag.topics.get(topic) == CAMERA_INFO else None


def choose_depth(bag: Bag, name: str) -> tuple[str | None, bool]:
    """
    Return the topic of the depth images (None without any), and whether it is compressed.

    Depth that is registered by its name is preferred, and of one depth the raw images.
    """
    depths = {
        topic: kind for topic, kind in bag.topics.items()
        if kind == IMAGE and 'depth' in topic
        or kind == COMPRESSED_IMAGE and topic.endswith(COMPRESSED_DEPTH)}
    if not (name or depths):
        return None, False
    word = next((w for w in ('aligned', 'registered') for topic in depths if w in topic), '')
    fitting = [topic for topic in depths if word in topic]
    fitting = [topic for topic in fitting if depths[topic] == IMAGE] or fitting
    kind = bag.topics.get(name, IMAGE) if name else depths[fitting[0]]
    topic = bag.find_topic(
        COMPRESSED_IMAGE if kind == COMPRESSED_IMAGE else IMAGE,
        name or (fitting[0] if len(fitting) == 1 else None), containing=word or 'epth',
        hint='choose with --depth-topic')
    return topic, kind == COMPRESSED_IMAGE


def read_messages(folder: Path, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield topic and decoded message for those of the topics that a bag has, as recorded."""
    with Bag(folder) as bag:
        for message in bag.messages([topic for topic in topics if topic in bag.topics]):
            yield message.topic, bag.decode(message)


def stamp_ns(message: Any) -> int:
    """Return the header's stamp of a message in nanoseconds."""
    stamp: Any = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def read_camera(folder: Path, topic: str, *, rectified: bool) -> tuple[RecordedCamera, str]:
    """Return the first camera_info of a topic and its frame_id; rectified reads P and no D."""
    for _, info in read_messages(folder, {topic}):
        if rectified:
            matrix, distortion = np.reshape(info.p, (3, 4))[:, :3], ()
        elif info.distortion_model in ('plumb_bob', 'rational_polynomial', ''):
            matrix, distortion = np.reshape(info.k, (3, 3)), tuple(info.d)
        else:
            raise InputError(
                f'depth cannot be compared through the distortion model {info.distortion_model}')
        camera = RecordedCamera(
            info.width, info.height, np.asarray(matrix, float), tuple(map(float, distortion)))
        return camera, info.header.frame_id
    raise InputError(f'the bag has no message on {topic}')


def read_poses(folder: Path) -> Trajectory:
    """Return the true ``world_from_camera``; none raises InputError."""
    poses = {
        stamp_ns(message): pose_matrix(message.pose.position, message.pose.orientation)
        for _, message in read_messages(folder, {TRUE_POSE_TOPIC})}
    if not poses:
        raise InputError(f'the bag has no true poses on {TRUE_POSE_TOPIC}')
    return _trajectory(poses)


def read_odometry(
    folder: Path, odom_frame: str, camera_frame: str, stamps_ns: NDArray[np.int64],
    max_gap_s: float = math.inf,
) -> Trajectory:
    """
    Return ``odom_from_camera`` from the bag's TF at those of the stamps that it covers.

    It is interpolated between transforms that are up to ``max_gap_s`` apart.
    """
    edges: dict[str, tuple[str, dict[int, Array]]] = {}
    fixed: set[str] = set()
    for topic, message in read_messages(folder, {'/tf', '/tf_static'}):
        for stamped in message.transforms:
            child, parent = stamped.child_frame_id, stamped.header.frame_id
            move = stamped.transform
            known = edges.setdefault(child, (parent, {}))[1]
            known[stamp_ns(stamped)] = pose_matrix(move.translation, move.rotation)
            if topic == '/tf_static':
                fixed.add(child)
    stamps, poses = np.unique(stamps_ns), np.eye(4)
    frame = camera_frame
    while frame != odom_frame:
        if frame not in edges:
            raise InputError(f'the bag has no transform from {camera_frame} to {odom_frame}')
        parent, known = edges.pop(frame)
        if frame in fixed:
            poses = next(reversed(known.values())) @ poses
        else:
            part = _trajectory(known).interpolate(stamps, max_gap_s)
            if poses.ndim == 3:
                poses = poses[np.isin(stamps, part.stamps_ns)]
            stamps, poses = part.stamps_ns, part.poses @ poses
        frame = parent
    if poses.ndim == 2:
        poses = np.repeat(poses[None], len(stamps), axis=0)
    if not len(stamps):
        raise InputError(f'{odom_frame} is not known at the stamp of any image')
    return Trajectory(stamps, poses)


def read_depth(
    folder: Path, topic: str, frame_id: str, wanted: Callable[[int], bool],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """
    Yield stamp and (H,W) metres, 0 or NaN where invalid, of the wanted depth images.

    They must be in the frame of the image, ``frame_id``: other depth is not registered to it.
    """
    for _, message in read_messages(folder, {topic}):
        stamp = stamp_ns(message)
        if wanted(stamp):
            if message.header.frame_id != frame_id:
                raise InputError(
                    f'{topic} is in {message.header.frame_id}, the image in {frame_id}: that '
                    'depth is not registered to the image')
            yield stamp, _metres(message)


def _metres(message: Any) -> NDArray[np.float32]:
    """Return the (H,W) metres of a depth image, compressed or not."""
    if message.__msgtype__ == COMPRESSED_IMAGE:
        values = decode_depth(message.format, message.data)
    elif message.encoding in ('16UC1', 'mono16', '32FC1'):
        values = image_array(message)
    else:
        raise InputError(
            f'depth has the encoding {message.encoding}; 16UC1 (mm) and 32FC1 (m) can be read')
    return values.astype(np.float32) * np.float32(0.001 if values.dtype == np.uint16 else 1.0)


def image_array(message: Any) -> NDArray[Any]:
    """Return the (H,W) or (H,W,3) pixels of an Image whose encoding the demo meets."""
    dtype, channels = {
        'rgb8': ('u1', 3), '16UC1': ('u2', 1), 'mono16': ('u2', 1), '32FC1': ('f4', 1),
    }[message.encoding]
    order = '>' if message.is_bigendian else '<'
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    size = message.width * channels * np.dtype(dtype).itemsize
    pixels = np.ascontiguousarray(rows[:, :size]).view(order + dtype)
    shape = (message.height, message.width)
    return pixels.reshape(shape if channels == 1 else (*shape, channels))


def _trajectory(poses: dict[int, Array]) -> Trajectory:
    stamps = sorted(poses)
    return Trajectory(np.array(stamps, np.int64), np.stack([poses[stamp] for stamp in stamps]))


def pose_matrix(position: Any, orientation: Any) -> Array:
    """Return the (4,4) transform of a message's position and quaternion."""
    matrix = np.eye(4)
    quat_xyzw = [orientation.x, orientation.y, orientation.z, orientation.w]
    matrix[:3, :3] = Rotation.from_quat(quat_xyzw).as_matrix()
    matrix[:3, 3] = position.x, position.y, position.z
    return matrix
