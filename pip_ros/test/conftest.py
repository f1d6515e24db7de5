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

from collections.abc import Iterator
from importlib.metadata import distributions
import os
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the packages of a real ROS 2 alone; what sets up `.venv` is tested everywhere."""
    if any(found.name == 'mapanything-pip-ros' for found in distributions()):
        return
    skip = pytest.mark.skip(reason='this machine has a ROS 2 of its own and pip_ros is not used')
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != 'test_bootstrap.py':
            item.add_marker(skip)


@pytest.fixture
def context() -> Iterator[Context]:
    """Give each test a ROS context in a domain that nobody else on this machine uses."""
    from domain_coordinator import domain_id

    with domain_id() as domain:
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        yield context
        rclpy.try_shutdown(context=context)
