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
import pytest
from rclpy.time import Time
from robot import CAMERA_FROM_BASE, ODOMETRY, Robot
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage
from tf_tree import SIMULATED

from mapanything_ros.core.datatypes import Keyframe, Scale, Submap

MILLISECOND_NS = 10**6


# A camera driver's own tree, as of a RealSense.
LINK_FROM_FRAME = rigid(Rotation.from_euler('z', 3, degrees=True), [0.0, 0.015, 0.002])
OPTICAL = BODY_FROM_OPTICAL


def on_robot(robot: Robot, *edges: tuple[str, str, np.ndarray]) -> None:
    """Say, latched, which frames are fixed to each other, and wait until the node knows."""
    robot.tf_static.publish(TFMessage(transforms=[
        transform(pose, header(1, parent), child) for parent, child, pose in edges]))
    child = edges[-1][1]
    robot.wait_for(lambda: robot.node._buffer.parent(child), child)


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
    # At first nobody knows how much better than odometry the windows are.
    assert np.allclose(tree.map_from(FRAME, seen.stamp_ns), truth, atol=0.03)
    odom_from_camera = drifted(4) @ seen.world_from_camera
    assert np.linalg.norm((odom_from_camera - truth)[:3, 3]) > 0.1, 'there was drift'
    path = robot.path(5)
    for pose, each in zip(path.poses, all_seen, strict=True):
        found = matrix_of(pose.pose.position, pose.pose.orientation)
        assert np.allclose(found, ODOM_FROM_WORLD @ each.world_from_camera, atol=0.03)


def test_map_to_odom_is_sent_steadily_and_never_backwards(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, 'tf.rate_hz': 100.0})
    robot.wait_for(lambda: len(tree.sent()) > 10, 'map->odom before any image')
    robot.explore(3)
    count = len(tree.sent())
    robot.wait_for(lambda: len(tree.sent()) > count + 10, 'map->odom between images')
    stamps = [stamp_of(item) for item in tree.sent()]
    assert stamps == sorted(set(stamps))
    now_ns = robot.node.get_clock().now().nanoseconds
    assert stamps[-1] <= now_ns + 200 * MILLISECOND_NS, 'the default of tf.tolerance_s'
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
    assert np.allclose(tree.map_from('odom', at_ns), correction, atol=0.05)
    assert not np.allclose(tree.map_from('odom', at_ns), np.eye(4), atol=0.02)
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


def test_the_root_of_the_camera_s_own_tree_is_sent(start_with_tree):
    robot, tree = start_with_tree({})
    on_robot(robot, ('link', 'camera_frame', LINK_FROM_FRAME), ('camera_frame', FRAME, OPTICAL))
    first, *others = robot.explore(4)
    world_from_map = first.world_from_camera @ np.linalg.inv(BODY_FROM_OPTICAL)
    for seen in others:
        found = world_from_map @ tree.map_from(FRAME, seen.stamp_ns)
        assert np.allclose(found, seen.world_from_camera, atol=1e-6)
        link = world_from_map @ tree.map_from('link', seen.stamp_ns)
        truth = seen.world_from_camera @ np.linalg.inv(LINK_FROM_FRAME @ OPTICAL)
        assert np.allclose(link, truth, atol=1e-6)
    assert tree.parents() == {
        'link': {'map'}, 'camera_frame': {'link'}, FRAME: {'camera_frame'}}
    tree.assert_sound()


def test_a_root_that_moves_is_found_at_the_stamp_of_the_image(start_with_tree):
    robot, tree = start_with_tree({})
    on_robot(robot, ('base', FRAME, BASE_FROM_CAMERA))
    all_seen = [robot.look() for _ in range(3)]
    for step, seen in enumerate(all_seen):
        # Odometry that nobody has told the node of.
        robot.move_to(seen, drifted(step))
        robot.wait_for(lambda at=seen.stamp_ns: robot.node._buffer.can_transform(
            'odom', 'base', Time(nanoseconds=at)), 'odometry')
        robot.images.publish(robot.encode(seen))
        robot.wait_for(lambda n=step: robot.keyframes_taken() > n)
    robot.path(3)
    world_from_map = all_seen[0].world_from_camera @ np.linalg.inv(BODY_FROM_OPTICAL)
    for seen in all_seen:
        found = world_from_map @ tree.map_from(FRAME, seen.stamp_ns)
        assert np.allclose(found, seen.world_from_camera, atol=1e-6)
    assert tree.parents() == {'odom': {'map'}, 'base': {'odom'}, FRAME: {'base'}}


