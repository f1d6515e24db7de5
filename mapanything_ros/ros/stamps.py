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

"""Lets only stamps through that time can have made."""

from __future__ import annotations

FUTURE_NS = 2 * 10**9
LOOP_NS = 2 * 10**9
LOOP_IMAGES = 3


class StampGate:
    """
    Judges the stamps of a stream of images.

    Stamps rise. Several images in a row that rise among themselves but lie behind the newest one
    mean that the source was set back (a bag that loops), which ``check`` answers with 'loop'.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Take whatever stamp comes next."""
        self._newest_ns: int | None = None
        self._behind_ns: list[int] = []

    def check(self, stamp_ns: int, now_ns: int) -> str:
        """Return 'good', 'loop' (good, and a new start), or why the stamp is refused."""
        if stamp_ns <= 0:
            return 'stamp_zero'
        if stamp_ns > now_ns + FUTURE_NS:
            return 'stamp_future'
        if self._newest_ns is None or stamp_ns > self._newest_ns:
            self._accept(stamp_ns)
            return 'good'
        if stamp_ns == self._newest_ns:
            return 'stamp_repeated'
        if self._behind_ns and stamp_ns <= self._behind_ns[-1]:
            self._behind_ns = []
        self._behind_ns.append(stamp_ns)
        if len(self._behind_ns) < LOOP_IMAGES:
            return 'stamp_backwards'
        looped = self._newest_ns - stamp_ns > LOOP_NS
        self._accept(stamp_ns)
        return 'loop' if looped else 'good'

    def _accept(self, stamp_ns: int) -> None:
        self._newest_ns = stamp_ns
        self._behind_ns = []
