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

"""The transforms that the node sends, against exact truth and REP-105."""

from dataclasses import replace

from helpers import (
    BASE_FROM_CAMERA,
    BODY_FROM_OPTICAL,
    FRAME,
    header,
    matrix_of,
    ODOM_FROM_WORLD,
    rigid,
    Seen,
    stamp_of,
    transform,
)
import numpy as np
from robot import CAMERA_FROM_BASE, ODOMETRY, Robot
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage
from tf_tree import SIMULATED

from mapanything_ros.core.datatypes import Keyframe, Scale, Submap

MILLISECOND_NS = 10**6


def drifted(step: int) -> np.ndarray:
    """Return ``odom_from_world`` of odometry that drifts 4 cm and a degree a step."""
    drift = rigid(Rotation.from_euler('z', step, degrees=True), [0.03 * step, -0.02 * step, 0])
    return drift @ ODOM_FROM_WORLD


def explore_drifting(robot: Robot, count: int) -> list[Seen]:
    all_seen = []
    for step in range(count):
        all_seen.append(robot.see(drifted(step)))
        robot.wait_for(lambda n=step: robot.keyframes_taken() > n)
        if step:
            robot.keyframe(all_seen[-1].stamp_ns)
    return all_seen


# map -> odom


def test_the_camera_is_found_at_each_keyframe_s_stamp(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, **SIMULATED})
    for seen in robot.explore(4):
        found = tree.map_from(FRAME, seen.stamp_ns)
        assert np.allclose(found, ODOM_FROM_WORLD @ seen.world_from_camera, atol=1e-6)
    assert tree.parents() == {'odom': {'map'}, 'base': {'odom'}, FRAME: {'base'}}


def test_drift_of_odometry_is_corrected(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, **SIMULATED, 'pose_source': 'none'})
    all_seen = explore_drifting(robot, 5)
    seen = replace(all_seen[-1], stamp_ns=all_seen[-1].stamp_ns + 50 * MILLISECOND_NS)
    robot.move_to(seen, drifted(4))
    robot.tick(seen.stamp_ns)
    truth = ODOM_FROM_WORLD @ seen.world_from_camera
    assert np.allclose(tree.map_from(FRAME, seen.stamp_ns), truth, atol=1e-6)
    odom_from_camera = drifted(4) @ seen.world_from_camera
    assert np.linalg.norm((odom_from_camera - truth)[:3, 3]) > 0.1, 'there was drift'
    path = robot.path(5)
    for pose, each in zip(path.poses, all_seen, strict=True):
        found = matrix_of(pose.pose.position, pose.pose.orientation)
        assert np.allclose(found, ODOM_FROM_WORLD @ each.world_from_camera, atol=1e-6)


def test_map_to_odom_is_sent_steadily_and_never_backwards(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, 'tf.rate_hz': 100.0})
    robot.wait_for(lambda: len(tree.sent()) > 10, 'map->odom before any image')
    robot.explore(3)
    count = len(tree.sent())
    robot.wait_for(lambda: len(tree.sent()) > count + 10, 'map->odom between images')
    stamps = [stamp_of(item) for item in tree.sent()]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] <= robot.node.get_clock().now().nanoseconds
    assert {item.child_frame_id for item in tree.sent()} == {'odom'}


def test_map_to_odom_stands_still_with_the_clock(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, **SIMULATED})
    for step in range(3):
        robot.tick(robot.next_ns + step)
        robot.wait_for(lambda n=step: len(tree.sent()) > n)
    images = len(robot.heard['/diagnostics'])
    robot.wait_for(lambda: len(robot.heard['/diagnostics']) > images + 2)
    stamps = [stamp_of(item) for item in tree.sent()]
    assert stamps == sorted(set(stamps)), 'one stamp is never sent twice'


def test_after_reset_the_map_lies_on_odometry_again(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, **SIMULATED, 'pose_source': 'none'})
    explore_drifting(robot, 3)
    at_ns = robot.next_stamp()
    robot.tick(at_ns)
    correction = ODOM_FROM_WORLD @ np.linalg.inv(drifted(2))
    assert np.allclose(tree.map_from('odom', at_ns), correction, atol=1e-6)
    assert robot.trigger('reset').success
    at_ns = robot.next_stamp()
    robot.tick(at_ns)
    assert np.allclose(tree.map_from('odom', at_ns), np.eye(4))
    stamps = [stamp_of(item) for item in tree.sent()]
    assert stamps == sorted(set(stamps))


def test_odometry_that_is_trusted_is_not_corrected(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, **SIMULATED})
    seen = explore_drifting(robot, 4)[-1]
    robot.tick(seen.stamp_ns + 1)
    assert np.allclose(tree.map_from('odom', seen.stamp_ns + 1), np.eye(4))
    # The window's two keyframes share what the backend and odometry disagree about in a step.
    pose = robot.path(4).poses[-1].pose
    off_m = (matrix_of(pose.position, pose.orientation) - drifted(3) @ seen.world_from_camera)
    assert np.linalg.norm(off_m[:3, 3]) < 0.05


def test_odometry_that_is_not_trusted_stays_away_from_the_backend(start_with_tree):
    robot, _ = start_with_tree({**ODOMETRY, 'pose_source': 'none'})
    robot.explore(3)
    assert all(
        keyframe.odom_from_camera is None
        for window in robot.backend.windows for keyframe in window)


def test_trusted_odometry_reaches_the_backend(start_with_tree):
    robot, _ = start_with_tree(ODOMETRY)
    first, second = robot.explore(2)
    for keyframe, seen in zip(robot.backend.windows[-1], (first, second), strict=True):
        truth = ODOM_FROM_WORLD @ seen.world_from_camera
        assert np.allclose(keyframe.odom_from_camera, truth, atol=1e-6)
        assert np.allclose(keyframe.base_from_camera, BASE_FROM_CAMERA, atol=1e-6)


