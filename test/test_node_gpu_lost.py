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

"""A GPU that is lost is said once, and ends the process; of anything else the node stays alive."""

from __future__ import annotations

from contextlib import contextmanager
import os
from pathlib import Path
import subprocess
import sys

from gpu import Gpu
import pytest
from robot import ODOMETRY, Robot
import torch

from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.offline.node_process import private_domain
from mapanything_ros.ros.node import GPU_LOST

ILLEGAL = 'CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA'
SENTENCE = 'the GPU is lost to this process (CUDA error: an illegal memory access was encountered)'
# The node as it is, but for what a GPU would do.
MAIN = f"""
import sys, threading
import torch
from mapanything_ros.core import device
from mapanything_ros.ros import node

class Backend:
    name = 'broken'

def lose(*arguments):
    raise RuntimeError({ILLEGAL!r})

torch.cuda.synchronize = lose
torch.cuda.empty_cache = lose

def create(config):
    if sys.argv[1] == 'configure':
        device.require_gpu(torch.device('cuda'))
    return Backend()

def activate(self, state, do=node.MapAnythingNode.on_activate):
    def fail():
        self._mapper._device = torch.device('cuda')
        self._mapper._failed(None, RuntimeError({ILLEGAL!r}))
    threading.Timer(0.2, fail).start()
    return do(self, state)

node.create_backend = create
node.MapAnythingNode.on_activate = activate
sys.exit(node.main(['mapanything_node', '--ros-args', '-p', 'device:=cpu']))
"""


class Nothing:
    """Stands for a stream of a GPU that is not there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def __call__(self):
        yield


@pytest.fixture
def robot(start, gpu: Gpu, monkeypatch) -> Robot:
    monkeypatch.setattr('mapanything_ros.ros.mapper.SideStream', Nothing)
    robot = start({**ODOMETRY, 'device': 'cuda'})
    robot.mount()
    robot.calibrate()
    robot.explore(2)
    return robot


def test_a_gpu_that_is_lost_is_said_once_and_nothing_more_is_tried(robot, gpu, capfd):
    gpu.lost = robot.backend.failure = RuntimeError(ILLEGAL)
    windows = len(robot.backend.windows)
    robot.see()
    robot.wait_for(lambda: robot.node.gpu_lost, 'the loss')
    assert robot.node.gpu_lost.startswith(SENTENCE)
    for _ in range(3):
        robot.see()
    assert robot.node._mapper.infer(True) is None
    assert len(robot.backend.windows) == windows + 1
    log = capfd.readouterr().err
    assert log.count(SENTENCE) == 1 and '[FATAL]' in log and 'Traceback' not in log
    assert robot.warnings('window_error') == 0


def test_a_gpu_that_is_lost_while_a_window_is_placed_is_the_same(robot, gpu, monkeypatch, capfd):
    def fail(inferred):
        gpu.lost = RuntimeError(ILLEGAL)
        raise gpu.lost

    monkeypatch.setattr(robot.node._reconstructor, 'place', fail)
    robot.see()
    robot.wait_for(lambda: robot.node.gpu_lost, 'the loss')
    assert capfd.readouterr().err.count(SENTENCE) == 1


@pytest.mark.parametrize('failure', [
    RuntimeError('CUDA error: unknown error'), ReconstructionError('nothing to see')])
def test_a_gpu_that_still_answers_is_not_given_up(robot, failure):
    robot.backend.failure = failure
    robot.see()
    robot.wait_for(lambda: int(robot.status().get('windows_failed', 0)) == 1)
    robot.backend.failure = None
    robot.explore(1)
    assert not robot.node.gpu_lost


@pytest.mark.parametrize('when', ['configure', 'run'])
def test_the_process_ends_with_a_code_that_says_start_me_again(when):
    assert GPU_LOST == os.EX_TEMPFAIL == 75, 'docs/backends.md and the launch file say so, too'
    with private_domain():
        ended = subprocess.run(
            [sys.executable, '-c', MAIN, when], capture_output=True, text=True, timeout=60,
            cwd=Path(__file__).parents[1])
    assert ended.returncode == GPU_LOST, ended.stderr
    assert ended.stderr.count(SENTENCE) == 1, ended.stderr
    assert 'this process ends' in ended.stderr and 'Traceback' not in ended.stderr
