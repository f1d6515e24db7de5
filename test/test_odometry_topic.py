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

"""Odometry by topic does what odometry by TF does, live and from a bag, and says what is wrong."""

from helpers import FRAME, header, matrix_of, ODOM_FROM_WORLD, rigid, transform
from nav_msgs.msg import Odometry
import numpy as np
import pytest
from recordings import CAMERA_FROM_BASE, messages_of, Runs, seen_on_path, STEP_NS, write_bag
from robot import Robot
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage
from tf_tree import SIMULATED, TfTree

from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.errors import ConfigError
from mapanything_ros.offline.bag_source import BagSource
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.source import TopicNames

TOPIC = {'odometry_source': 'topic', 'pose_source': 'tf', 'tf.base_frame': 'base'}


def odometry(stamp_ns, odom_from_base, frame='odom', child='base'):
    moved = transform(odom_from_base, header(stamp_ns, frame), child)
    made = Odometry(header=moved.header, child_frame_id=child)
    t = moved.transform.translation
    made.pose.pose.position.x, made.pose.pose.position.y, made.pose.pose.position.z = t.x, t.y, t.z
    made.pose.pose.orientation = moved.transform.rotation
    return made


class Wheels:
    """A robot whose odometry comes by topic alone."""

    def __init__(self, start, parameters=None, mount=True):
        self.robot: Robot = start({**TOPIC, **(parameters or {})})
        self.messages = self.robot.peer.create_publisher(Odometry, 'odometry', 100)
        self.robot.wait_for(self.messages.get_subscription_count, 'the node on odometry')
        self.robot.wait_for(
            lambda: self.robot.node.count_publishers('/odometry'), 'the node on odometry')
        if self.robot.parameters.get('use_sim_time'):
            self.robot.tick(self.robot.next_ns)
        if mount:
            self.robot.mount()
        self.robot.calibrate()
        self.robot.move = self.move
        self.frames: dict[str, str] = {}

    def move(self, stamp_ns, odom_from_base):
        self.send(odometry(stamp_ns, odom_from_base, **self.frames))

    def send(self, message):
        self.messages.publish(message)

    def explore(self, count):
        """See, with odometry, which Robot.send sends only where it has a frame by name."""
        self.robot.parameters['tf.odom_frame'] = 'odom'
        return self.robot.explore(count)

    def known(self):
        return self.robot.node._assembler.odometry

    def poses(self, count):
        path = self.robot.path(count)
        return [matrix_of(p.pose.position, p.pose.orientation) for p in path.poses]


def test_the_map_is_where_odometry_has_it_and_map_to_odom_is_sent(start):
    wheels = Wheels(start, SIMULATED)
    tree = TfTree(wheels.robot)
    all_seen = wheels.explore(4)
    for pose, seen in zip(wheels.poses(4), all_seen, strict=True):
        np.testing.assert_allclose(pose, ODOM_FROM_WORLD @ seen.world_from_camera, atol=1e-6)
    assert {(t.header.frame_id, t.child_frame_id) for t in tree.sent()} == {('map', 'odom')}
    tree.listener.unregister()


def test_frames_that_the_configuration_names_not_are_those_of_the_message(start):
    wheels = Wheels(start, {**SIMULATED, 'tf.base_frame': ''}, mount=False)
    tree = TfTree(wheels.robot)
    # Visual odometry of the camera itself: no mounting is needed.
    wheels.frames = {'frame': 'vio', 'child': FRAME}
    wheels.robot.move_to = lambda seen, odom_from_world=ODOM_FROM_WORLD: wheels.move(
        seen.stamp_ns, odom_from_world @ seen.world_from_camera)
    all_seen = wheels.explore(3)
    for pose, seen in zip(wheels.poses(3), all_seen, strict=True):
        np.testing.assert_allclose(pose, ODOM_FROM_WORLD @ seen.world_from_camera, atol=1e-6)
    assert {t.child_frame_id for t in tree.sent()} == {'vio'}
    tree.listener.unregister()


