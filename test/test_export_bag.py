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

"""The bag of outputs has what the node publishes, and plays."""

from dataclasses import replace
from threading import Event

from helpers import (
    back_projected,
    BASE_FROM_CAMERA,
    FRAME,
    intrinsics_of,
    matrix_of,
    ODOM_FROM_WORLD,
    pixels_of,
    points_of,
    stamp_of,
    transformed,
)
import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from stores import box_record, store_of
import yaml

from mapanything_ros.core.config import Config, MapConfig, TfConfig
from mapanything_ros.core.map.voxel_map import VoxelMap
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.export.outputs_bag import write_bag
from mapanything_ros.offline.player import message_class, Player

DRIFT = np.eye(4)
DRIFT[:3, 3] = 0.3, -0.2, 0.05


def odometry(index):
    """Return odometry that has drifted a bit more with each keyframe."""
    drift = DRIFT.copy()
    drift[:3, 3] *= index
    return ODOM_FROM_WORLD @ drift @ box_record(index).map_from_camera


RECORDS = [
    replace(
        box_record(index), frame_id=FRAME, odom_from_camera=odometry(index),
        base_from_camera=BASE_FROM_CAMERA)
    for index in range(6)]
TF = TfConfig(odom_frame='odom', base_frame='base_link', rate_hz=50.0)
MAP = MapConfig(voxel_m=0.1, period_s=0.2, full_period_s=0.3)


def read(folder):
    """Return log time, topic and message, as rclpy reads them."""
    with Bag(folder) as bag:
        return [
            (message.log_time_ns, message.topic,
             deserialize_message(message.cdr, message_class(message.msgtype)))
            for message in bag.messages()]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('result')
    write_bag(path / 'bag', store_of(path / 'k', RECORDS), Config(tf=TF, map=MAP))
    return path / 'bag'


@pytest.fixture(scope='module')
def bag(folder):
    return read(folder)


def on(bag, topic):
    return [message for _, name, message in bag if name == topic]


def test_each_keyframe_is_one_set_of_one_stamp_that_fits_together(bag):
    for part in ('image', 'camera_info', 'depth', 'confidence', 'points'):
        messages = on(bag, f'/mapanything/keyframe/{part}')
        assert [stamp_of(message) for message in messages] == [r.stamp_ns for r in RECORDS]
        assert {message.header.frame_id for message in messages} == {FRAME}
    for index, record in enumerate(RECORDS):
        image, info, depth, confidence, cloud = (
            on(bag, f'/mapanything/keyframe/{part}')[index]
            for part in ('image', 'camera_info', 'depth', 'confidence', 'points'))
        np.testing.assert_array_equal(pixels_of(image), record.rgb)
        np.testing.assert_array_equal(pixels_of(depth), record.depth_m)
        np.testing.assert_array_equal(pixels_of(confidence), record.confidence)
        np.testing.assert_allclose(intrinsics_of(info), record.intrinsics)
        points, colours = points_of(cloud)
        np.testing.assert_allclose(
            points, back_projected(record.depth_m, record.intrinsics), atol=1e-5)
        np.testing.assert_array_equal(colours, record.rgb[np.isfinite(record.depth_m)])


def test_poses_path_and_points_are_in_the_map(bag):
    for record, pose, cloud in zip(
            RECORDS, on(bag, '/mapanything/pose'), on(bag, '/mapanything/points'), strict=True):
        assert pose.header.frame_id == cloud.header.frame_id == 'map'
        np.testing.assert_allclose(
            matrix_of(pose.pose.position, pose.pose.orientation), record.map_from_camera,
            atol=1e-9)
        expected = transformed(
            record.map_from_camera, back_projected(record.depth_m, record.intrinsics))
        np.testing.assert_allclose(points_of(cloud)[0], expected, atol=1e-5)
    path = on(bag, '/mapanything/path')
    assert [len(message.poses) for message in path] == sorted(
        {len(message.poses) for message in path})
    assert [stamp_of(pose) for pose in path[-1].poses] == [r.stamp_ns for r in RECORDS]


