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
from collections.abc import Sequence

from mapanything_ros.core.config import WindowConfig
from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.core.frames.patience import Patience


class KeyframeWindow:
    """
    The newest keyframes, at most ``size``; older ones make room and are counted when lost.

    A window is ready when it holds ``size - overlap`` keyframes that no window held before, so
    windows share ``overlap`` keyframes while the backend keeps up.
    """

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        self._size = config.size
        self._step = config.size - config.overlap
        self._patience = Patience()
        self._keyframes: deque[Keyframe] = deque()
        # Windows that come before the newest: parts of those that were too large, what waited at a
        # rest, and what is to judge between two.
        self._parts: deque[tuple[Keyframe, ...]] = deque()
        self._fresh = 0
        self._retry = False
        # The newest keyframe that was taken, the last window in the map, and what was to judge.
        self._taken = -1
        self._placed: tuple[Keyframe, ...] = ()
        self._judged: list[int] = []
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
        if self._parts:
            return True
        step = 1 if self._retry else self._step
        return len(self._keyframes) == self._size and self._fresh >= step

    def can_take(self) -> bool:
        """Say whether there is anything new to reconstruct, full window or not."""
        return self.ready() or self._waits()

    def take(self) -> tuple[Keyframe, ...]:
        """Return the window, oldest keyframe first; its keyframes are not fresh any more."""
        if self._parts:
            taken = self._parts.popleft()
        else:
            taken = tuple(self._keyframes)
            self._fresh = 0
            self._retry = False
        self._taken = taken[-1].id
        return taken

    def retry(self) -> None:
        """Make the window ready again with the next keyframe: the last one taken has failed."""
        self._retry = True

    def placed(self, taken: tuple[Keyframe, ...]) -> None:
        """Take note that a window is in the map."""
        self._placed = taken

    def refused(self, taken: tuple[Keyframe, ...]) -> None:
        """
        Make the next window of the last in the map and one keyframe of those ``taken``.

        They contradict each other about keyframes that they share, and nobody knows which of them
        is wrong: one that shares more with both can tell. What is newer than both could not.
        """
        shared = {keyframe.id for keyframe in self._placed}
        new = [keyframe for keyframe in taken if keyframe.id not in shared]
        judge = (*self._placed, *new[:1])[-self._size:]
        ids = [keyframe.id for keyframe in judge]
        newest = taken[-1].id == self._taken
        if newest and 1 < len(new) < len(taken) and ids != self._judged:
            self._judged = ids
            self._parts.appendleft(judge)
            self._fresh += len(new) - 1
        elif len(new) != 1:
            self.retry()

    def rest(self) -> None:
        """Make a window of what waits, full or not: nothing may come for long."""
        if self._waits():
            self._parts.append(tuple(self._keyframes))
            self._fresh = 0

    def shrink(self, size: int, taken: Sequence[Keyframe]) -> None:
        """
        Make this and later windows hold at most ``size`` (2 or more) keyframes, for a while.

        Those ``taken``, which did not fit, come again in parts that overlap: none is lost.
        """
        if self._size == self._config.size:
            self._patience.failed()
        self._resize(size)
        windows = [tuple(taken), *self._parts] if taken else []
        if self._fresh > self._step:
            newest = tuple(self._keyframes)
            windows.append(newest[-self._fresh - (size - self._step):])
            self._fresh = 0
        self._parts = deque(part for window in windows for part in self._split(window))
        while len(self._keyframes) > size:
            self._keyframes.popleft()

    def fitted(self, count: int) -> None:
        """Count a window of so many keyframes that was done; after a while all fit again."""
        if count >= self._config.size:
            self._patience.worked()
        elif self._size < self._config.size and self._patience.over() and not self._parts:
            self._resize(self._config.size)

    def clear(self) -> None:
        """Forget all keyframes."""
        self._keyframes.clear()
        self._parts.clear()
        self._placed = ()
        self._fresh = 0
        self._retry = False

    def _waits(self) -> bool:
        return self._fresh > 0 and len(self._keyframes) >= min(2, self._size)

    def _resize(self, size: int) -> None:
        self._size = size
        self._step = size - min(self._config.overlap, size - 1)

    def _split(self, window: tuple[Keyframe, ...]) -> list[tuple[Keyframe, ...]]:
        overlap = self._size - self._step
        starts = range(0, max(1, len(window) - overlap), self._step)
        return [window[start:start + self._size] for start in starts]
