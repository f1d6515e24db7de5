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

"""A clock that no callback holds up."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
import time


class Ticker:
    """
    Calls at a steady rate from a thread of its own, whatever the executor is busy with.

    ``call`` must not raise. Whoever makes it holds it before it starts: Ctrl-C may come at any
    moment, and a thread that nobody can stop keeps the process alive.
    """

    def __init__(self, period_s: float, call: Callable[[], None]) -> None:
        self._period_s = period_s
        self._call = call
        self._stopped = Event()
        self._thread = Thread(target=self._run, name='mapanything_ticker')

    def start(self) -> None:
        """Call from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Call no more; not to be called by ``call``."""
        self._stopped.set()
        # Not where its start was interrupted: then it ends by itself.
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopped.wait(max(0.0, due_s - time.monotonic())):
            self._call()
            # What was missed is not made up for.
            due_s = max(due_s + self._period_s, time.monotonic())
