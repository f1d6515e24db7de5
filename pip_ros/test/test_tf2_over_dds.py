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

"""Broadcaster and listener over DDS."""

import time

from geometry_msgs.msg import TransformStamped
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformBroadcaster, TransformListener

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
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    sender = make_node('sender').create_publisher(TFMessage, '/tf_static', latched)
    sender.publish(TFMessage(transforms=[stamped('base', 'camera', 1.0)]))
    buffer = Buffer()
    listener = TransformListener(buffer, make_node('receiver'))
    spin_until(executor, lambda: buffer.can_transform('base', 'camera', LATEST))
    found = buffer.lookup_transform('base', 'camera', Time(seconds=12345))
    assert found.transform.translation.x == 1.0
    listener.unregister()


def test_the_message_keeps_its_content_over_dds(executor, make_node):
    received: list[TFMessage] = []
    sender = make_node('sender').create_publisher(TFMessage, '/tf', 10)
    make_node('receiver').create_subscription(TFMessage, '/tf', received.append, 10)
    sent = TFMessage(transforms=[stamped('map', 'odom', 0.1), stamped('odom', 'base', -0.3)])
    spin_until(executor, lambda: received, lambda: sender.publish(sent))
    assert received[0] == sent
