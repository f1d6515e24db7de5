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

"""What each way of saving time is worth, and that it changes nothing that counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.checks import Report, stopwatch
from benchmarks.gpu.setting import difference, Outputs, Setting
from mapanything_ros.core.backends.mapanything.network import Network
from mapanything_ros.core.device import wait_for
from mapanything_ros.core.errors import first_line

BFLOAT16 = torch.bfloat16
SAME = 1e-5
ATTENTION = ('flash', 'efficient', 'cudnn', 'math')


def run(setting: Setting, report: Report) -> None:
    """
    Time a window of new views with and without each; those that are options come last.

    On a CPU mixed precision is slow, so the times mean nothing there; the differences do.
    """
    given = setting.views_of(setting.window_of(setting.window))
    model = setting.model(BFLOAT16)
    ours = setting.network(model, BFLOAT16, reuse_features=False)
    base_ms, base = _measure(setting, lambda: ours.forward(given))
    exact = setting.forward(setting.model(), given, None)
    cost = difference(base, exact)
    report.add('ours, all new, bf16', base_ms, 'ms')

    def compare(name: str, forward: Callable[[], Outputs], limit: float) -> None:
        ms, found = _measure(setting, forward)
        report.add(f'{name}: time against ours', ms / base_ms)
        report.add(f'{name}: difference', difference(found, base), '', limit)

    def option(name: str, **config: Any) -> None:
        """Compare an option of ours, on weights of its own; one that cannot be had is no fault."""
        network = setting.network(
            setting.model(BFLOAT16), BFLOAT16, reuse_features=False, **config)
        seconds: list[float] = []
        try:
            with stopwatch(seconds):
                network.forward(given)
                wait_for(setting.device)
            compare(name, partial(network.forward, given), 2 * cost)
        except Exception as error:  # of a compiler: anything
            report.add(f'{name}: time against ours', None, note=first_line(error))
            return
        report.add(f'{name}: the first window', seconds[0], 's')

    single = setting.network(setting.model(), BFLOAT16, reuse_features=False)
    compare('weights held in float32', partial(single.forward, given), 0.0)
    del single
    for name, part in (
            ('depth encoded where there is none', '_encode_and_fuse_depths'),
            ('rays encoded for every view', '_encode_and_fuse_ray_dirs')):
        compare(name, partial(_without(ours, part).forward, given), SAME)
    compare('dense head on one view at a time', partial(ours.forward, given, 1), cost)
    for kind in ATTENTION:
        option(f'attention {kind}', attention=kind)
    option('channels_last', channels_last=True)
    option('compile', compile=True)


def _without(network: Network, part: str) -> Any:
    """Return a network like this one, with the package's own way of doing a part."""
    plain = object.__new__(Network)
    vars(plain).update(vars(network))
    plain._parts = {name: value for name, value in network._parts.items() if name != part}
    return plain


def _measure(
    setting: Setting, forward: Callable[[], Outputs],
) -> tuple[float, Outputs]:
    """Return the median milliseconds of a call, after two that are not counted."""
    seconds: list[float] = []
    for _ in range(setting.repeats + 2):
        with stopwatch(seconds):
            found = forward()
            wait_for(setting.device)
    return 1e3 * median(seconds[2:]), found
