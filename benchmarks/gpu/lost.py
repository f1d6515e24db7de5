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
A GPU that is lost ends the process with a sentence and a code: ``python -m benchmarks.gpu.lost``.

What the child process does to the GPU is undone when it ends.
"""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

import torch

from benchmarks.gpu.checks import Report
from benchmarks.gpu.setting import Setting
from mapanything_ros.core.device import give_back, require_gpu
from mapanything_ros.core.errors import GpuLostError

TIMEOUT_S = 120.0


def run(setting: Setting, report: Report) -> None:
    """Lose the GPU in a child process, and use it here after that."""
    ended = subprocess.run(
        [sys.executable, '-m', 'benchmarks.gpu.lost', str(setting.device)], capture_output=True,
        text=True, timeout=TIMEOUT_S, cwd=Path(__file__).parents[2])
    said = ended.stderr.strip().splitlines()
    print('  ' + '\n  '.join(said[-3:]), flush=True)
    report.add(
        'a lost GPU: the process ends by itself', ended.returncode == os.EX_TEMPFAIL,
        note=f'exit code {ended.returncode}')
    report.add('a lost GPU: one sentence', sum('the GPU is lost' in line for line in said) == 1)
    require_gpu(setting.device)
    alive = float(torch.ones(3, device=setting.device).sum()) == 3.0
    report.add('a lost GPU: other processes go on', alive)


def lose(device: torch.device) -> None:
    """Break the GPU's context for this process; without a GPU, do as if."""
    if device.type == 'cuda':
        there, nowhere = torch.ones(4, device=device), torch.tensor([1 << 20], device=device)
        try:
            there[nowhere].cpu()
        except RuntimeError as error:
            print(f'first: {str(error).splitlines()[0]}', file=sys.stderr)
        require_gpu(device)
        return

    def broken(*given: object) -> None:
        raise RuntimeError('CUDA error: device-side assert triggered\nCUDA kernel errors might')

    torch.cuda.synchronize = broken
    require_gpu(torch.device('cuda'))


if __name__ == '__main__':
    try:
        lose(torch.device(sys.argv[1]))
    except GpuLostError as lost:
        print(lost, file=sys.stderr, flush=True)
        give_back()
        # As the node does: what is left holds memory that cannot be given back.
        os._exit(os.EX_TEMPFAIL)
