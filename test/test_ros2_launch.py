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

"""`ros2 launch` as it is typed, with the node that is installed."""

import os
from pathlib import Path
import signal
import subprocess
from threading import Timer

from ament_index_python.packages import get_package_prefix
from domain_coordinator import domain_id
import pytest
from robot import DEADLINE_S

PACKAGE = 'mapanything_ros'
PARAMETERS = """
/**:
  ros__parameters:
    backend: colmap
    device: cpu
"""


def test_it_brings_the_node_up_and_down(tmp_path: Path) -> None:
    pytest.importorskip('ros2launch', reason='ros2 launch comes with a ROS 2 and is not on PyPI')
    if not (Path(get_package_prefix(PACKAGE)) / 'lib' / PACKAGE / 'mapanything_node').exists():
        pytest.skip('the node is not where ros2 looks for it: colcon build, and source its set-up')
    parameters = tmp_path / 'colmap.yaml'
    parameters.write_text(PARAMETERS)
    # What is started in the background ignores Ctrl-C, and its children do.
    command = ['env', '--default-signal=INT', 'ros2', 'launch', PACKAGE,
               'mapanything.launch.py', f'params_file:={parameters}', 'respawn:=false']
    with domain_id() as domain, subprocess.Popen(
        command, env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:
        assert process.stdout is not None
        hanging = Timer(4 * DEADLINE_S, os.killpg, (process.pid, signal.SIGKILL))
        hanging.start()
        said = ''
        for line in process.stdout:
            said += line
            if 'backend: colmap on cpu' in line:
                break
        process.send_signal(signal.SIGINT)
        said += process.communicate()[0]
        hanging.cancel()
    assert process.returncode == 0, said
    assert 'process has finished cleanly' in said, said
