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

"""A bag's images become frames with all that the bag knows of them, none left out."""

import cv2
from helpers import (
    BASE_FROM_CAMERA,
    camera_info,
    halved,
    header,
    K,
    ODOM_FROM_WORLD,
    rigid,
    transform,
    view_room,
)
import numpy as np
import pytest
from recordings import messages_of, seen_on_path, STEP_NS, write_bag
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage
from tf2_msgs.msg import TFMessage

from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.bag_source import BagSource
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.source import TopicNames
from mapanything_ros.offline.truth import choose_depth, COMPRESSED_IMAGE, IMAGE, read_depth

LATE_NS = 3_000_000
PACKED_DEPTH = '/cam/stereo/depth/compressedDepth'
IMAGE_FROM_DEPTH = rigid(Rotation.from_euler('y', -1, degrees=True), [0.015, 0.0, 0.0])
ODOMETRY = {'pose_source': 'tf', 'tf.odom_frame': 'odom', 'tf.base_frame': 'base'}


def source(path, values, notices=None) -> BagSource:
    return BagSource(
        path, from_values(Config, values), TopicNames(), None, notices or Notices(print))


def test_every_image_has_the_transforms_of_its_very_time_though_they_were_recorded_late(tmp_path):
    seen = seen_on_path(40)
    bag = source(write_bag(tmp_path / 'bag', messages_of(seen)), {**ODOMETRY, 'use_depth': True})
    frames = list(bag.frames())
    assert bag.read == bag.total == len(frames) == 40
    for frame, view in zip(frames, seen, strict=True):
        assert frame.stamp_ns == view.stamp_ns and bag.name(frame.stamp_ns) == str(view.stamp_ns)
        keyframe = frame.keyframe(3)
        np.testing.assert_allclose(
            keyframe.odom_from_camera, ODOM_FROM_WORLD @ view.world_from_camera, atol=1e-9)
        np.testing.assert_allclose(keyframe.base_from_camera, BASE_FROM_CAMERA, atol=1e-9)
        np.testing.assert_array_equal(keyframe.rgb, view.rgb)
        np.testing.assert_array_equal(keyframe.depth_m, view.depth_m)
        np.testing.assert_array_equal(keyframe.intrinsics, K)


