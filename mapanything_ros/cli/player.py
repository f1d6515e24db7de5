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

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
import importlib
from pathlib import Path
import time
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError
from rosgraph_msgs.msg import Clock

from mapanything_ros.core.errors import InputError

CLOCK_PERIOD_S = 0.01


@dataclass(frozen=True)
class Track:
    """A topic of a bag: ``type_name`` as in ``sensor_msgs/msg/Image``, ``count`` messages."""

    topic: str
    type_name: str
    count: int


def open_bag(folder: Path) -> Reader:
    """Return an unopened reader of a ROS 2 bag; a folder without one raises InputError."""
    try:
        return Reader(folder)
    except (ReaderError, OSError) as error:
        raise InputError(f'{folder} cannot be read as a ROS 2 bag: {error}') from error


def tracks(folder: Path) -> tuple[Track, ...]:
    """List the topics of a bag by name."""
    with open_bag(folder) as reader:
        return tuple(
            Track(topic, str(info.msgtype), info.msgcount)
            for topic, info in sorted(reader.topics.items()))


def message_class(type_name: str) -> Any:
    """Return the Python class of a message type such as ``sensor_msgs/msg/Image``."""
    package, _, name = type_name.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f'the message type {type_name} is not installed; install {package}') from error


def quality(track: Track) -> QoSProfile:
    """Return what to offer for a topic, so that both kinds of subscribers match."""
    if track.topic == '/tf_static':
        return QoSProfile(
            depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL,
            reliability=ReliabilityPolicy.RELIABLE)
    return QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class Player:
    """
    Publishes chosen topics of a bag through a node.

    The clock is the bag's: it starts at the first chosen message, never goes back, and before
    each message stands where that message was recorded.
    """

    def __init__(self, node: Node, folder: Path, chosen: Collection[Track]) -> None:
        if not chosen:
            raise InputError(f'there is nothing to play in {folder}')
        self._node = node
        self._folder = folder
        self._publishers: Mapping[str, Publisher] = {
            track.topic: node.create_publisher(
                message_class(track.type_name), track.topic, quality(track))
            for track in chosen}
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

    def play(self, rate: float, progress: Callable[[float, float], None]) -> int:
        """
        Play to the end, ``rate`` times as fast as recorded, and return how many were published.

        ``progress`` is called with the bag's seconds played, and all of them, before each
        message; it may raise to stop.
        """
        with open_bag(self._folder) as reader:
            chosen = [c for c in reader.connections if c.topic in self._publishers]
            pacer = _Pacer(self._clock, rate)
            published, start_ns, end_ns = 0, None, reader.end_time
            for connection, stamp_ns, data in reader.messages(connections=chosen):
                start_ns = stamp_ns if start_ns is None else start_ns
                progress((stamp_ns - start_ns) * 1e-9, (end_ns - start_ns) * 1e-9)
                pacer.wait_until(stamp_ns)
                self._publish(connection, data)
                published += 1
        return published

    def _publish(self, connection: Connection, data: bytes | memoryview) -> None:
        self._publishers[connection.topic].publish(bytes(data))


class _Pacer:
    """Ticks the clock while it waits for the wall time of a bag's stamp."""

    def __init__(self, clock: Publisher, rate: float) -> None:
        self._clock = clock
        self._rate = rate
        self._start: tuple[int, float] | None = None
        self._now_ns = 0

    def wait_until(self, stamp_ns: int) -> None:
        if self._start is None:
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

    def _tick(self, now_ns: int) -> None:
        self._now_ns = now_ns
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, 1_000_000_000)
        self._clock.publish(message)