def test_what_the_messages_say_of_their_errors_goes_with_the_keyframes(start):
    """Before the third image odometry has become unsure of its heading, by 0.1 rad."""
    wheels, sent = Wheels(start, SIMULATED), []

    def move(stamp_ns, odom_from_base):
        message = odometry(stamp_ns, odom_from_base)
        message.pose.covariance[35] = 0.3 + 0.01 * (len(sent) >= 2)
        sent.append(stamp_ns)
        wheels.send(message)

    wheels.robot.move = move
    wheels.explore(4)
    wheels.poses(4)
    keyframes = {k.id: k for window in wheels.robot.backend.windows for k in window}
    told = [keyframe.odom_variance[0] for _, keyframe in sorted(keyframes.items())]
    np.testing.assert_allclose(np.diff(told), [0.0, 0.01, 0.0], atol=1e-9)


def test_the_same_transform_in_tf_does_not_fight_with_the_topic(start):
    wheels = Wheels(start)
    robot = wheels.robot
    elsewhere = rigid(Rotation.from_euler('z', 90, degrees=True), [9, 9, 0])

    def both(stamp_ns, odom_from_base):
        robot.tf.publish(TFMessage(
            transforms=[transform(elsewhere, header(stamp_ns, 'odom'), 'base')]))
        robot.wait_for(lambda: 'odom' in robot.node._buffer.all_frames_as_string(), '/tf')
        wheels.move(stamp_ns, odom_from_base)

    robot.move = both
    all_seen = wheels.explore(3)
    for pose, seen in zip(wheels.poses(3), all_seen, strict=True):
        np.testing.assert_allclose(pose, ODOM_FROM_WORLD @ seen.world_from_camera, atol=1e-6)


def test_an_image_waits_for_odometry_that_is_late_and_gets_what_lies_between(start):
    wheels = Wheels(start, {'tf.timeout_s': 20.0})
    seen = wheels.robot.look()
    goal = ODOM_FROM_WORLD @ seen.world_from_camera @ CAMERA_FROM_BASE
    step = rigid(Rotation.identity(), [0.1, 0.04, 0])
    wheels.move(seen.stamp_ns - STEP_NS, goal @ np.linalg.inv(step))
    wheels.robot.send(seen)
    wheels.robot.wait_for(lambda: wheels.robot.node._assembler._waiting, 'the image')
    assert wheels.robot.keyframes_taken() == 0
    wheels.move(seen.stamp_ns + STEP_NS, goal @ step)
    wheels.robot.wait_for(lambda: wheels.robot.keyframes_taken() == 1, 'the keyframe')
    kept = wheels.robot.node._reconstructor._window._keyframes[0]
    np.testing.assert_allclose(
        kept.odom_from_camera, ODOM_FROM_WORLD @ seen.world_from_camera, atol=1e-9)


def test_an_image_without_odometry_is_given_up_with_the_reason(start):
    wheels = Wheels(start)
    with wheels.robot.warned('no_odometry', 'remap odometry', 'none yet'):
        wheels.robot.see()
    assert wheels.robot.keyframes_taken() == 0


def bent(message, **numbers):
    for name, value in numbers.items():
        part = message.pose.pose.position if name == 'x' else message.pose.pose.orientation
        setattr(part, name, value)
    return message


@pytest.mark.parametrize(('message', 'words'), [
    (lambda s: bent(odometry(s, np.eye(4)), x=float('nan')), 'not finite'),
    (lambda s: bent(odometry(s, np.eye(4)), w=0.0), 'the length 0.000'),
    (lambda s: bent(odometry(s, np.eye(4)), w=1.1), 'the length 1.100'),
    (lambda s: odometry(s, np.eye(4), frame=''), 'names no frames'),
])
def test_a_message_that_is_no_use_is_reported_and_the_next_one_counts(start, message, words):
    wheels = Wheels(start)
    with wheels.robot.warned('odometry', words):
        wheels.send(message(wheels.robot.next_ns))
    assert len(wheels.explore(2)) == 2
    assert len(wheels.poses(2)) == 2


