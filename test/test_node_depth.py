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

"""Depth over DDS as cameras give it: late, seldom, compressed, and by a camera of its own."""

import cv2
from helpers import (
    camera_info,
    compressed,
    FRAME,
    halved,
    header,
    image,
    K,
    rigid,
    Seen,
    transform,
    view_room,
)
import numpy as np
import pytest
from robot import Robot
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

LATE_NS = 3_000_000
PERIOD_NS = 10**9 // 15
DEPTH_FRAME = 'depth_optical'
# A depth camera beside that of the image, turned a bit, with half its size.
IMAGE_FROM_DEPTH = rigid(Rotation.from_euler('xy', [0.5, -1.0], degrees=True), [0.02, 0.001, 0.0])
DEPTH_K = halved(K)


def drive(robot: Robot, count: int) -> list[Seen]:
    """
    See at 15 Hz, with depth 3 ms late for the first and every second image after it.

    The next image with depth comes when the node has mapped the one before.
    """
    all_seen, images = [], robot.node._images
    for index in range(count):
        robot.next_ns += PERIOD_NS
        seen = robot.look(robot.next_ns)
        all_seen.append(seen)
        known = robot.keyframes_taken()
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))
        if index % 2 == 0:
            robot.depths.publish(image(seen.depth_m, '32FC1', seen.stamp_ns + LATE_NS))
            robot.wait_for(lambda known=known: robot.keyframes_taken() > known, 'a keyframe')
            if known:
                robot.keyframe(seen.stamp_ns)
        robot.wait_for(lambda now=images + index + 1: robot.node._images == now, 'the image')
    return all_seen


def test_colour_at_15_hz_with_depth_for_every_second_image_3_ms_late(start):
    """All images with depth become keyframes, each with its own depth, and clouds come."""
    # The next depth comes when the last one is mapped, which a busy machine may take long for.
    robot = start({'use_depth': True, 'tf.timeout_s': 30.0})
    robot.calibrate()
    seen = drive(robot, 21)
    with_depth = {view.stamp_ns: view for view in seen[::2]}
    given = {key.stamp_ns: key for window in robot.backend.windows for key in window}
    assert len(given) == 11 and given.keys() == with_depth.keys()
    for stamp_ns, keyframe in given.items():
        assert np.array_equal(keyframe.depth_m, with_depth[stamp_ns].depth_m)
    robot.wait_for(lambda: len(robot.heard['~/points']) == 10, '10 clouds')
    assert robot.newest('~/map').width > 1000
    robot.wait_for(
        lambda: robot.status().get('images_without_depth') == '10', 'what had no depth')
    status = robot.status()
    assert status['images'] == '21'
    assert not [name for name in status if name.startswith('warnings_')], status


def test_images_make_no_keyframe_when_depth_ends_which_is_said_until_it_comes_again(start):
    robot = start({'use_depth': True})
    robot.calibrate()
    drive(robot, 3)
    with robot.warned('no_depth', 'depth_slop_s', 'none newer comes'):
        robot.images.publish(image(robot.look().rgb, 'rgb8', robot.next_ns))
    assert robot.keyframes_taken() == 2
    drive(robot, 3)
    assert robot.keyframes_taken() == 4


def test_compressed_depth(start):
    robot = start({'use_depth': True, 'depth_transport': 'compressedDepth'})
    depths = robot.peer.create_publisher(CompressedImage, 'depth/compressedDepth', 10)
    robot.wait_for(depths.get_subscription_count, 'the node')
    robot.calibrate()
    for known in range(2):
        seen = robot.look()
        data = cv2.imencode('.png', np.rint(1000 * seen.depth_m).astype(np.uint16))[1].tobytes()
        depths.publish(CompressedImage(
            header=header(seen.stamp_ns), format='16UC1; compressedDepth png',
            data=bytes(12) + data))
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))
        robot.wait_for(lambda known=known: robot.keyframes_taken() > known, 'a keyframe')
    robot.keyframe(seen.stamp_ns)
    received_m = robot.backend.windows[-1][-1].depth_m
    assert np.abs(received_m - seen.depth_m).max() <= 0.00051


