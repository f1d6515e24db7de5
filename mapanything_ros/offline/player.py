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

"""Play a bag over DDS: the recorded bytes as they are, and ``/clock`` from the bag's time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
import importlib
import time
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.bag import Bag

# 50 Hz; more would keep a Python executor from the images.
CLOCK_PERIOD_S = 0.02
# Topics overtake each other: without this a first message may come to a node without a time.
FIRST_TICK_S = 0.5


def message_class(type_name: str) -> Any:
    """Return the Python class of a message type such as ``sensor_msgs/msg/Image``."""
    package, _, name = type_name.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f'the message type {type_name} is not installed; install {package}') from error


def quality(topic: str) -> QoSProfile:
    """Return what to offer on a topic: reliable, which best effort subscribers match too."""
    latched = topic == '/tf_static'
    return QoSProfile(
        depth=100, reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)


class Player:
    """
    Publishes chosen topics of an open bag through a node.

    The clock is the bag's: it starts at the first chosen message, never goes back, and before
    each message stands where that message was recorded.
    """

    def __init__(self, node: Node, bag: Bag, topics: Collection[str]) -> None:
        self._bag = bag
        self._publishers: dict[str, Publisher] = {
            topic: node.create_publisher(
                message_class(bag.topics[topic]), topic, quality(topic))
            for topic in topics}
        self._clock = node.create_publisher(Clock, '/clock', 100)

    def wait_for_subscribers(self, topics: Collection[str], timeout_s: float) -> None:
        """Wait until each of the topics, and the clock, has one; else raise InputError."""
        waiting = [self._clock, *(self._publishers[topic] for topic in topics)]
        deadline = time.monotonic() + timeout_s
        while waiting := [p for p in waiting if not p.get_subscription_count()]:
            if time.monotonic() > deadline:
                names = ', '.join(publisher.topic_name for publisher in waiting)
                raise InputError(f'nobody subscribed to {names} within {timeout_s:g} s')
            time.sleep(0.02)

    def play(self, rate: float, progress: Callable[[float, float], None]) -> Counter[str]:
        """
        Play to the end, ``rate`` times as fast as recorded; return how many went to each topic.

        ``progress`` is called with the bag's seconds played, and all of them, before each
        message; the bag and its clock stand still while it takes its time. It may raise to stop.
        """
        pacer = _Pacer(self._clock, rate)
        played: Counter[str] = Counter()
        for message in self._bag.messages(self._publishers):
            called_s = time.monotonic()
            progress(
                (message.log_time_ns - self._bag.start_ns) * 1e-9, self._bag.duration_ns * 1e-9)
            pacer.postpone(time.monotonic() - called_s)
            pacer.wait_until(message.log_time_ns)
            self._publishers[message.topic].publish(message.cdr)
            played[message.topic] += 1
        return played


class _Pacer:
    """Ticks the clock while it waits for the wall time of a bag's stamp."""

    def __init__(self, clock: Publisher, rate: float) -> None:
        self._clock = clock
        self._rate = rate
        self._start: tuple[int, float] | None = None
        self._now_ns = 0

    def wait_until(self, stamp_ns: int) -> None:
        if self._start is None:
            self._tick(stamp_ns)
            time.sleep(FIRST_TICK_S)
            self._start = stamp_ns, time.monotonic()
        start_ns, start_s = self._start
        due_s = start_s + (stamp_ns - start_ns) * 1e-9 / self._rate
        while (left_s := due_s - time.monotonic()) > CLOCK_PERIOD_S:
            time.sleep(CLOCK_PERIOD_S)
            elapsed_s = time.monotonic() - start_s
            now_ns = start_ns + int(elapsed_s * self._rate * 1e9)
            self._tick(min(stamp_ns, max(self._now_ns, now_ns)))
        if left_s > 0:
            time.sleep(left_s)
        self._tick(stamp_ns)

    def postpone(self, held_s: float) -> None:
        """Play what is left later."""
        if self._start is not None:
            self._start = self._start[0], self._start[1] + held_s

    def _tick(self, now_ns: int) -> None:
        if now_ns == self._now_ns:
            return
        self._now_ns = now_ns
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, 1_000_000_000)
        self._clock.publish(message)
