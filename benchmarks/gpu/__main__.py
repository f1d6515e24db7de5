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
What a GPU shows in one call: ``python -m benchmarks.gpu``.

Needs torch, GTSAM and what MapAnything imports, which `make gpu-kit` puts into .gpu_kit for
machines that have no network (PYTHONPATH=.gpu_kit); neither ROS nor Open3D nor weights. The
architecture is whole, its weights are random. Exit status 0: every limit holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
import platform
import sys
import tempfile
from typing import Any

import torch

from benchmarks.gpu import loading, lost, memory, parity, timing, variants
from benchmarks.gpu.checks import Report, stopwatch
from benchmarks.gpu.setting import make_setting, NETWORKS, Setting
from benchmarks.random_checkpoint import write
from mapanything_ros.core.backends.mapanything.requirements import require_model_stack
from mapanything_ros.core.device import give_back, torch_device
from mapanything_ros.core.errors import BackendUnavailableError

MINUTES = 8.0
# By what is worth most to know, and about how long each takes on an H100.
GROUPS = (
    ('Loading', loading.run, 40), ('Parity', parity.run, 40), ('Time', timing.run, 120),
    ('Variants', variants.run, 100), ('Many windows', memory.many_windows, 60),
    ('Little memory', memory.ladder, 60), ('Failed construction', loading.failures, 40),
    ('A lost GPU', lost.run, 30))


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.gpu', description=__doc__)
    parser.add_argument('--output', type=Path, default=Path('out/gpu'), help='folder of gpu.json')
    parser.add_argument('--device', default='cuda', help='cpu, cuda or cuda:1')
    parser.add_argument(
        '--network', choices=sorted(NETWORKS), default='v1.1',
        help='the architecture; tiny is for the CPU')
    parser.add_argument(
        '--minutes', type=float, default=MINUTES, help='what does not fit into that is left out')
    parser.add_argument(
        '--only', default='', help='run the groups whose names begin with this')
    options = parser.parse_args()
    try:
        device = torch_device(options.device)
        require_model_stack()
    except BackendUnavailableError as error:
        print(f'benchmarks.gpu: {error}', file=sys.stderr)
        return 2
    report = Report(options.output / 'gpu.json', _about(device, options.network), options.minutes)
    with tempfile.TemporaryDirectory() as folder:
        seconds: list[float] = []
        with stopwatch(seconds):
            write(folder, NETWORKS[options.network])
        print(f'random weights made in {seconds[0]:.0f} s', flush=True)
        setting = make_setting(device, options.network, Path(folder))
        for name, run, needs_s in GROUPS:
            if name.lower().startswith(options.only.lower()):
                report.group(
                    name, partial(_cleanly, run, setting, report), needs_s if setting.cuda else 1)
    return report.conclude()


def _cleanly(run: Callable[[Setting, Report], None], setting: Setting, report: Report) -> None:
    try:
        run(setting, report)
    finally:
        give_back()


def _about(device: torch.device, network: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        'device': platform.processor() or platform.machine(), 'network': network,
        'torch': torch.__version__, 'python': platform.python_version()}
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        about |= {
            'device': properties.name, 'memory_gib': properties.total_memory / 2 ** 30,
            'capability': f'{properties.major}.{properties.minor}', 'cuda': torch.version.cuda,
            'cudnn': torch.backends.cudnn.version()}
    for name, value in about.items():
        print(f'{name}: {value}', flush=True)
    return about


if __name__ == '__main__':
    sys.exit(main())
