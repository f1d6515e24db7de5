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

"""Synchronises topics as message_filters' TimeSynchronizer does."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from helpers import stamp_of
from robot import Robot


class ExactSync:
    """Gives sets of messages of equal stamp, and drops, as message_filters does by exact time."""

    def __init__(self, robot: Robot, topics: dict[str, type], queue: int = 10) -> None:
        self.sets: list[dict[str, Any]] = []
        self.dropped = 0
        self._names = set(topics)
        self._queue = queue
        self._waiting: OrderedDict[int, dict[str, Any]] = OrderedDict()
        for topic, kind in topics.items():
            robot.peer.create_subscription(
                kind, topic, lambda message, topic=topic: self._add(topic, message), 10)

    def _add(self, topic: str, message: Any) -> None:
        stamp_ns = stamp_of(message)
        found = self._waiting.setdefault(stamp_ns, {})
        found[topic] = message
        if found.keys() == self._names:
            self.sets.append(found)
            # Older ones can no more be given in order.
            for older in [key for key in self._waiting if key <= stamp_ns]:
                self.dropped += older < stamp_ns
                del self._waiting[older]
        while len(self._waiting) > self._queue:
            self._waiting.popitem(last=False)
            self.dropped += 1
