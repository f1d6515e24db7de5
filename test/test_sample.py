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

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open3d as o3d
import pytest
from rosbags.interfaces import QosDurability, QosReliability
from scipy.spatial.transform import Rotation
import yaml

from mapanything_ros.cli.sample import main, SampleError, write_sample
from mapanything_ros.offline.bag import Bag
from mapanything_ros.sample.hand_held import walk
from mapanything_ros.sample.room import Room

FRAMES = 6
IMAGE = '/camera/color/image_raw/compressed'
DEPTH = '/camera/aligned_depth_to_color/image_raw'
INFO = '/camera/color/camera_info'
TRUTH = '/ground_truth/pose'


@pytest.fixture(scope='module')
def sample(tmp_path_factory) -> Path:
    return write_sample(
        tmp_path_factory.mktemp('sample') / 'room', frames=FRAMES, processes=1).bag


@pytest.fixture(scope='module')
def room() -> Room:
    return Room(seed=0)


def decoded(bag_path: Path, topic: str) -> list[Any]:
    with Bag(bag_path) as bag:
        return [bag.decode(message) for message in bag.messages([topic])]


def stamp_ns(header: Any) -> int:
    return header.stamp.sec * 10 ** 9 + header.stamp.nanosec


def matrix(translation: Any, rotation: Any) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(
        [rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    pose[:3, 3] = translation.x, translation.y, translation.z
    return pose


def transforms(bag_path: Path, topic: str) -> dict[int, tuple[str, str, np.ndarray]]:
    """Return parent, child and parent_from_child of each stamp."""
    return {stamp_ns(t.header): (t.header.frame_id, t.child_frame_id,
                                 matrix(t.transform.translation, t.transform.rotation))
            for message in decoded(bag_path, topic) for t in message.transforms}


def truth(bag_path: Path) -> dict[int, np.ndarray]:
    return {stamp_ns(m.header): matrix(m.pose.position, m.pose.orientation)
            for m in decoded(bag_path, TRUTH)}


def test_the_bag_has_the_topics_of_a_depth_camera_with_odometry(sample):
    with Bag(sample) as bag:
        assert bag.topics == {
            IMAGE: 'sensor_msgs/msg/CompressedImage', INFO: 'sensor_msgs/msg/CameraInfo',
            DEPTH: 'sensor_msgs/msg/Image', TRUTH: 'geometry_msgs/msg/PoseStamped',
            '/tf': 'tf2_msgs/msg/TFMessage', '/tf_static': 'tf2_msgs/msg/TFMessage'}
        counts = {topic: len(list(bag.messages([topic]))) for topic in bag.topics}
    assert counts == {IMAGE: FRAMES, INFO: FRAMES, DEPTH: FRAMES, TRUTH: FRAMES,
                      '/tf': 2 * FRAMES - 1, '/tf_static': 1}


def test_ros2_bag_play_would_latch_the_static_transform(sample):
    metadata = yaml.safe_load((sample / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    assert information['storage_identifier'] == 'mcap'
    offered = {topic['topic_metadata']['name']: topic['topic_metadata']['offered_qos_profiles']
               for topic in information['topics_with_message_count']}
    # Since version 9 they are no text, and Humble refuses the bag.
    assert information['version'] == 8 and all(isinstance(text, str) for text in offered.values())
    static, = yaml.safe_load(offered['/tf_static'])
    assert static['durability'] == QosDurability.TRANSIENT_LOCAL.value == 1
    assert static['reliability'] == QosReliability.RELIABLE.value == 1


def test_stamps_are_the_recording_times_exactly_in_order_and_odd(sample):
    with Bag(sample) as bag:
        messages = list(bag.messages())
        times = [m.log_time_ns for m in messages]
        stamps = [stamp_ns(d.transforms[0].header if hasattr(d, 'transforms') else d.header)
                  for d in map(bag.decode, messages)]
        image_times = [m.log_time_ns for m in messages if m.topic == IMAGE]
        for topic in (DEPTH, INFO, TRUTH):
            assert [m.log_time_ns for m in messages if m.topic == topic] == image_times
        tf_times = {m.log_time_ns for m in messages if m.topic == '/tf'}
    assert stamps == times == sorted(times)
    assert len(set(image_times)) == FRAMES and set(image_times) < tf_times
    # A float64 of seconds could not hold such stamps.
    assert sum(round(float(t) * 1e-9 * 1e9) != t or t % 1000 != 0 for t in image_times) == FRAMES
    assert np.diff(image_times) == pytest.approx(1e9 / 15, abs=900_000)


def test_the_transform_chain_is_the_truth_at_the_first_stamp(sample):
    poses = truth(sample)
    parent, child, base_from_camera = next(iter(transforms(sample, '/tf_static').values()))
    assert (parent, child) == ('base_link', 'camera_color_optical_frame')
    odometry = transforms(sample, '/tf')
    assert {names[:2] for names in odometry.values()} == {('odom', 'base_link')}
    first = min(poses)
    assert odometry[first][2] @ base_from_camera == pytest.approx(poses[first], abs=1e-9)
    assert base_from_camera[2, 3] >= 1.0
    # Optical axes: z looks ahead and a little down, y looks down.
    assert base_from_camera[0, 2] > 0.9 and -0.5 < base_from_camera[2, 2] < -0.1
    assert base_from_camera[2, 1] < -0.9


def test_depth_is_the_exact_depth_in_millimetres_registered_to_the_distorted_image(sample, room):
    info = decoded(sample, INFO)[0]
    intrinsics = info.k.reshape(3, 3)
    for message, pose in zip(decoded(sample, DEPTH), truth(sample).values(), strict=True):
        assert (message.encoding, message.step) == ('16UC1', 1280)
        depth_m = message.data.view('<u2').reshape(480, 640) / 1000
        pixels = np.stack(np.meshgrid(np.arange(0, 640, 4), np.arange(0, 480, 4)), -1)
        ways = cv2.undistortPointsIter(
            pixels.reshape(-1, 1, 2).astype(float), intrinsics, info.d, None, None,
            (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)).reshape(-1, 2)
        local = np.column_stack([ways, np.ones(len(ways))]) * depth_m[::4, ::4].reshape(-1, 1)
        points = local @ pose[:3, :3].T + pose[:3, 3]
        assert room.distance(points).max() < 0.7e-3


def test_the_image_is_what_the_described_camera_sees_from_the_true_pose(sample, room):
    info, pose = decoded(sample, INFO)[3], list(truth(sample).values())[3]
    message = decoded(sample, IMAGE)[3]
    assert message.format == 'rgb8; jpeg compressed bgr8'
    assert message.header.frame_id == info.header.frame_id == 'camera_color_optical_frame'
    rgb = cv2.imdecode(message.data, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    assert info.distortion_model == 'plumb_bob'
    expected = room.render(pose, info.k.reshape(3, 3), info.width, info.height, info.d).rgb
    assert np.abs(rgb - expected).mean() < 6
    plain = room.render(pose, info.k.reshape(3, 3), info.width, info.height).rgb
    assert np.abs(rgb - plain).mean() > 10
    assert info.p.reshape(3, 4)[:, :3] == pytest.approx(info.k.reshape(3, 3))
    assert info.r == pytest.approx(np.eye(3).reshape(-1))


def test_the_true_surface_beside_the_bag_is_the_room(sample, room):
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.t.io.read_triangle_mesh(str(sample / 'scene.ply')))
    points = np.random.default_rng(1).uniform((0, 0, 0), (5, 4, 2.5), (2000, 3)).astype(np.float32)
    assert scene.compute_distance(o3d.core.Tensor(points)).numpy() == pytest.approx(
        room.distance(points), abs=1e-5)


def payloads(path: Path) -> list[tuple[str, int, bytes]]:
    with Bag(path) as bag:
        return [(m.topic, m.log_time_ns, m.cdr) for m in bag.messages()]


def test_a_seed_gives_the_same_bytes_however_many_processes_render(sample, tmp_path):
    again = write_sample(tmp_path / 'again', frames=FRAMES, processes=2)
    assert payloads(again.bag) == payloads(sample)


def test_another_seed_is_another_sample(sample, tmp_path):
    other = write_sample(tmp_path / 'other', seed=1, frames=2, processes=1)
    assert next(iter(truth(other.bag).values())) != pytest.approx(
        next(iter(truth(sample).values())), abs=1e-3)


@pytest.mark.parametrize('seed', range(4))
def test_the_walk_is_long_smooth_and_gentle(seed):
    path = walk(400, 15.0, np.random.default_rng(seed))
    positions = path.world_from_camera[:, :3, 3]
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    assert 8 < steps.sum() < 10
    # Never parked, never a leap: neighbours of 0.1 to 0.25 m are a few frames apart.
    assert steps.min() > 0.01 and steps.max() < 0.035
    assert np.linalg.norm(np.diff(positions, 2, axis=0), axis=1).max() * 15 ** 2 < 1.5
    rotations = Rotation.from_matrix(path.world_from_camera[:, :3, :3])
    turns_deg = np.degrees((rotations[:-1].inv() * rotations[1:]).magnitude()) * 15
    assert turns_deg.max() < 40 and np.median(turns_deg) < 25
    level = (path.world_from_camera @ np.linalg.inv(path.base_from_camera))[:, 2, 2]
    assert np.degrees(np.arccos(level)).max() < 15


def test_the_walk_keeps_clear_of_the_furniture(room):
    path = walk(400, 15.0, np.random.default_rng(0))
    assert room.distance(path.world_from_camera[:, :3, 3]).min() > 0.4
    intrinsics = np.array([[130.0, 0, 80], [0, 130, 60], [0, 0, 1]])
    nearest_m = [room.render(pose, intrinsics, 160, 120, supersample=1).depth_m.min()
                 for pose in path.world_from_camera[::10]]
    assert min(nearest_m) > 0.7


@pytest.mark.parametrize('seed', range(8))
def test_the_odometry_drifts_by_about_one_percent_smoothly(seed):
    path = walk(400, 15.0, np.random.default_rng(seed))
    true = path.world_from_camera @ np.linalg.inv(path.base_from_camera)
    odometry = path.odom_from_base[::2]
    assert path.odom_stamps_ns[::2] == path.image_stamps_ns
    assert odometry[0] == pytest.approx(true[0], abs=1e-12)
    walked_m = np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum()
    off_m = np.linalg.norm(odometry[:, :3, 3] - true[:, :3, 3], axis=1)
    assert 0.001 * walked_m < off_m.max() < 0.02 * walked_m
    turned = Rotation.from_matrix(odometry[-1, :3, :3].T @ true[-1, :3, :3]).magnitude()
    assert np.degrees(turned) < 1.5
    errors = np.linalg.inv(true[:-1]) @ true[1:] @ np.linalg.inv(
        np.linalg.inv(odometry[:-1]) @ odometry[1:])
    assert np.linalg.norm(errors[:, :3, 3], axis=1).max() < 0.003


def test_an_existing_sample_is_kept_unless_forced_and_nothing_else_is_ever_removed(
        tmp_path, capsys):
    target = tmp_path / 'kept'
    arguments = ['--output', str(target), '--frames', '2']
    write_sample(target, frames=2, processes=1)
    before = payloads(target)
    assert main(arguments) == 1
    assert '--force' in capsys.readouterr().err
    assert payloads(target) == before
    write_sample(target, seed=1, frames=2, force=True, processes=1)
    assert payloads(target) != before
    (target / 'notes.txt').write_text('mine')
    assert main([*arguments, '--force']) == 1
    assert 'choose another' in capsys.readouterr().err
    assert (target / 'notes.txt').read_text() == 'mine'


def test_a_sample_of_one_frame_or_no_rate_is_refused(tmp_path):
    with pytest.raises(SampleError, match='at least 2 frames'):
        write_sample(tmp_path / 'bag', frames=1)
    with pytest.raises(SampleError, match='0 Hz'):
        write_sample(tmp_path / 'bag', rate_hz=0.0)
    assert not list(tmp_path.iterdir())