def test_two_sources_on_the_topic_are_reported_and_the_first_counts(start):
    wheels = Wheels(start)
    wheels.explore(2)
    with wheels.robot.warned('odometry', 'one source alone', 'other in odom'):
        wheels.send(odometry(wheels.robot.next_ns + 1, np.eye(4), child='other'))
    with wheels.robot.warned('odometry', 'base in elsewhere'):
        wheels.send(odometry(wheels.robot.next_ns + 1, np.eye(4), frame='elsewhere'))
    wheels.explore(1)
    assert len(wheels.poses(3)) == 3


def test_odometry_that_is_reset_is_reported(start):
    wheels = Wheels(start)
    wheels.explore(2)
    far = rigid(Rotation.identity(), [30, 0, 0])
    with wheels.robot.warned('odometry', 'jumps by', 'reset'):
        wheels.move(wheels.robot.next_ns + 10**7, far)


def test_odometry_by_topic_stands_for_odometry_in_the_configuration():
    config = from_values(Config, {'odometry_source': 'topic', 'pose_source': 'tf'})
    assert config.tf_mode == 'map_to_odom'
    from_values(Config, {'odometry_source': 'topic', 'scale.source': 'odometry'})
    from_values(Config, {'odometry_source': 'topic', 'tf.mode': 'map_to_odom'})
    with pytest.raises(ConfigError, match=r'needs tf\.odom_frame'):
        from_values(Config, {'odometry_source': 'tf', 'pose_source': 'tf'})


# The same of a bag


def by_topic(messages):
    """Return a recording whose odometry came by topic and not in TF."""
    said = []
    for topic, time_ns, message in messages:
        if topic == '/tf':
            (moved,) = message.transforms
            made = Odometry(header=moved.header, child_frame_id=moved.child_frame_id)
            t = moved.transform.translation
            p = made.pose.pose.position
            p.x, p.y, p.z = t.x, t.y, t.z
            made.pose.pose.orientation = moved.transform.rotation
            topic, message = '/odom', made
        said.append((topic, time_ns, message))
    return said


def test_a_bag_with_odometry_and_no_tf_of_it_gives_the_same_frames(tmp_path):
    seen = seen_on_path(12)
    bag = write_bag(tmp_path / 'bag', by_topic(messages_of(seen)))
    config = from_values(Config, TOPIC)
    source = BagSource(bag, config, TopicNames(), None, Notices(print))
    assert source.inputs()['odometry'] == '/odom'
    frames = list(source.frames())
    assert len(frames) == 12
    for frame, view in zip(frames, seen, strict=True):
        np.testing.assert_allclose(
            frame.odom_from_camera, ODOM_FROM_WORLD @ view.world_from_camera, atol=1e-9)


def test_reconstruct_makes_the_same_map_of_topic_and_tf(tmp_path, monkeypatch):
    seen = seen_on_path(12)
    run = Runs(monkeypatch)
    by_tf = write_bag(tmp_path / 'tf', messages_of(seen))
    frames = ['--odom-frame', 'odom', '--base-frame', 'base']
    assert run(by_tf, tmp_path / 'a', *frames, seen=seen) == 0
    bag = write_bag(tmp_path / 'topic', by_topic(messages_of(seen)))
    topic = ['--set', 'odometry_source=topic', '--set', 'pose_source=tf', '--formats', 'bag']
    assert run(bag, tmp_path / 'b', *topic, seen=seen) == 0
    for name in ('map.ply', 'trajectory.tum'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_a_bag_without_odometry_is_refused(tmp_path, monkeypatch, capsys):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    assert Runs(monkeypatch)(bag, tmp_path / 'out', '--set', 'odometry_source=topic') == 1
    assert 'odometry_source to tf' in capsys.readouterr().err
