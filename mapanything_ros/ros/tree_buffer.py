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

"""TF as it was heard, and who is whose parent in it."""

from __future__ import annotations

from collections import defaultdict, deque
import math
import time

from geometry_msgs.msg import TransformStamped
from tf2_ros import Buffer

from mapanything_ros.ros.transforms import to_ns

# Longer than any transform is under way, at the highest rate.
REMEMBERED = 1000


class TreeBuffer(Buffer):
    """
    A tf2 buffer that knows what others say: which parent each frame has.

    tf2 itself forgets who said what; transforms of our own, which ``sending`` has announced, do
    not count.
    """

    def __init__(self) -> None:
        # Not given the node: the original's time-jump callback raises, and its service stays.
        super().__init__()
        # And when it was said, by the monotonic clock; what is static is said for ever.
        self._parents: dict[str, tuple[str, float]] = {}
        self._ours: defaultdict[tuple[str, str], deque[int]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED))

    def sending(self, transform: TransformStamped) -> None:
        """Take note of a transform before it is sent."""
        self._ours[_edge(transform)].append(to_ns(transform.header.stamp))

    def parent(self, frame: str) -> str | None:
        """Return the parent that others have given a frame last, None without one."""
        return self._parents[frame][0] if frame in self._parents else None

    def silence_s(self, frame: str) -> float:
        """Return how long ago others gave a frame a parent; 0 for a static transform."""
        return max(0.0, time.monotonic() - self._parents[frame][1])

    def root(self, frame: str, below: str) -> str:
        """Return the uppermost frame of the tree that holds a frame, ``below`` and up excluded."""
        passed = {frame}
        while (parent := self.parent(frame)) not in {None, below, *passed}:
            frame = str(parent)
            passed.add(frame)
        return frame

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Take a transform from /tf."""
        self._note(transform, time.monotonic())
        super().set_transform(transform, authority)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Take a transform from /tf_static."""
        self._note(transform, math.inf)
        super().set_transform_static(transform, authority)

    def _note(self, transform: TransformStamped, now_s: float) -> None:
        edge = _edge(transform)
        if edge not in self._ours or to_ns(transform.header.stamp) not in self._ours[edge]:
            parent, child = edge
            self._parents[child] = parent, now_s


def _edge(transform: TransformStamped) -> tuple[str, str]:
    """Return the names as tf2 knows them; some drivers begin them with a slash."""
    return transform.header.frame_id.removeprefix('/'), transform.child_frame_id.removeprefix('/')
