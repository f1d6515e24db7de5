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

"""A node under test in a DDS domain of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, ExitStack
import os
import random

from domain_coordinator import domain_id
from helpers import ExactBackend
import pytest
import rclpy
from rclpy.context import Context
from robot import Robot

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


@pytest.fixture(scope='module')
def start_shared() -> Iterator[Callable[..., Robot]]:
    """Start nodes that live as long as the module."""
    yield from _starter()


@pytest.fixture
def start() -> Iterator[Callable[..., Robot]]:
    """Start nodes that live as long as the test."""
    yield from _starter()


def _starter() -> Iterator[Callable[..., Robot]]:
    """Give each node a DDS domain of its own, and a backend that knows the truth."""
    def make(parameters: dict[str, object] | None = None, **options: object) -> Robot:
        backend = ExactBackend()
        patch.setattr('mapanything_ros.ros.node.create_backend', lambda config: backend)
        domain = stack.enter_context(domain_id(random_domain))
        contexts = [stack.enter_context(context(domain)) for _ in range(2)]
        robot = Robot(*contexts, backend, parameters or {}, **options)
        stack.callback(robot.close)
        return robot

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr('mapanything_ros.ros.node.DIAGNOSTICS_S', 0.1)
        yield make


@contextmanager
def context(domain: int) -> Iterator[Context]:
    """Give a context, which is a DDS participant."""
    made = Context()
    rclpy.init(context=made, domain_id=domain)
    yield made
    made.try_shutdown()
    # Shutting down alone would leave the participant, and what others know of it.
    made.destroy()


def random_domain() -> int:
    """Return a domain that is hardly one where a process was killed a moment ago."""
    return random.randrange(1, 101)
