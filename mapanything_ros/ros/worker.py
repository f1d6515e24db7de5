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

"""Runs windows beside the callbacks, in two stages that overlap."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition, Thread
from typing import Protocol

# What is left to do of a piece of work; says in a sentence what came of it.
Finish = Callable[[], str]


class Answer(Protocol):
    """The future that a request is answered through (rclpy.task.Future)."""

    def set_result(self, result: str) -> None:
        """Hand the answer to whoever waits."""
        ...


class Worker:
    """
    Two threads that work when they are woken: one begins a window, one finishes that before it.

    ``begin(partial)`` does the first stage of a piece of work and returns the second, or None
    where there is nothing to do; then ``idle`` is called. The second stages run in the order of
    the first, and at most one waits for another; each may make work. None of them may raise.
    """

    def __init__(
        self, begin: Callable[[bool], Finish | None], idle: Callable[[], None],
    ) -> None:
        self._begin = begin
        self._idle = idle
        self._changed = Condition()
        self._awake = False
        self._stopping = False
        self._requests: list[Answer] = []
        self._finisher = ThreadPoolExecutor(1, 'mapanything_finisher')
        self._thread = Thread(target=self._run, name='mapanything_worker')

    def start(self) -> None:
        """Work from now on; whoever calls it can stop it, also where Ctrl-C interrupts this."""
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

    def finish(self, job: Callable[[], object]) -> None:
        """Do a job, which must not raise, behind the second stages that have begun."""
        self._finisher.submit(job)

    def stop(self) -> None:
        """End the threads after the work in hand; requests that wait are answered."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        # Not where its start was interrupted: then it ends by itself.
        if self._thread.is_alive():
            self._thread.join()
        self._finisher.shutdown()

    def _run(self) -> None:
        last: Future[object] = Future()
        last.set_result('')
        idle = last
        while self._wait():
            while not self._stopping and (finish := self._begin(False)) is not None:
                last.result()
                last = self._finisher.submit(self._finish, finish)
            if idle.done():
                idle = self._finisher.submit(self._idle)
            self._answer()
        self._answer()

    def _finish(self, finish: Finish) -> str:
        outcome = finish()
        self.wake()
        return outcome

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._awake or self._stopping)
            self._awake = False
            return not self._stopping

    def _answer(self) -> None:
        with self._changed:
            requests, self._requests = self._requests, []
        if not requests:
            return
        outcome = 'the node was cleaned up'
        if not self._stopping:
            outcome = 'nothing new to reconstruct'
            # What is not finished yet may make work, which comes before what is incomplete.
            self._finisher.submit(str).result()
            for partial in (False, True):
                if (finish := self._begin(partial)) is not None:
                    outcome = self._finisher.submit(self._finish, finish).result()
        for answer in requests:
            answer.set_result(outcome)
