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

"""When to try again what did not fit the memory."""

from __future__ import annotations

# Windows, before the first try and at most. A try that fails costs up to three windows' time: a
# fifth of all time at first, half as much after each failure.
FIRST = 16
MOST = 1024


class Patience:
    """Counts windows until something is tried again; each failure doubles how many."""

    def __init__(self) -> None:
        self._wait = FIRST
        self._left = 0

    def failed(self) -> None:
        """Wait from now on; twice as long as the last time, if that was in vain."""
        self._left = self._wait
        self._wait = min(2 * self._wait, MOST)

    def over(self) -> bool:
        """Count a window that was done; say whether it is time to try again."""
        self._left -= 1
        return self._left <= 0

    def worked(self) -> None:
        """Begin anew: what did not fit does now."""
        self._wait = FIRST
