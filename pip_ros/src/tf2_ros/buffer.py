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

from collections.abc import Callable
import threading
from time import sleep
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from tf2_py import BufferCore

NO_WAIT = Duration()
POLL_SECONDS = 0.02
# A system clock that goes back this far ends a wait, since the deadline means nothing any more.
BIG_JUMP = Duration(seconds=3)


class Buffer(BufferCore):
    """
    A BufferCore that can wait for transforms and that is cleared when its clock jumps back.

    Unlike the original it offers no `tf2_frames` service, whose type needs the whole of tf2_msgs.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        if cache_time is not None:
            super().__init__(cache_time)
        else:
            super().__init__()
        self._new_data_callbacks: list[Callable[[], None]] = []
        self._callbacks_lock = threading.RLock()
        self.clock = Clock() if node is None else node.get_clock()
        threshold = JumpThreshold(
            min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
        )
        self.jump_handle = self.clock.create_jump_callback(
            threshold, post_callback=self.time_jump_callback
        )

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        get_logger('tf2_buffer').warning('Detected jump back in time. Clearing tf buffer.')
        self.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        super().set_transform(transform, authority)
        self._call_new_data_callbacks()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        super().set_transform_static(transform, authority)
        self._call_new_data_callbacks()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration = NO_WAIT
    ) -> TransformStamped:
        """Return target_from_source at a time, after waiting for it at most `timeout`."""
        self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
    ) -> TransformStamped:
        """Return the target at one time from the source at another, through a fixed frame."""
        request = (target_frame, target_time, source_frame, source_time, fixed_frame)
        self.can_transform_full(*request, timeout)
        return self.lookup_transform_full_core(*request)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = NO_WAIT,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Return whether a lookup would succeed, after waiting for it at most `timeout`."""
        answer = _wait(
            lambda: self.can_transform_core(target_frame, source_frame, time), timeout
        )
        return answer if return_debug_tuple else answer[0]

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Return whether a lookup through a fixed frame would succeed, after waiting for it."""
        request = (target_frame, target_time, source_frame, source_time, fixed_frame)
        answer = _wait(lambda: self.can_transform_full_core(*request), timeout)
        return answer if return_debug_tuple else answer[0]

    async def lookup_transform_async(
        self, target_frame: str, source_frame: str, time: Time
    ) -> TransformStamped:
        return await self.wait_for_transform_async(target_frame, source_frame, time)

    async def lookup_transform_full_async(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
    ) -> TransformStamped:
        return await self.wait_for_transform_full_async(
            target_frame, target_time, source_frame, source_time, fixed_frame
        )

    def wait_for_transform_async(
        self, target_frame: str, source_frame: str, time: Time
    ) -> Future:
        """Return a future of the transform, set as soon as it is known."""
        request = (target_frame, source_frame, time)
        return self._future(
            lambda: self.can_transform_core(*request)[0],
            lambda: self.lookup_transform_core(*request),
        )

    def wait_for_transform_full_async(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
    ) -> Future:
        """Return a future of the transform through a fixed frame, set as soon as it is known."""
        request = (target_frame, target_time, source_frame, source_time, fixed_frame)
        return self._future(
            lambda: self.can_transform_full_core(*request)[0],
            lambda: self.lookup_transform_full_core(*request),
        )

    def _future(
        self, is_ready: Callable[[], bool], lookup: Callable[[], TransformStamped]
    ) -> Future:
        future: Any = Future()

        def answer() -> None:
            if future.done() or not is_ready():
                return
            try:
                future.set_result(lookup())
            except Exception as error:
                future.set_exception(error)

        # Registered before the first look, so that nothing that comes in between is missed.
        with self._callbacks_lock:
            self._new_data_callbacks.append(answer)
        future.add_done_callback(lambda _: self._remove_callback(answer))
        answer()
        return future

    def _remove_callback(self, callback: Callable[[], None]) -> None:
        with self._callbacks_lock:
            self._new_data_callbacks.remove(callback)

    def _call_new_data_callbacks(self) -> None:
        with self._callbacks_lock:
            for callback in list(self._new_data_callbacks):
                callback()


def _wait(ask: Callable[[], tuple[bool, str]], timeout: Duration) -> tuple[bool, str]:
    answer = ask()
    if timeout == NO_WAIT:
        return answer
    clock = Clock()
    start = clock.now()
    while not answer[0] and start <= clock.now() + BIG_JUMP and clock.now() < start + timeout:
        sleep(POLL_SECONDS)
        answer = ask()
    return answer
