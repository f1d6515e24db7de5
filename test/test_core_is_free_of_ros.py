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

import ast
from pathlib import Path
import subprocess
import sys

import pytest

REPOSITORY = Path(__file__).parents[1]
CORE = REPOSITORY / 'mapanything_ros' / 'core'
ROS = {
    'rclpy', 'tf2_ros', 'tf2_py', 'tf2_msgs', 'cv_bridge', 'sensor_msgs_py', 'tf_transformations',
    'std_msgs', 'std_srvs', 'sensor_msgs', 'geometry_msgs', 'nav_msgs', 'diagnostic_msgs',
    'rcl_interfaces', 'lifecycle_msgs', 'ament_index_python', 'launch', 'rosbags'}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ''


@pytest.mark.parametrize('path', sorted(CORE.rglob('*.py')), ids=lambda p: p.stem)
def test_no_module_of_core_imports_ros(path):
    names = set(imported(path))
    assert not {name.split('.')[0] for name in names} & ROS
    assert not {name for name in names if name.startswith('mapanything_ros.')
                and not name.startswith('mapanything_ros.core')}


def test_the_pipeline_loads_where_ros_cannot():
    block = f'import sys; sys.modules.update(dict.fromkeys({sorted(ROS)!r}))\n'
    core = 'mapanything_ros.core'
    code = f'{block}import {core}.reconstructor, {core}.measures.evaluation'
    subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, check=True)
