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

"""The room as somebody would have recorded it, photos or a bag, and runs on that."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from helpers import (
    BASE_FROM_CAMERA,
    camera_info,
    camera_on_path,
    compressed,
    ExactBackend,
    FRAME,
    header,
    image,
    K,
    ODOM_FROM_WORLD,
    Seen,
    stamp_of,
    transform,
    view_room,
)
import numpy as np
from PIL import Image as Picture
import pytest
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from tf2_msgs.msg import TFMessage

from mapanything_ros.cli import reconstruct

CAMERA_FROM_BASE = np.linalg.inv(BASE_FROM_CAMERA)
START_NS = 1_700_000_000_123_456_789
STEP_NS = 100_000_001
INTRINSICS = f'{K[0, 0]},{K[1, 1]},{K[0, 2]},{K[1, 2]}'
TYPES = get_typestore(Stores.ROS2_JAZZY)
SMALL = [
    '--set', 'window.size=3', '--set', 'window.overlap=1', '--set', 'map.min_views=1',
    '--set', 'keyframes.min_sharpness=0', '--device', 'cpu', '--no-report']


def seen_on_path(count: int, start_ns: int = START_NS, step_ns: int = STEP_NS) -> list[Seen]:
    """Return what the camera sees on its path, every second step of it."""
    return [
        Seen(start_ns + i * step_ns, camera_on_path(i), *view_room(camera_on_path(i)))
        for i in range(count)]


def write_photos(folder: Path, count: int) -> list[Seen]:
    """Write photo_1.png and so on; the stamps are those that photos get."""
    folder.mkdir(parents=True)
    all_seen = seen_on_path(count, 10**9, 10**9)
    for number, seen in enumerate(all_seen, start=1):
        Picture.fromarray(seen.rgb).save(folder / f'photo_{number}.png')
    return all_seen


def write_calibration(path: Path, k: np.ndarray, distortion: Sequence[float] = (0.0,) * 5) -> None:
    """Write the camera as ROS's camera_calibration does."""
    p = np.hstack([k, np.zeros((3, 1))])
    path.write_text(
        'image_width: 160\nimage_height: 120\ncamera_name: camera\n'
        f'camera_matrix: {{rows: 3, cols: 3, data: {k.ravel().tolist()}}}\n'
        'distortion_model: plumb_bob\n'
        f'distortion_coefficients: {{rows: 1, cols: 5, data: {list(distortion)}}}\n'
        f'projection_matrix: {{rows: 3, cols: 4, data: {p.ravel().tolist()}}}\n')


def messages_of(
    all_seen: Sequence[Seen], form: str = '', leave_out: Sequence[str] = (),
) -> list[tuple[str, int, Any]]:
    """
    Return topic, time and message of a whole recording; ``form`` is '' (raw), 'jpg' or 'png'.

    Calibration and odometry come late, as they do over a network.
    """
    mounted = TFMessage(transforms=[transform(BASE_FROM_CAMERA, header(1, 'base'), FRAME)])
    late_ns = STEP_NS // 2
    said: list[tuple[str, int, Any]] = [
        ('/tf_static', START_NS, mounted), ('/cam/camera_info', START_NS + late_ns, camera_info())]
    for seen in all_seen:
        name = '/cam/image/compressed' if form else '/cam/image'
        picture = (
            compressed(seen.rgb, form, seen.stamp_ns) if form
            else image(seen.rgb, 'rgb8', seen.stamp_ns))
        odom_from_base = ODOM_FROM_WORLD @ seen.world_from_camera @ CAMERA_FROM_BASE
        moved = TFMessage(
            transforms=[transform(odom_from_base, header(seen.stamp_ns, 'odom'), 'base')])
        depth = image(seen.depth_m, '32FC1', seen.stamp_ns)
        said += [
            (name, seen.stamp_ns, picture), ('/cam/depth', seen.stamp_ns + late_ns, depth),
            ('/tf', seen.stamp_ns + 20 * STEP_NS, moved)]
    return sorted((item for item in said if item[0] not in leave_out), key=lambda item: item[1])


def write_bag(
    folder: Path, messages: Sequence[tuple[str, int, Any]],
    storage: StoragePlugin = StoragePlugin.MCAP,
) -> Path:
    """Write messages, each at its time, and return the folder."""
    with Writer(folder, version=9, storage_plugin=storage) as writer:
        connections = {}
        for topic, time_ns, message in messages:
            if topic not in connections:
                package, name = type(message).__module__.split('.')[0], type(message).__name__
                connections[topic] = writer.add_connection(
                    topic, f'{package}/msg/{name}', typestore=TYPES)
            writer.write(connections[topic], time_ns, serialize_message(message))
    return folder


def stamps_of(messages: Sequence[tuple[str, int, Any]], topic: str) -> list[int]:
    return [stamp_of(message) for name, _, message in messages if name == topic]


class Runs:
    """Runs reconstruct on small windows with a backend that knows the truth, or another."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.backend = ExactBackend()
        patch.setattr(
            'mapanything_ros.cli.reconstruct.create_backend', lambda config: self.backend)

    def __call__(
        self, source: object, output: Path, *more: str, seen: Sequence[Seen] = (),
    ) -> int:
        self.backend.seen = {view.stamp_ns: view for view in seen}
        return reconstruct.main([str(source), '--output', str(output), *SMALL, *more])


def summary_of(output: Path) -> dict[str, Any]:
    return json.loads((output / 'summary.json').read_text())
