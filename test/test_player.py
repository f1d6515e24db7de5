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

import threading
import time

import pytest
from rclpy.qos import (
    DurabilityPolicy,
    qos_profile_sensor_data,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.player import FIRST_TICK_S, message_class, Player

START_NS = 1_700_000_000_123_456_789
STEP_NS = 20_000_001
COUNT = 30


@pytest.fixture
def bag(folder):
    with Bag(folder) as opened:
        yield opened


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Write a bag with headers every 20.000001 ms, one static transform and a spare topic."""
    types = get_typestore(Stores.ROS2_JAZZY)
    folder = tmp_path_factory.mktemp('bags') / 'bag'
    stamp_type, header_type = (
        types.types['builtin_interfaces/msg/Time'], types.types['std_msgs/msg/Header'])
    static_type = types.types['tf2_msgs/msg/TFMessage']

    def header(stamp_ns, name):
        return header_type(stamp_type(*divmod(stamp_ns, 1_000_000_000)), name)

    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        def add(topic, message):
            return writer.add_connection(topic, message.__msgtype__, typestore=types)

        def write(connection, stamp_ns, message):
            writer.write(
                connection, stamp_ns, types.serialize_cdr(message, message.__msgtype__))

        static = static_type(transforms=[])
        fixed = add('/tf_static', static)
        write(fixed, START_NS, static)
        headers, spare = add('/headers', header(0, '')), add('/spare', header(0, ''))
        for index in range(COUNT):
            stamp_ns = START_NS + index * STEP_NS
            # Names of every length from 0: CDR's padding differs, and must survive.
            write(headers, stamp_ns, header(stamp_ns - 5, 'x' * index))
            write(spare, stamp_ns, header(stamp_ns, 'spare'))
    return folder


def test_messages_arrive_byte_by_byte_and_in_order_under_a_rising_clock(bag, nodes):
    player_node, listener = nodes
    events, done = [], threading.Event()

    def keep_header(data):
        events.append(('header', data))
        if sum(kind == 'header' for kind, _ in events) == COUNT:
            done.set()

    def keep_clock(message):
        events.append(('clock', message.clock.sec * 1_000_000_000 + message.clock.nanosec))

    listener.create_subscription(Clock, '/clock', keep_clock, 1000)
    listener.create_subscription(Header, '/headers', keep_header, 1000, raw=True)
    player = Player(player_node, bag, ['/headers', '/tf_static'])
    player.wait_for_subscribers(['/headers'], 20.0)
    played = []
    counts = player.play(0.25, lambda at_s, all_s: played.append((at_s, all_s)))
    assert counts == {'/headers': COUNT, '/tf_static': 1}
    assert done.wait(20.0)

    types = get_typestore(Stores.ROS2_JAZZY)
    received = [data for kind, data in events if kind == 'header']
    for index, data in enumerate(received):
        stamp_ns = START_NS + index * STEP_NS - 5
        expected = types.serialize_cdr(
            types.types['std_msgs/msg/Header'](
                types.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 1_000_000_000)),
                'x' * index),
            'std_msgs/msg/Header')
        # A reader may be handed the writer's padding to 4 bytes; the message ends before it.
        assert bytes(data)[:len(expected)] == bytes(expected)
        assert len(data) - len(expected) < 4
        message = deserialize_message(data, Header)
        assert message.stamp.sec * 1_000_000_000 + message.stamp.nanosec == stamp_ns

    clock = [now_ns for kind, now_ns in events if kind == 'clock']
    assert clock == sorted(clock)
    assert clock[0] == START_NS
    assert clock[-1] == START_NS + (COUNT - 1) * STEP_NS
    assert {START_NS + index * STEP_NS for index in range(COUNT)} <= set(clock)
    assert len(set(clock)) > COUNT  # it also ticks between messages
    assert played[0][0] == 0
    assert played[-1] == pytest.approx(((COUNT - 1) * STEP_NS * 1e-9,) * 2)


def test_the_time_is_known_before_the_first_message_comes(bag, monkeypatch):
    events = []

    class Topic:

        def __init__(self, kind, name, qos):
            self.name = name

        def publish(self, message):
            events.append(self.name)

    class Node:
        create_publisher = Topic

    monkeypatch.setattr('time.sleep', events.append)
    Player(Node(), bag, ['/headers']).play(1e6, lambda at_s, all_s: None)
    assert events[:3] == ['/clock', FIRST_TICK_S, '/headers']


def test_a_late_subscriber_still_gets_the_static_transforms(bag, nodes):
    player_node, listener = nodes
    Player(player_node, bag, ['/tf_static']).play(50.0, lambda at_s, all_s: None)
    received = threading.Event()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(TFMessage, '/tf_static', lambda _: received.set(), latched)
    assert received.wait(20.0)


def test_best_effort_subscribers_match(bag, nodes):
    player_node, listener = nodes
    assert qos_profile_sensor_data.reliability is ReliabilityPolicy.BEST_EFFORT
    listener.create_subscription(Header, '/headers', lambda _: None, qos_profile_sensor_data)
    listener.create_subscription(Clock, '/clock', lambda _: None, qos_profile_sensor_data)
    Player(player_node, bag, ['/headers']).wait_for_subscribers(['/headers'], 20.0)


def test_missing_subscribers_are_named(bag, nodes):
    player_node, listener = nodes
    listener.create_subscription(Clock, '/clock', lambda _: None, 10)
    player = Player(player_node, bag, ['/headers'])
    with pytest.raises(InputError, match='nobody subscribed to /headers '):
        player.wait_for_subscribers(['/headers'], 1.0)


def test_a_message_type_that_is_not_installed_is_named():
    with pytest.raises(InputError, match='install nowhere_msgs'):
        message_class('nowhere_msgs/msg/Image')


def test_the_bag_stands_still_while_progress_takes_its_time(bag, nodes):
    player_node, listener = nodes
    clock, asked = [], []
    done = threading.Event()

    def keep(message):
        clock.append(message.clock.sec * 1_000_000_000 + message.clock.nanosec)
        if clock[-1] == START_NS + (COUNT - 1) * STEP_NS:
            done.set()

    def hold(at_s, all_s):
        asked.append(at_s)
        if len(asked) == 11:
            time.sleep(1.0)

    listener.create_subscription(Clock, '/clock', keep, 1000)
    player = Player(player_node, bag, ['/headers'])
    player.wait_for_subscribers([], 20.0)
    player.play(0.25, hold)
    assert done.wait(20.0)
    # It goes on where it stood: the clock still ticks between the messages after the hold.
    held_at = clock.index(START_NS + 9 * STEP_NS)
    messages = {START_NS + index * STEP_NS for index in range(COUNT)}
    between = [now for now in clock[held_at:] if now not in messages]
    assert clock == sorted(clock)
    assert between
    assert min(between) > START_NS + 9 * STEP_NS