def test_an_image_between_two_transforms_gets_what_lies_between(tmp_path):
    seen = seen_on_path(9)
    messages = [
        item for item in messages_of(seen)
        if item[0] != '/tf' or (item[1] - seen[0].stamp_ns) // STEP_NS % 2 == 0]
    frames = list(source(write_bag(tmp_path / 'bag', messages), ODOMETRY).frames())
    assert len(frames) == 9
    positions = np.array([frame.odom_from_camera[:3, 3] for frame in frames])
    truth = np.array([(ODOM_FROM_WORLD @ view.world_from_camera)[:3, 3] for view in seen])
    np.testing.assert_allclose(positions[::2], truth[::2], atol=1e-9)
    # The camera is carried on an arm by a base that goes straight: near the middle.
    middle = (positions[0:-1:2] + positions[2::2]) / 2
    assert np.linalg.norm(positions[1::2] - middle, axis=1).max() < 0.02


def test_images_before_the_first_transform_are_given_up_with_a_reason(tmp_path):
    seen = seen_on_path(20)
    early = seen[0].stamp_ns + 25 * STEP_NS
    messages = [item for item in messages_of(seen) if item[0] != '/tf' or item[1] >= early]
    notices = Notices(print)
    frames = list(source(write_bag(tmp_path / 'bag', messages), ODOMETRY, notices).frames())
    assert [frame.stamp_ns for frame in frames] == [view.stamp_ns for view in seen[5:]]
    assert notices.counts == {'no_transform': 5}
    assert 'check tf.odom_frame' in notices.first['no_transform']


def test_images_whose_depth_was_lost_are_passed_over_and_counted(tmp_path):
    seen = seen_on_path(12)
    lost = seen[4].stamp_ns + STEP_NS // 2
    messages = [item for item in messages_of(seen) if (item[0], item[1]) != ('/cam/depth', lost)]
    notices = Notices(print)
    bag = source(write_bag(tmp_path / 'bag', messages), {'use_depth': True}, notices)
    assert [frame.stamp_ns for frame in bag.frames()] == [
        view.stamp_ns for view in seen if view is not seen[4]]
    assert notices.counts == {'without_depth': 1}
    assert '1 of 12 images have no depth' in notices.first['without_depth']


def test_depth_as_a_camera_beside_that_of_the_image_records_it(tmp_path):
    """Compressed, 3 ms late, half as large, in its own frame, with its own calibration and TF."""
    k = halved(K)
    seen = seen_on_path(6)
    messages = messages_of(seen, leave_out=['/cam/depth'])
    info = camera_info(k, 80, 60)
    info.header.frame_id = 'depth_optical'
    messages += [
        ('/cam/stereo/camera_info', seen[0].stamp_ns, info),
        ('/tf_static', seen[0].stamp_ns - 1, TFMessage(transforms=[
            transform(IMAGE_FROM_DEPTH, header(1), 'depth_optical')]))]
    for view in seen:
        depth_m = view_room(view.world_from_camera @ IMAGE_FROM_DEPTH, k, 80, 60)[1]
        png = cv2.imencode('.png', np.rint(1000 * depth_m).astype(np.uint16))[1].tobytes()
        messages.append((PACKED_DEPTH, view.stamp_ns + LATE_NS, (
            CompressedImage(
                header=header(view.stamp_ns + LATE_NS, 'depth_optical'),
                format='16UC1; compressedDepth png', data=bytes(12) + png))))
    notices = Notices(print)
    messages.sort(key=lambda item: item[1])
    path = write_bag(tmp_path / 'bag', messages)
    bag = source(path, {'use_depth': True}, notices)
    assert bag.inputs()['depth_topic'] == PACKED_DEPTH
    frames = list(bag.frames())
    assert [frame.stamp_ns for frame in frames] == [view.stamp_ns for view in seen]
    for frame, view in zip(frames, seen, strict=True):
        found_m = frame.keyframe(0).depth_m
        known = (found_m > 0) & (view.depth_m > 0)
        assert known.sum() > 0.9 * (view.depth_m > 0).sum()
        assert np.median(np.abs(found_m[known] / view.depth_m[known] - 1)) < 0.01
    assert not notices.counts
    read = dict(read_depth(path, PACKED_DEPTH, 'depth_optical', lambda stamp: True))
    assert len(read) == 6
    assert np.abs(read[seen[0].stamp_ns + LATE_NS] - view_room(
        seen[0].world_from_camera @ IMAGE_FROM_DEPTH, k, 80, 60)[1]).max() <= 0.00051


def test_the_images_of_a_recording_that_starts_again_are_left_out(tmp_path):
    seen = seen_on_path(40)
    messages = messages_of(seen)
    length_ns = messages[-1][1] - messages[0][1]
    again = [(topic, time_ns + length_ns, message) for topic, time_ns, message in messages]
    notices = Notices(print)
    bag = source(write_bag(tmp_path / 'bag', messages + again), {}, notices)
    assert [frame.stamp_ns for frame in bag.frames()] == [view.stamp_ns for view in seen]
    assert 'map it from a bag of its own' in notices.first['stamps_go_back']


def test_a_calibration_that_changes_on_the_way_counts_from_there_on(tmp_path):
    seen = seen_on_path(6)
    zoomed = K.copy()
    zoomed[0, 0] *= 2
    change = ('/cam/camera_info', seen[3].stamp_ns - 1, camera_info(zoomed))
    messages = sorted([*messages_of(seen), change], key=lambda item: item[1])
    frames = source(write_bag(tmp_path / 'bag', messages), {}).frames()
    focal = [frame.keyframe(0).intrinsics[0, 0] for frame in frames]
    assert focal == [K[0, 0]] * 3 + [2 * K[0, 0]] * 3


def test_the_same_bag_has_the_same_fingerprint_and_another_has_not(tmp_path):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    other = write_bag(tmp_path / 'other', messages_of(seen_on_path(4)))
    assert source(bag, {}).fingerprint() == source(bag, {}).fingerprint()
    assert source(bag, {}).fingerprint() != source(other, {}).fingerprint()
    assert source(bag, {}).fingerprint() != source(bag, ODOMETRY).fingerprint()


def test_a_bag_whose_topic_is_empty_says_so(tmp_path):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(2), leave_out=['/cam/image']))
    with pytest.raises(InputError, match='--image-topic'):
        source(bag, {})


@pytest.mark.parametrize(('topics', 'chosen'), [
    (['/c/depth/raw', '/c/color/raw'], '/c/depth/raw'),
    (['/c/depth/raw', '/c/depth/raw/compressedDepth', '/c/depth/raw/compressed'], '/c/depth/raw'),
    (['/c/depth/raw', '/c/aligned_depth/raw'], '/c/aligned_depth/raw'),
    (['/c/depth/raw', '/c/aligned_depth/raw/compressedDepth', '/c/aligned_depth/raw/compressed'],
     '/c/aligned_depth/raw/compressedDepth'),
    (['/c/stereo/raw/compressedDepth', '/c/color/raw/compressed'],
     '/c/stereo/raw/compressedDepth'),
    (['/c/color/raw'], None)])
def test_registered_depth_is_preferred_and_of_one_depth_the_raw(topics, chosen):
    bag = Bag('bag')
    bag.topics = {topic: COMPRESSED_IMAGE if 'compressed' in topic else IMAGE for topic in topics}
    assert choose_depth(bag, '') == (chosen, 'compressedDepth' in (chosen or ''))
    if chosen:
        assert choose_depth(bag, chosen) == choose_depth(bag, '')


def test_which_depth_is_asked_where_that_is_not_clear():
    bag = Bag('bag')
    bag.topics = dict.fromkeys(['/a/depth', '/b/depth'], IMAGE)
    with pytest.raises(InputError, match='choose with --depth-topic'):
        choose_depth(bag, '')
    assert choose_depth(bag, '/b/depth') == ('/b/depth', False)