def test_depth_of_a_camera_of_its_own_is_brought_into_that_of_the_image(start):
    """Its calibration is beside it; nothing is wanted but the topic of the depth."""
    robot = start({'use_depth': True}, remappings=['depth:=/stereo/image'])
    depths = robot.peer.create_publisher(Image, '/stereo/image', 10)
    infos = robot.peer.create_publisher(CameraInfo, '/stereo/camera_info', 10)
    for publisher in (depths, infos):
        robot.wait_for(publisher.get_subscription_count, publisher.topic_name)
    robot.calibrate()

    def look() -> Seen:
        seen = robot.look()
        depth_m = view_room(seen.world_from_camera @ IMAGE_FROM_DEPTH, DEPTH_K, 80, 60)[1]
        message = image(depth_m, '32FC1', seen.stamp_ns + LATE_NS)
        message.header.frame_id = DEPTH_FRAME
        depths.publish(message)
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))
        return seen

    with robot.warned('no_depth_camera_info', DEPTH_FRAME, FRAME, 'depth/camera_info'):
        look()
    info = camera_info(DEPTH_K, 80, 60)
    info.header.frame_id = DEPTH_FRAME
    infos.publish(info)
    robot.wait_for(lambda: robot.node._assembler._depth_info, 'the calibration of depth')
    with robot.warned('no_depth_transform', DEPTH_FRAME, FRAME, 'TF'):
        look()
    robot.tf_static.publish(TFMessage(
        transforms=[transform(IMAGE_FROM_DEPTH, header(1), DEPTH_FRAME)]))
    robot.wait_for(lambda: DEPTH_FRAME in robot.node._buffer.all_frames_as_string(), 'TF')
    for known in range(2):
        seen = look()
        robot.wait_for(lambda known=known: robot.keyframes_taken() > known, 'a keyframe')
    robot.keyframe(seen.stamp_ns)
    received_m = robot.backend.windows[-1][-1].depth_m
    both = (received_m > 0) & (seen.depth_m > 0)
    assert both.sum() > 0.95 * (seen.depth_m > 0).sum()
    error = np.abs(received_m[both] / seen.depth_m[both] - 1)
    # A pixel of the depth camera is two of the image's: a slope shifts by half a pixel at most.
    assert np.median(error) < 0.005
    assert np.quantile(error, 0.95) < 0.02


@pytest.mark.parametrize(('parameters', 'remappings', 'topics'), [
    ({}, [], ['/image', '/depth', '/camera_info']),
    ({'image_transport': 'compressed', 'depth_transport': 'compressedDepth'}, [],
     ['/image/compressed', '/depth/compressedDepth', '/camera_info']),
    ({'image_transport': 'compressed', 'depth_transport': 'compressedDepth'},
     ['image:=/c/color/raw', 'depth:=/c/stereo/raw'],
     ['/c/color/raw/compressed', '/c/stereo/raw/compressedDepth', '/c/stereo/camera_info']),
    ({'image_transport': 'compressed', 'depth_transport': 'compressedDepth'},
     ['image:=/c/color/raw', 'image/compressed:=/jpeg', 'depth:=/c/stereo/raw',
      'depth/compressedDepth:=/png', 'depth/camera_info:=/c/depth_info'],
     ['/jpeg', '/png', '/c/depth_info'])])
def test_topics_follow_a_remap_of_the_base_as_in_image_transport_or_their_own(
        start, parameters, remappings, topics):
    robot = start({'use_depth': True, **parameters}, remappings=remappings)
    assert set(topics) <= {subscription.topic_name for subscription in robot.node.subscriptions}


def test_compressed_images_come_where_the_image_is_remapped_to(start):
    robot = start({'image_transport': 'compressed'}, remappings=['image:=/c/color/raw'])
    robot.compressed = robot.peer.create_publisher(
        CompressedImage, '/c/color/raw/compressed', 10)
    robot.wait_for(robot.compressed.get_subscription_count, 'the node')
    robot.encode = lambda seen: compressed(seen.rgb, 'png', seen.stamp_ns)
    robot.calibrate()
    robot.explore(2)
