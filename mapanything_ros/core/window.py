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

"""Groups keyframes for one call of the backend."""

from __future__ import annotations

from collections import deque

from mapanything_ros.core.config import WindowConfig
from mapanything_ros.core.datatypes import Keyframe


class KeyframeWindow:
    """
    The newest keyframes, at most ``size``; older ones make room and are counted when lost.

    A window is ready when it holds ``size - overlap`` keyframes that no window held before, so
    windows share ``overlap`` keyframes while the backend keeps up.
    """

    def __init__(self, config: WindowConfig) -> None:
        self._size = config.size
        self._step = config.size - config.overlap
        self._keyframes: deque[Keyframe] = deque()
        self._fresh = 0
        self._retry = False
        self.dropped = 0

    def add(self, keyframe: Keyframe) -> None:
        """Add the newest keyframe."""
        self._keyframes.append(keyframe)
        self._fresh += 1
        if len(self._keyframes) > self._size:
            self._keyframes.popleft()
            if self._fresh > self._size:
                self._fresh = self._size
                self.dropped += 1

    def ready(self) -> bool:
        """Say whether a full window with enough new keyframes waits."""
        step = 1 if self._retry else self._step
        return len(self._keyframes) == self._size and self._fresh >= step

    def can_take(self) -> bool:
        """Say whether there is anything new to reconstruct, full window or not."""
        return self._fresh > 0 and len(self._keyframes) >= 2

    def take(self) -> tuple[Keyframe, ...]:
        """Return the window, oldest keyframe first; its keyframes are not fresh any more."""
        self._fresh = 0
        self._retry = False
        return tuple(self._keyframes)

    def retry(self) -> None:
        """Make the window ready again with the next keyframe: the last one taken has failed."""
        self._retry = True

    def clear(self) -> int:
        """Forget all keyframes; return how many were never in a window."""
        lost, self._fresh = self._fresh, 0
        self._keyframes.clear()
        self._retry = False
        return lost
