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

"""A thread that spins ends, even where rclpy's own shutdown would leave it asleep."""

from threading import current_thread, Event, main_thread, Timer

from domain_coordinator import domain_id
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.subscription import Subscription
from robot import DEADLINE_S
from std_msgs.msg import Empty

from mapanything_ros.ros.spinning import spinning


class Told(SingleThreadedExecutor):
    """Says when it has been told to end."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.told = Event()

    def create_task(self, *arguments: object) -> object:
        task = super().create_task(*arguments)
        self.told.set()
        return task

    def shutdown(self, *arguments: object) -> bool:
        done = super().shutdown(*arguments)
        self.told.set()
        return done


def test_a_thread_that_is_about_to_wait_when_it_is_told_to_end_does_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    about_to_wait, handle = Event(), Subscription.handle

    def halting(subscription: Subscription) -> object:
        """Give the handle that is to be waited for only when the executor was told to end."""
        if current_thread() is not main_thread():
            about_to_wait.set()
            assert executor.told.wait(DEADLINE_S)
        return handle.fget(subscription)

    own = Context()
    with domain_id() as domain:
        rclpy.init(context=own, domain_id=domain)
        node, executor = Node('node', context=own), Told(context=own)
        executor.add_node(node)
        node.create_subscription(Empty, 'topic', print, 1)
        rescue = Timer(DEADLINE_S, node.create_guard_condition(print).trigger)
        monkeypatch.setattr(Subscription, 'handle', property(halting))
        with spinning(executor):
            assert about_to_wait.wait(DEADLINE_S)
            rescue.start()
        assert rescue.is_alive(), 'the thread slept until something woke it'
        rescue.cancel()
        executor.shutdown()
        node.destroy_node()
        own.try_shutdown()
