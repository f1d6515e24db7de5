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

"""Runs windows beside the callbacks, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Protocol


class Answer(Protocol):
    """The future that a request is answered through (rclpy.task.Future)."""

    def set_result(self, result: str) -> None:
        """Hand the answer to whoever waits."""
        ...


class Worker:
    """
    A thread that works when it is woken.

    ``work(partial)`` does one piece of work and says, in a sentence, what came of it; None means
    that there was nothing to do. It must not raise.
    """

    def __init__(self, work: Callable[[bool], str | None]) -> None:
        self._work = work
        self._changed = Condition()
        self._awake = False
        self._stopping = False
        self._requests: list[Answer] = []
        self._thread = Thread(target=self._run, name='mapanything_worker')
        self._thread.start()

    def wake(self) -> None:
        """Look for work."""
        with self._changed:
            self._awake = True
            self._changed.notify()

    def request(self, answer: Answer) -> None:
        """Work on whatever is buffered, complete or not, and answer when that is done."""
        with self._changed:
            self._requests.append(answer)
            self._awake = True
            self._changed.notify()

    def stop(self) -> None:
        """End the thread after the work in hand; requests that wait are answered."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait():
            while not self._stopping and self._work(False) is not None:
                pass
            self._answer()
        self._answer()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._awake or self._stopping)
            self._awake = False
            return not self._stopping

    def _answer(self) -> None:
        with self._changed:
            requests, self._requests = self._requests, []
        if requests:
            outcome = 'the node was cleaned up' if self._stopping else self._work(True)
            for answer in requests:
                answer.set_result(outcome or 'nothing new to reconstruct')