def test_the_last_map_is_that_of_all_keyframes_and_the_updates_lead_to_it(bag):
    voxels = VoxelMap(MAP)
    for record in RECORDS:
        voxels.insert(record.prediction(), record.map_from_camera)
    maps = on(bag, '/mapanything/map')
    assert len(maps) > 1 and stamp_of(maps[-1]) == RECORDS[-1].stamp_ns
    np.testing.assert_array_equal(points_of(maps[-1])[0], voxels.points().xyz)
    shown = {}
    for update in on(bag, '/mapanything/map_updates'):
        points = points_of(update)[0]
        shown |= zip(map(tuple, np.floor(points / MAP.voxel_m).astype(int)), points, strict=True)
    expected = {tuple(key) for key in np.floor(voxels.points().xyz / MAP.voxel_m).astype(int)}
    assert len(expected - set(shown)) < 0.01 * len(expected)  # a mean may lie on its voxel's rim


def test_map_to_odom_holds_at_a_steady_rate_and_is_right_at_each_keyframe(bag):
    transforms = [message.transforms[0] for message in on(bag, '/tf')]
    assert {(t.header.frame_id, t.child_frame_id) for t in transforms} == {('map', 'odom')}
    stamps = np.array([stamp_of(t) for t in transforms])
    assert (np.diff(stamps) > 0).all() and np.diff(stamps).max() <= 20_000_000
    for record in RECORDS:
        sent = transforms[int(np.flatnonzero(stamps == record.stamp_ns)[0])].transform
        np.testing.assert_allclose(
            matrix_of(sent.translation, sent.rotation) @ record.odom_from_camera,
            record.map_from_camera, atol=1e-9)


@pytest.mark.parametrize('mounted', [True, False])
def test_without_odometry_tf_leads_to_the_robot_or_the_camera(tmp_path, mounted):
    records = RECORDS if mounted else [
        replace(record, base_from_camera=None) for record in RECORDS]
    tf = TfConfig(base_frame='base_link' if mounted else '', mode='map_to_camera')
    write_bag(tmp_path / 'bag', store_of(tmp_path / 'k', records), Config(tf=tf))
    sent = [message.transforms[0] for message in on(read(tmp_path / 'bag'), '/tf')]
    for record, one in zip(records, sent, strict=True):
        assert one.child_frame_id == ('base_link' if mounted else FRAME)
        expected = record.map_from_camera
        if mounted:
            expected = expected @ np.linalg.inv(BASE_FROM_CAMERA)
        np.testing.assert_allclose(
            matrix_of(one.transform.translation, one.transform.rotation), expected, atol=1e-9)


def test_no_tf_where_none_is_wanted(tmp_path):
    config = Config(tf=TfConfig(mode='none'))
    write_bag(tmp_path / 'bag', store_of(tmp_path / 'k', RECORDS[:2]), config)
    assert not on(read(tmp_path / 'bag'), '/tf')


def test_messages_come_in_order_at_the_stamp_of_their_image(bag):
    times = [time_ns for time_ns, _, _ in bag]
    assert times == sorted(times)
    for time_ns, topic, message in bag:
        stamped = message.transforms[0] if topic == '/tf' else message
        assert stamp_of(stamped) == time_ns


def test_the_bag_plays_and_late_subscribers_get_the_map(folder, bag, nodes):
    """Play it over DDS; what arrives is what was written."""
    player_node, listener = nodes
    arrived, done = [], Event()

    def keep(message):
        arrived.append(message)
        if len(arrived) == len(RECORDS):
            done.set()

    listener.create_subscription(Clock, '/clock', lambda message: None, 10)
    listener.create_subscription(Image, '/mapanything/keyframe/depth', keep, 100)
    with Bag(folder) as opened:
        player = Player(player_node, opened, opened.topics)
        player.wait_for_subscribers(['/mapanything/keyframe/depth'], 20.0)
        counts = player.play(10.0, lambda at_s, all_s: None)
    assert done.wait(20.0)
    assert sum(counts.values()) == len(bag)
    for message, record in zip(arrived, RECORDS, strict=True):
        assert stamp_of(message) == record.stamp_ns
        np.testing.assert_array_equal(pixels_of(message), record.depth_m)
    with AnyReader([folder]) as reader:
        lasting = {
            connection.topic for connection in reader.connections
            if any(profile.durability == QosDurability.TRANSIENT_LOCAL
                   for profile in connection.ext.offered_qos_profiles)}
    assert lasting == {'/mapanything/map', '/mapanything/path'}
    metadata = yaml.safe_load((folder / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    # Since version 9 these are no text, and Humble refuses the bag.
    assert information['version'] == 8 and all(
        isinstance(topic['topic_metadata']['offered_qos_profiles'], str)
        for topic in information['topics_with_message_count'])
