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

"""
A node under test in a DDS domain of its own, and which MapAnything tests see.

Without ``--real-model`` that is the fake in ``fake_package``, whatever is installed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, ExitStack
from importlib.metadata import PackageNotFoundError, version
import math
import os
from pathlib import Path
import random
import sys

from domain_coordinator import domain_id
from gpu import Gpu
from helpers import ExactBackend
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from robot import Robot
from tf_tree import TfTree

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config
from mapanything_ros.ros.spinning import spinning

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
HERE = Path(__file__).parent
REAL_ONLY = 'needs the real mapanything: make test-model'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--real-model', action='store_true',
        help='test against the mapanything that is installed, not the fake')


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line('markers', 'model: runs against the fake and the real mapanything')
    config.addinivalue_line('markers', 'real_model: runs against the real mapanything alone')
    if not config.getoption('--real-model'):
        sys.path.insert(0, str(HERE / 'fake_package'))
        # Requirements of the real one; those that are installed come first.
        sys.path.append(str(HERE / 'fake_modules'))


def pytest_report_header(config: pytest.Config) -> str:
    if not config.getoption('--real-model'):
        return 'mapanything: the fake of this repository'
    try:
        found = version('mapanything')
    except PackageNotFoundError:
        raise pytest.UsageError('--real-model, but mapanything is not installed: make model'
                                ) from None
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'
    return (
        f'mapanything: the real one, {found}, with test/data/mapanything_tiny.json and random '
        f'weights; torch {torch.__version__} on {device}')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption('--real-model'):
        for item in items:
            if item.get_closest_marker('real_model'):
                item.add_marker(pytest.mark.skip(reason=REAL_ONLY))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Give a GPU that is not there."""
    return Gpu(monkeypatch)


@pytest.fixture(scope='module')
def start_shared() -> Iterator[Callable[..., Robot]]:
    """Start nodes that live as long as the module."""
    yield from _starter()


@pytest.fixture
def start() -> Iterator[Callable[..., Robot]]:
    """Start nodes that live as long as the test."""
    yield from _starter()


@pytest.fixture
def start_with_tree(
    start: Callable[..., Robot],
) -> Iterator[Callable[..., tuple[Robot, TfTree]]]:
    """Start nodes that know camera and mounting, each with a listener to TF."""
    trees = []

    def make(
        parameters: dict[str, object], backend: ExactBackend | None = None,
    ) -> tuple[Robot, TfTree]:
        if backend is None:
            robot = start(parameters)
        else:
            robot = start(parameters, create=lambda config: backend)
            robot.backend = backend
        trees.append(TfTree(robot))
        if parameters.get('use_sim_time'):
            robot.tick(robot.next_ns)
        if parameters.get('tf.base_frame'):
            robot.mount()
        robot.calibrate()
        return robot, trees[-1]

    yield make
    for tree in trees:
        tree.listener.unregister()


def _starter() -> Iterator[Callable[..., Robot]]:
    """Give each node a DDS domain of its own, and a backend that knows the truth or is created."""
    def make(
        parameters: dict[str, object] | None = None,
        create: Callable[[Config], Backend] | None = None, domain: int | None = None,
        **options: object,
    ) -> Robot:
        backend = ExactBackend()
        patch.setattr(
            'mapanything_ros.ros.node.create_backend', create or (lambda config: backend))
        if domain is None:
            domain = stack.enter_context(domain_id(random_domain))
        contexts = [stack.enter_context(context(domain)) for _ in range(2)]
        robot = Robot(*contexts, backend, parameters or {}, **options)
        stack.callback(robot.close)
        return robot

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr('mapanything_ros.ros.node.DIAGNOSTICS_S', 0.1)
        # A machine that is busy for seconds is no camera that rests.
        patch.setattr('mapanything_ros.ros.node.RECENT_S', math.inf)
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


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    """Give a player's and a listener's node, the listener's spinning, in a domain of their own."""
    with domain_id() as domain, context(domain) as own:
        player = rclpy.create_node('player', context=own)
        listener = rclpy.create_node('listener', context=own)
        executor = SingleThreadedExecutor(context=own)
        executor.add_node(listener)
        with spinning(executor):
            yield player, listener
        executor.shutdown()
        player.destroy_node()
        listener.destroy_node()