def test_a_root_that_tf_does_not_tie_to_the_image_is_reported(start_with_tree):
    robot, tree = start_with_tree({})
    on_robot(robot, ('base', FRAME, BASE_FROM_CAMERA))
    robot.move(1, np.eye(4))
    robot.wait_for(lambda: 'odom' in robot.node._buffer.all_frames_as_string())
    with robot.warned('tf_root', 'odom', FRAME):
        robot.explore(3)
    assert not tree.sent()


@pytest.mark.parametrize('static', [True, False])
def test_a_place_in_the_map_that_is_taken_is_left_to_who_has_it(start_with_tree, static):
    robot, tree = start_with_tree({})
    on_robot(robot, ('base', FRAME, BASE_FROM_CAMERA))
    known = transform(np.eye(4), header(5, 'map'), 'base')
    (robot.tf_static if static else robot.tf).publish(TFMessage(transforms=[known]))
    robot.wait_for(lambda: robot.node._buffer.parent('base') == 'map', 'the other one')
    with robot.warned('tf_rival', 'map->base', 'not sent', 'tf.map_frame'):
        robot.explore(3)
    robot.path(3)
    sent = [item for item in [*tree.heard(), *tree.heard('/tf_static')]
            if item.child_frame_id == 'base']
    assert len(sent) == 1, 'that of the other one'


def test_who_was_heard_long_ago_is_no_rival(start_with_tree, monkeypatch):
    robot, tree = start_with_tree({})
    robot.tf.publish(TFMessage(transforms=[transform(np.eye(4), header(5, 'map'), FRAME)]))
    robot.wait_for(lambda: robot.node._buffer.parent(FRAME) == 'map', 'the other one')
    monkeypatch.setattr('mapanything_ros.ros.tf_output.CACHE_S', 0.0)
    robot.explore(3)
    robot.wait_for(lambda: len(tree.sent()) == 4, 'what the node sends')
    assert not robot.warnings('tf_rival')


def test_each_camera_has_its_own_parent(start_with_tree):
    robot, tree = start_with_tree({})
    on_robot(robot, ('head', 'on_head', BODY_FROM_OPTICAL))
    seen, frames = [robot.look() for _ in range(4)], ['free', 'on_head', 'free', 'on_head']
    keyframes = [
        Keyframe(number, look.stamp_ns, frame, look.rgb)
        for number, (look, frame) in enumerate(zip(seen, frames, strict=True))]
    first = np.linalg.inv(seen[0].world_from_camera)
    views = tuple(robot.backend._predict(keyframe, first) for keyframe in keyframes)
    poses = {view.keyframe_id: view.world_from_camera for view in views}
    robot.node._tf_output.send_keyframes(
        Submap(views, Scale('model'), poses, new_ids=frozenset(range(4))), keyframes)
    robot.wait_for(lambda: len(tree.sent()) == 4, 'both cameras')
    assert tree.parents() == {'free': {'map'}, 'head': {'map'}, 'on_head': {'head'}}


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


def test_a_rival_for_odometry_s_place_is_reported(start_with_tree):
    robot, tree = start_with_tree({**ODOMETRY, 'tf.rate_hz': 50.0})
    robot.wait_for(lambda: len(tree.sent()) > 20)
    assert not robot.warnings('tf_rival'), 'what the node sends itself'
    rival = transform(np.eye(4), header(0, 'map'), 'odom')
    with robot.warned('tf_rival', 'map->odom', 'AMCL', 'tf.mode to none'):
        rival.header.stamp = robot.node.get_clock().now().to_msg()
        robot.tf.publish(TFMessage(transforms=[rival]))
    count = len(tree.sent())
    robot.wait_for(lambda: len(tree.sent()) > count + 10, 'map->odom, which was asked for')


