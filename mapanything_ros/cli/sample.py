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

"""Write the demo's sample: a rendered room along a hand-held path, as a ROS 2 bag with truth."""
import argparse
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
import shutil
import sys
import tempfile
from typing import Any

import cv2
import numpy as np
import open3d as o3d
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from scipy.spatial.transform import Rotation

from mapanything_ros.offline.bag import LATCHED, VERSION
from mapanything_ros.sample.hand_held import HandHeldPath, walk
from mapanything_ros.sample.room import Room

WIDTH, HEIGHT = 640, 480
INTRINSICS = np.array([[519.3, 0.0, 321.7], [0.0, 520.1, 238.4], [0.0, 0.0, 1.0]])
DISTORTION = np.array([-0.03, 0.01, 0.0005, -0.0003, 0.0])
CAMERA_FRAME = 'camera_color_optical_frame'
SCENE_FILE = 'scene.ply'

_TOPICS = {
    '/tf_static': 'tf2_msgs/msg/TFMessage',
    '/tf': 'tf2_msgs/msg/TFMessage',
    '/ground_truth/pose': 'geometry_msgs/msg/PoseStamped',
    '/camera/color/camera_info': 'sensor_msgs/msg/CameraInfo',
    '/camera/color/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
    '/camera/aligned_depth_to_color/image_raw': 'sensor_msgs/msg/Image',
}
_TYPES = get_typestore(Stores.ROS2_JAZZY)


class SampleError(Exception):
    """The sample cannot be written where it was asked for."""


@dataclass(frozen=True)
class SampleSummary:
    """What was written: folder, frames, true distance walked in metres and seconds covered."""

    bag: Path
    frames: int
    distance_m: float
    seconds: float

    def __str__(self) -> str:
        size_mb = sum(file.stat().st_size for file in self.bag.iterdir()) / 1e6
        return (f'Wrote {self.bag}: {self.frames} frames of {WIDTH}x{HEIGHT}, '
                f'{self.seconds:.1f} s, {self.distance_m:.1f} m of path, {size_mb:.0f} MB.\n'
                f'  true surface: {self.bag / SCENE_FILE}\n'
                + '\n'.join(f'  {topic}  [{kind}]' for topic, kind in _TOPICS.items()))


