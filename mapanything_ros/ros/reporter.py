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

"""Counts problems and warns about each kind at most every few seconds."""

from __future__ import annotations

from collections import Counter
import time
from typing import Protocol

from rclpy.impl.rcutils_logger import RcutilsLogger

PERIOD_S = 5.0


class Warns(Protocol):
    """Takes what is wrong with the input (see Reporter)."""

    def warn(self, kind: str, text: str) -> None:
        """Report a problem of a kind in a sentence that says what to do."""
        ...


class Reporter:
    """
    The one place where a problem with the input becomes a warning, a count and a diagnosis.

    Each kind, and each ``sentence`` of a kind that has several, is throttled by itself, so that a
    frequent one does not hide a rare one.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._last_s: dict[tuple[str, str], float] = {}
        self._times: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self.latest = ''
        self._latest_s = float('-inf')

    def age_s(self) -> float:
        """Return how long ago the latest problem was."""
        return time.monotonic() - self._latest_s

    def warn(self, kind: str, text: str, sentence: str = '') -> None:
        """Report a problem of a kind (a short identifier) in a sentence that says what to do."""
        self.latest = text
        self._latest_s = now_s = time.monotonic()
        # Last, so that whoever sees the count from another thread finds the sentence.
        self.counts[kind] += 1
        key = kind, sentence
        self._times[key] += 1
        if now_s - self._last_s.get(key, float('-inf')) >= PERIOD_S:
            self._last_s[key] = now_s
            more = f' ({self._times[key]} times so far)' if self._times[key] > 1 else ''
            self._logger.warning(text + more)
