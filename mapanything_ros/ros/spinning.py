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

"""Runs an executor in a thread that can be ended safely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from rclpy.executors import Executor, ExternalShutdownException


@contextmanager
def spinning(executor: Executor) -> Iterator[Thread]:
    """
    Spin in a thread until left; only then may the executor be shut down.

    ``Executor.shutdown`` of rclpy (Humble to Kilted) destroys the guard condition that wakes the
    spinning thread. A thread that is just about to wait leaves it out, and waits for ever. A task
    reaches the thread wherever it is.
    """
    ended = Event()

    def spin() -> None:
        with suppress(ExternalShutdownException):
            while executor.context.ok() and not ended.is_set():
                executor.spin_once()

    thread = Thread(target=spin, name='spin')
    thread.start()
    try:
        yield thread
    finally:
        executor.create_task(ended.set)
        thread.join()