def write_sample(
    output: Path, seed: int = 0, frames: int = 400, rate_hz: float = 15.0, force: bool = False,
    processes: int = 2,
) -> SampleSummary:
    """
    Write the bag folder `output` with the true surface in ``scene.ply`` beside the recording.

    The same seed gives the same messages, whatever the number of `processes` that render. Raises
    SampleError when `output` exists and is not a sample to be replaced with `force`. An
    interrupted call leaves nothing behind.
    """
    if frames < 2 or rate_hz <= 0 or rate_hz > 500:
        raise SampleError(f'A sample needs at least 2 frames at a rate above 0 and up to 500 Hz, '
                          f'not {frames} at {rate_hz:g} Hz.')
    output = output.resolve()
    _check_replaceable(output, force)
    room = Room(seed)
    path = walk(frames, rate_hz, np.random.default_rng(seed))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.sample-', dir=output.parent) as folder:
        draft = Path(folder) / output.name
        # Closing ends the pool's work at once when writing fails or is interrupted.
        with closing(_photographs(path.world_from_camera, room, seed, processes)) as views, \
                Writer(draft, version=VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
            _write_messages(writer, path, _progress(views, frames))
        o3d.io.write_triangle_mesh(draft / SCENE_FILE, room.mesh())
        if output.exists():
            shutil.rmtree(output)
        draft.rename(output)
    steps = np.diff(path.world_from_camera[:, :3, 3], axis=0)
    return SampleSummary(output, frames, float(np.linalg.norm(steps, axis=1).sum()),
                         (path.image_stamps_ns[-1] - path.image_stamps_ns[0]) * 1e-9)


def _check_replaceable(output: Path, force: bool) -> None:
    if not output.exists():
        return
    if not force:
        raise SampleError(f'{output} exists already: pass --force to write it anew.')
    ours = {'metadata.yaml', SCENE_FILE, f'{output.name}.mcap'}
    if not output.is_dir() or not {file.name for file in output.iterdir()} <= ours:
        raise SampleError(f'{output} holds other things than a sample: choose another --output.')


def _write_messages(
    writer: Writer, path: HandHeldPath, views: Iterator[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write all messages in order of their stamps, the recording time being the stamp."""
    connections = {
        topic: writer.add_connection(
            topic, kind, typestore=_TYPES,
            offered_qos_profiles=[LATCHED] if topic == '/tf_static' else [])
        for topic, kind in _TOPICS.items()}

    def write(topic: str, stamp_ns: int, message: object) -> None:
        writer.write(connections[topic], stamp_ns, _TYPES.serialize_cdr(message, _TOPICS[topic]))

    first_ns = path.image_stamps_ns[0]
    write('/tf_static', first_ns, _tf_message(
        first_ns, 'base_link', CAMERA_FRAME, path.base_from_camera))
    for index, (stamp_ns, odom_from_base) in enumerate(
            zip(path.odom_stamps_ns, path.odom_from_base, strict=True)):
        write('/tf', stamp_ns, _tf_message(stamp_ns, 'odom', 'base_link', odom_from_base))
        if index % 2:
            continue
        pose, (jpeg, depth_mm) = path.world_from_camera[index // 2], next(views)
        write('/ground_truth/pose', stamp_ns, _pose_message(stamp_ns, pose))
        write('/camera/color/camera_info', stamp_ns, _camera_info(stamp_ns))
        write('/camera/color/image_raw/compressed', stamp_ns, _make(
            'sensor_msgs/msg/CompressedImage', header=_header(stamp_ns, CAMERA_FRAME),
            format='rgb8; jpeg compressed bgr8', data=jpeg))
        write('/camera/aligned_depth_to_color/image_raw', stamp_ns, _make(
            'sensor_msgs/msg/Image', header=_header(stamp_ns, CAMERA_FRAME), height=HEIGHT,
            width=WIDTH, encoding='16UC1', is_bigendian=0, step=2 * WIDTH,
            data=depth_mm.reshape(-1).view(np.uint8)))


class _Photographer:
    """Takes the sample's pictures; a process of a pool has one of its own."""

    own: '_Photographer'

    def __init__(self, room: Room) -> None:
        self._room = room

    def __call__(self, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the JPEG's bytes (N,) uint8 and the depth (H, W) uint16 in millimetres."""
        view = self._room.render(world_from_camera, INTRINSICS, WIDTH, HEIGHT, DISTORTION)
        _, jpeg = cv2.imencode('.jpg', view.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        return jpeg.reshape(-1), np.rint(view.depth_m * 1000).astype('<u2')

    @classmethod
    def hire(cls, seed: int) -> None:
        cls.own = cls(Room(seed))

    @classmethod
    def shoot(cls, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return cls.own(world_from_camera)


def _photographs(
    poses: np.ndarray, room: Room, seed: int, processes: int,
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yield each pose's JPEG and depth, from a pool when there is more than one process."""
    if processes == 1:
        yield from map(_Photographer(room), poses)
        return
    pool = ProcessPoolExecutor(processes, get_context('spawn'), _Photographer.hire, (seed,))
    try:
        yield from pool.map(_Photographer.shoot, poses)
    finally:
        pool.shutdown(cancel_futures=True)


def _progress(
    views: Iterator[tuple[np.ndarray, np.ndarray]], total: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for count, view in enumerate(views, 1):
        if count % 50 == 0 or count == total:
            print(f'rendered {count} of {total} frames', file=sys.stderr, flush=True)
        yield view


def _make(kind: str, **fields: Any) -> object:
    return _TYPES.types[kind](**fields)


def _header(stamp_ns: int, frame_id: str) -> object:
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return _make('std_msgs/msg/Header', frame_id=frame_id,
                 stamp=_make('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec))


def _xyz(transform: np.ndarray) -> dict[str, float]:
    return dict(zip('xyz', transform[:3, 3].tolist(), strict=True))


def _quaternion(transform: np.ndarray) -> object:
    xyzw = Rotation.from_matrix(transform[:3, :3]).as_quat()
    return _make('geometry_msgs/msg/Quaternion', **dict(zip('xyzw', xyzw.tolist(), strict=True)))


def _tf_message(stamp_ns: int, parent: str, child: str, parent_from_child: np.ndarray) -> object:
    transform = _make(
        'geometry_msgs/msg/Transform', rotation=_quaternion(parent_from_child),
        translation=_make('geometry_msgs/msg/Vector3', **_xyz(parent_from_child)))
    return _make('tf2_msgs/msg/TFMessage', transforms=[_make(
        'geometry_msgs/msg/TransformStamped', header=_header(stamp_ns, parent),
        child_frame_id=child, transform=transform)])


def _pose_message(stamp_ns: int, world_from_camera: np.ndarray) -> object:
    pose = _make('geometry_msgs/msg/Pose', orientation=_quaternion(world_from_camera),
                 position=_make('geometry_msgs/msg/Point', **_xyz(world_from_camera)))
    return _make('geometry_msgs/msg/PoseStamped', header=_header(stamp_ns, 'world'), pose=pose)


def _camera_info(stamp_ns: int) -> object:
    projection = np.concatenate([INTRINSICS, np.zeros((3, 1))], axis=1)
    return _make(
        'sensor_msgs/msg/CameraInfo', header=_header(stamp_ns, CAMERA_FRAME), height=HEIGHT,
        width=WIDTH, distortion_model='plumb_bob', d=DISTORTION, k=INTRINSICS.reshape(-1),
        r=np.eye(3).reshape(-1), p=projection.reshape(-1), binning_x=0, binning_y=0,
        roi=_make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0,
                  do_rectify=False))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='sample', description='Render a furnished room along a hand-held path and write it '
        'as a ROS 2 bag (MCAP) with exact depth, drifting odometry and ground truth.')
    parser.add_argument('--output', type=Path, default=Path('out/sample'), metavar='DIR',
                        help='the bag folder to write (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another room and path')
    parser.add_argument('--frames', type=int, default=400, help='images (default: %(default)s)')
    parser.add_argument('--rate', type=float, default=15.0, help='images a second (default: 15)')
    parser.add_argument('--force', action='store_true', help='replace an existing sample')
    chosen = parser.parse_args(arguments)
    try:
        summary = write_sample(
            chosen.output, chosen.seed, chosen.frames, chosen.rate, chosen.force)
    except (SampleError, OSError) as error:
        print(f'sample: {error}', file=sys.stderr)
        return 1
    print(summary)
    return 0


if __name__ == '__main__':
    sys.exit(main())
