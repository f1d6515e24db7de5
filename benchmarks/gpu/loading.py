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

"""From the disk to the device, and what a construction that fails leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
import tempfile

import torch

from benchmarks.gpu.checks import Report, stopwatch
from benchmarks.gpu.limits import memory_limit
from benchmarks.gpu.setting import Setting
from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.backends.mapanything.checkpoint import CONFIG, WEIGHTS
from mapanything_ros.core.config import Config
from mapanything_ros.core.device import give_back, wait_for
from mapanything_ros.core.errors import BackendUnavailableError

LOAD_S = 15.0
LEFT_MIB = 64.0
GIB = 2 ** 30

# What is done, and what does it and says whether it was refused as it should.
Failures = Iterator[tuple[str, Callable[[], bool]]]


def run(setting: Setting, report: Report) -> None:
    """Time loading, in float32 and as it is held; then the whole backend."""
    size_gb = setting.checkpoint.size_bytes / 1e9
    for name, amp in (('held in bf16', torch.bfloat16), ('in float32', None)):
        seconds: list[float] = []
        with stopwatch(seconds):
            model = setting.model(amp)
            wait_for(setting.device)
        held = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9
        report.add(
            f'load {size_gb:.1f} GB, {name}', seconds[0], 's', setting.time_limit(LOAD_S),
            note=f'{held:.2f} GB held; the file was written a moment ago')
        del model
        give_back()
    seconds = []
    with stopwatch(seconds), setting.backend(setting.window):
        pass
    report.add(f'configure: load and rehearse {setting.window} views', seconds[0], 's')


def failures(setting: Setting, report: Report) -> None:
    """Fail to construct the backend where memory or a file is short; construct it after that."""
    before = _allocated(setting)
    for name, refuse in (_on_gpu if setting.cuda else _on_cpu)(setting):
        report.add(f'{name}: a sentence', refuse())
        report.add(
            f'{name}: left behind', (_allocated(setting) - before) / 2 ** 20, 'MiB', LEFT_MIB)
    with setting.backend(setting.window) as backend:
        views = backend.infer(setting.window_of(setting.window)).views
        report.add('a good construction after that', len(views) == setting.window)


def _on_gpu(setting: Setting) -> Failures:
    """Give less memory than the weights take, and than the rehearsal takes."""
    def refuse(size_gib: float, words: str) -> bool:
        with memory_limit(setting.device, size_gib * GIB):
            return _refused(setting.config(max(setting.views)), words)

    yield 'no memory for the weights', lambda: refuse(1.0, 'too small for the weights')
    yield 'no memory for a window', lambda: refuse(4.0, 'too small for')


def _on_cpu(setting: Setting) -> Failures:
    """Give weights that are cut off, since memory does not run out here."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes((setting.checkpoint.folder / CONFIG).read_bytes())
        whole = (setting.checkpoint.folder / WEIGHTS).read_bytes()
        (Path(folder) / WEIGHTS).write_bytes(whole[:-100])
        config = setting.config(setting.window, **{'mapanything.weights': folder})
        yield 'weights that are cut off', lambda: _refused(config, 'is damaged')


def _refused(config: Config, words: str) -> bool:
    """Say whether the backend is refused in one sentence with such words."""
    try:
        create_backend(config)
    except BackendUnavailableError as error:
        print(f'  {error}', flush=True)
        return words in str(error) and '\n' not in str(error)
    return False


def _allocated(setting: Setting) -> float:
    return float(torch.cuda.memory_allocated(setting.device)) if setting.cuda else 0.0