# What others wait for


@pytest.mark.parametrize(('tolerance_s', 'least', 'most'), [(0.0, 0.0, 0.5), (0.5, 0.9, 1.0)])
def test_who_asks_for_now_need_not_wait_for_the_next(start_with_tree, tolerance_s, least, most):
    """With tolerance each moment is covered before it has come; without, few are."""
    robot, tree = start_with_tree({**ODOMETRY, 'tf.tolerance_s': tolerance_s})
    # What comes first is not valid yet.
    robot.wait_for(lambda: tree.sent() and stamp_of(
        tree.sent()[0]) < robot.peer.get_clock().now().nanoseconds)
    covered = []
    count = len(tree.sent())
    while len(tree.sent()) < count + 20:
        robot._peer_executor.spin_once(timeout_sec=0.005)
        covered.append(tree.buffer.can_transform('map', 'odom', robot.peer.get_clock().now()))
    assert least <= np.mean(covered) <= most


def test_a_camera_that_stands_still_does_not_vanish(start_with_tree):
    robot, tree = start_with_tree({'window.size': 6, 'window.overlap': 3})
    on_robot(robot, ('link', 'camera_frame', LINK_FROM_FRAME), ('camera_frame', FRAME, OPTICAL))
    all_seen = []
    for number in range(4):
        all_seen.append(robot.see())
        robot.wait_for(lambda n=number: robot.keyframes_taken() > n)
    assert not robot.backend.windows, 'they wait for more'
    last = all_seen[-1]
    # It stands for longer than tf2's buffers remember.
    still = [replace(last, stamp_ns=last.stamp_ns + step * 66_666_667) for step in range(1, 181)]
    world_from_map = all_seen[0].world_from_camera @ np.linalg.inv(BODY_FROM_OPTICAL)
    for number, seen in enumerate(still):
        robot.images.publish(robot.encode(seen))
        robot.wait_for(lambda n=number: int(
            robot.node._reconstructor.statistics().get('frames_parked', 0)) > n)
    robot.path(4)
    found = world_from_map @ tree.map_from(FRAME, still[-1].stamp_ns)
    assert np.allclose(found, last.world_from_camera, atol=1e-6)
    assert [len(window) for window in robot.backend.windows] == [4]
    robot.next_ns = still[-1].stamp_ns
    # Once it moves, nothing is said of the time between that might be wrong.
    moved = robot.see()
    robot.wait_for(lambda: robot.keyframes_taken() > 4)
    count = len(tree.sent())
    robot.trigger('reconstruct')
    robot.wait_for(lambda: len(tree.sent()) > count)
    assert [stamp_of(item) for item in tree.sent()][count:] == [moved.stamp_ns]
    tree.assert_sound()


def test_what_waits_is_reconstructed_when_images_end(start_with_tree, monkeypatch):
    monkeypatch.setattr('mapanything_ros.ros.node.RECENT_S', 0.5)
    robot, _ = start_with_tree({'window.size': 6, 'window.overlap': 3})
    for number in range(3):
        robot.see()
        robot.wait_for(lambda n=number: robot.keyframes_taken() > n)
    robot.path(3)
    assert [len(window) for window in robot.backend.windows] == [3]


def test_a_clock_that_is_set_back_by_little_does_not_drop_the_map(start_with_tree):
    robot, _ = start_with_tree({**ODOMETRY, **SIMULATED})
    robot.explore(3)
    robot.path(3)
    robot.tick(robot.next_ns - 900 * MILLISECOND_NS)
    robot.tick(robot.next_ns)
    robot.explore(1)
    robot.path(4)
    robot.tick(robot.next_ns - 1100 * MILLISECOND_NS)
    robot.wait_for_empty_map()