def test_odometry_between_two_samples_is_interpolated(start_with_tree):
    robot, _ = start_with_tree(ODOMETRY)
    robot.explore(1)
    seen = robot.look()
    # The robot passes the pose of the image in the middle between two samples of odometry.
    odom_from_base = ODOM_FROM_WORLD @ seen.world_from_camera @ CAMERA_FROM_BASE
    for sign in (-1, 1):
        half_step = rigid(Rotation.identity(), [sign * 0.02, 0, 0])
        robot.move(seen.stamp_ns + sign * 20 * MILLISECOND_NS, odom_from_base @ half_step)
    robot.images.publish(robot.encode(seen))
    robot.keyframe(seen.stamp_ns)
    truth = ODOM_FROM_WORLD @ seen.world_from_camera
    assert np.allclose(robot.backend.windows[-1][-1].odom_from_camera, truth, atol=1e-6)


# map -> camera


def test_without_odometry_the_camera_is_sent_at_each_keyframe_s_stamp(start_with_tree):
    robot, tree = start_with_tree({})
    first, *others = all_seen = robot.explore(4)
    world_from_map = first.world_from_camera @ np.linalg.inv(BODY_FROM_OPTICAL)
    for seen in others:
        found = world_from_map @ tree.map_from(FRAME, seen.stamp_ns)
        assert np.allclose(found, seen.world_from_camera, atol=1e-6)
    robot.wait_for(lambda: len(tree.sent()) >= len(all_seen), 'the last transform')
    stamps = [stamp_of(item) for item in tree.sent()]
    assert stamps == [seen.stamp_ns for seen in all_seen]
    assert tree.parents() == {FRAME: {'map'}}


def test_without_odometry_the_base_is_sent_where_the_camera_is_mounted(start_with_tree):
    robot, tree = start_with_tree({'tf.base_frame': 'base'})
    first, *others = robot.explore(4)
    world_from_map = first.world_from_camera @ CAMERA_FROM_BASE
    for seen in others:
        found = world_from_map @ tree.map_from(FRAME, seen.stamp_ns)
        assert np.allclose(found, seen.world_from_camera, atol=1e-6)
    assert tree.parents() == {'base': {'map'}, FRAME: {'base'}}


def test_nothing_is_sent_where_it_is_not_wanted(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, 'tf.mode': 'none'})
    robot.explore(3)
    robot.path(3)
    assert not tree.sent()


# One parent a frame


def test_a_camera_with_another_parent_is_left_alone(start_with_tree):
    robot, tree = start_with_tree({})
    head = transform(BODY_FROM_OPTICAL, header(1, 'head'), FRAME)
    robot.tf_static.publish(TFMessage(transforms=[head]))
    robot.wait_for(lambda: 'head' in robot.node._buffer.all_frames_as_string())
    with robot.warned('tf_parent', FRAME, 'parent head', 'map', 'tf.mode'):
        robot.explore(3)
    robot.path(3)
    assert not tree.sent()
    assert tree.parents() == {FRAME: {'head'}}


def test_each_camera_has_its_own_parent(start_with_tree):
    robot, tree = start_with_tree({})
    head = transform(BODY_FROM_OPTICAL, header(1, 'head'), 'on_head')
    robot.tf_static.publish(TFMessage(transforms=[head]))
    robot.wait_for(lambda: 'head' in robot.node._buffer.all_frames_as_string())
    seen, frames = [robot.look() for _ in range(4)], ['free', 'on_head', 'free', 'on_head']
    keyframes = [
        Keyframe(number, look.stamp_ns, frame, look.rgb)
        for number, (look, frame) in enumerate(zip(seen, frames, strict=True))]
    first = np.linalg.inv(seen[0].world_from_camera)
    views = tuple(robot.backend._predict(keyframe, first) for keyframe in keyframes)
    robot.node._tf_output.send_keyframes(
        Submap(views, Scale('model'), np.eye(4), new_ids=frozenset(range(4))), keyframes)
    robot.wait_for(lambda: len(tree.sent()) == 2, 'the camera that nothing holds')
    assert tree.parents() == {'free': {'map'}, 'on_head': {'head'}}


def test_a_base_with_odometry_is_left_alone(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, 'tf.mode': 'map_to_camera'})
    with robot.warned('tf_parent', 'base', 'parent odom'):
        robot.explore(3)
    robot.path(3)
    assert not tree.sent()
    assert tree.parents() == {'base': {'odom'}, FRAME: {'base'}}


def test_odometry_with_another_map_is_left_alone(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, 'tf.mode': 'map_to_odom', 'tf.rate_hz': 50.0})
    robot.wait_for(tree.sent)
    other = transform(np.eye(4), header(0, 'other_map'), 'odom')

    def localise() -> None:
        other.header.stamp = robot.node.get_clock().now().to_msg()
        robot.tf.publish(TFMessage(transforms=[other]))

    def silent() -> bool:
        localise()
        return robot.warnings('tf_parent') > 0

    with robot.warned('tf_parent', 'odom', 'parent other_map'):
        robot.wait_for(silent)
    counts = []
    for _ in range(2):
        # What was on its way arrives before the first count.
        reports = len(robot.heard['/diagnostics'])
        robot.wait_for(lambda n=reports: silent() and len(robot.heard['/diagnostics']) > n + 3)
        counts.append(len(tree.sent()))
    assert counts[0] == counts[1]
