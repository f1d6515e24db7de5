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

"""Broadcasters, listener and clock over DDS."""

import time

from geometry_msgs.msg import TransformStamped
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, StaticTransformBroadcaster, TransformBroadcaster, TransformListener

LATEST = Time()
DEADLINE_S = 20.0


def stamped(parent: str, child: str, x: float, sec: int = 1) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp.sec = sec
    message.transform.translation.x = x
    return message


@pytest.fixture
def executor(context):
    executor = SingleThreadedExecutor(context=context)
    yield executor
    executor.shutdown()


@pytest.fixture
def make_node(context, executor):
    nodes = []

    def make(name: str, **options) -> Node:
        node = Node(name, context=context, **options)
        executor.add_node(node)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def spin_until(executor, condition, repeat=lambda: None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, 'nothing came over DDS'
        repeat()
        executor.spin_once(timeout_sec=0.05)


def test_what_a_broadcaster_sends_a_listener_can_look_up(executor, make_node):
    broadcaster = TransformBroadcaster(make_node('sender'))
    buffer = Buffer()
    listener = TransformListener(buffer, make_node('receiver'))
    pair = [stamped('map', 'odom', 2.5), stamped('odom', 'base', 0.5)]
    spin_until(
        executor,
        lambda: buffer.can_transform('map', 'base', LATEST),
        lambda: broadcaster.sendTransform(pair),
    )
    found = buffer.lookup_transform('map', 'base', LATEST)
    assert found.transform.translation.x == 3.0
    assert found.header.stamp.sec == 1
    listener.unregister()


def test_static_transforms_reach_a_listener_that_comes_later(executor, make_node):
    broadcaster = StaticTransformBroadcaster(make_node('sender'))
    broadcaster.sendTransform(stamped('base', 'camera', 1.0))
    broadcaster.sendTransform(stamped('base', 'lidar', 2.0))
    broadcaster.sendTransform(stamped('base', 'camera', 9.0))
    buffer = Buffer()
    listener = TransformListener(buffer, make_node('receiver'))
    spin_until(executor, lambda: buffer.can_transform('base', 'lidar', LATEST))
    found = buffer.lookup_transform('base', 'camera', Time(seconds=12345))
    assert found.transform.translation.x == 1.0, 'as in the original, the first one stays'
    listener.unregister()


def test_a_listener_can_spin_in_its_own_thread(context):
    sender, receiver = Node('sender', context=context), Node('receiver', context=context)
    broadcaster = TransformBroadcaster(sender)
    buffer = Buffer()
    listener = TransformListener(buffer, receiver, spin_thread=True)
    deadline = time.monotonic() + DEADLINE_S
    while not buffer.can_transform('map', 'base', LATEST):
        assert time.monotonic() < deadline
        broadcaster.sendTransform(stamped('map', 'base', 4.0))
        time.sleep(0.05)
    assert buffer.lookup_transform('map', 'base', LATEST).transform.translation.x == 4.0
    listener.executor.shutdown()
    listener.dedicated_listener_thread.join(timeout=DEADLINE_S)
    assert not listener.dedicated_listener_thread.is_alive()


def test_a_clock_that_jumps_back_clears_the_buffer(executor, make_node):
    simulated = Parameter('use_sim_time', Parameter.Type.BOOL, True)
    node = make_node('receiver', parameter_overrides=[simulated])
    buffer = Buffer(node=node)
    publisher = make_node('bag').create_publisher(Clock, '/clock', 10)

    def set_clock(sec: int) -> None:
        message = Clock()
        message.clock.sec = sec
        spin_until(
            executor,
            lambda: node.get_clock().now().nanoseconds == sec * 1_000_000_000,
            lambda: publisher.publish(message),
        )

    set_clock(100)
    buffer.set_transform(stamped('map', 'base', 1.0, sec=100), 'test')
    buffer.set_transform_static(stamped('base', 'camera', 1.0), 'test')
    set_clock(101)
    assert buffer.can_transform('map', 'camera', LATEST)
    set_clock(50)
    assert not buffer.can_transform('map', 'camera', LATEST)
    assert buffer.can_transform('base', 'camera', LATEST)


def test_the_message_keeps_its_content_over_dds(executor, make_node):
    received: list[TFMessage] = []
    sender = make_node('sender').create_publisher(TFMessage, '/tf', 10)
    make_node('receiver').create_subscription(TFMessage, '/tf', received.append, 10)
    sent = TFMessage(transforms=[stamped('map', 'odom', 0.1), stamped('odom', 'base', -0.3)])
    spin_until(executor, lambda: received, lambda: sender.publish(sent))
    assert received[0] == sent
