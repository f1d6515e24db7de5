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

"""Where the time of a window goes, stage by stage, and against the package's own ``infer``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
import time
from typing import Any
import warnings

import numpy as np
import torch

from benchmarks.gpu.checks import Report, stopwatch
from benchmarks.gpu.setting import Setting
from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend
from mapanything_ros.core.backends.mapanything.input import in_model_order, ModelInput, to_model
from mapanything_ros.core.datatypes import Keyframe, Prediction
from mapanything_ros.core.device import on_device, wait_for
from mapanything_ros.core.map.packing import pack_points

# Of a window of 8 views on an H100.
FORWARD_MS = 120.0
AFTER = 0.05
ONE_NEW = 0.68
OF_INFER = 0.25
NEW = (1, 3)
# The parts of the network's forward; what is left of it is bookkeeping.
FORWARD = ('encoder', 'geometry', 'sharing', 'heads')
# The package's masks take seconds for many views.
INFER_REPEATS = 2
CAMERAS = {'640x480': (480, 640), '1280x720': (720, 1280), '1920x1080': (1080, 1920)}


class Clock:
    """Times stages by the device's own events, or by the processor's clock where it has none."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == 'cuda'
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self._spans[name].append((start, self._now()))

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is a stage."""
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return call(*arguments, **options)
        return timed

    def collect(self) -> dict[str, float]:
        """Return milliseconds by stage since the last time, and forget them."""
        wait_for(self._device)
        spans, self._spans = self._spans, defaultdict(list)
        return {
            name: sum(self._span_ms(*span) for span in found) for name, found in spans.items()}

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _span_ms(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) if self._cuda else 1e3 * (end - start)


def run(setting: Setting, report: Report) -> None:
    """Time windows of all sizes, all new and sliding; judge the one that has limits."""
    table: dict[str, dict[str, float]] = {}
    with setting.backend(max(setting.views)) as backend:
        clock = Clock(setting.device)
        _watch(backend, clock)
        for count in setting.views:
            for new in (*(n for n in NEW if n < count), count):
                row = _time_window(setting, backend, clock, count, new)
                table[f'{count} views, {new} new'] = row
                _say(f'{count} views, {new} new', row)
        package = setting.model()
        official = {
            count: _time_infer(setting, package, count, 1 if count > 8 else INFER_REPEATS)
            for count in setting.views}
        syncs = _syncs(setting, backend)
    report.keep('milliseconds', table)
    report.keep('official_infer_ms', official)
    count = setting.window
    whole = table[f'{count} views, {count} new']
    one = table[f'{count} views, 1 new']
    report.add(
        f'forward, {count} views all new', whole['forward'], 'ms',
        setting.time_limit(FORWARD_MS))
    report.add(
        f'after forward, of forward, {count} views', whole['after'] / whole['forward'], '',
        setting.limit(AFTER))
    report.add(
        f'1 new of {count} against all new, whole step', one['step'] / whole['step'], '',
        setting.limit(ONE_NEW))
    report.add(
        f'whole step against infer, {count} views all new', whole['step'] / official[count], '',
        setting.limit(OF_INFER))
    report.add(
        f'1 new of {count}, whole step against infer', one['step'] / official[count])
    report.add('host waits for the device in a window', syncs, '', note=(
        '' if setting.cuda else 'a GPU alone tells'))
    for name, ms in _resizing(setting).items():
        report.add(f'resizing a keyframe of {name} when it comes, host', ms, 'ms')


def _watch(backend: MapAnythingBackend, clock: Clock) -> None:
    """Time the stages of a backend."""
    network = backend._network
    model, parts = network._model, network._parts
    parts['_encode_n_views'] = clock.wrapped('encoder', parts['_encode_n_views'])
    parts['_encode_and_fuse_optional_geometric_inputs'] = clock.wrapped(
        'geometry', model._encode_and_fuse_optional_geometric_inputs)
    parts['downstream_head'] = clock.wrapped('heads', model.downstream_head)
    model.info_sharing.forward = clock.wrapped('sharing', model.info_sharing.forward)


def _time_window(
    setting: Setting, backend: MapAnythingBackend, clock: Clock, count: int, new: int,
) -> dict[str, float]:
    """Return medians in milliseconds; ``step`` is by the host's clock, from keyframes to bytes."""
    rows: list[dict[str, float]] = []
    peak = 0.0
    for repeat in range(setting.repeats + 2):
        window = [
            backend.prepare(keyframe)
            for keyframe in setting.window_of(count, 1000 * new + repeat * new)]
        if new == count:
            backend._network.features.clear()
            backend._input._known.clear()
        if setting.cuda:
            torch.cuda.reset_peak_memory_stats(setting.device)
        seconds: list[float] = []
        with stopwatch(seconds), on_device(setting.device):
            _step(setting, backend, clock, window, new)
        row = clock.collect()
        if repeat >= 2:  # the first have nothing to keep, and choose their kernels
            rows.append({**row, 'step': 1e3 * seconds[0]})
        if setting.cuda:
            peak = max(peak, torch.cuda.max_memory_allocated(setting.device) / 2 ** 30)
    return {**{name: median(row[name] for row in rows) for name in rows[0]}, 'peak_gib': peak}


def _step(
    setting: Setting, backend: MapAnythingBackend, clock: Clock, window: Sequence[Keyframe],
    new: int,
) -> None:
    """Do what the node does with a window, up to the bytes of its messages."""
    with clock.stage('input'):
        views = in_model_order(backend._input.prepare(window))
        given = to_model(views)
    with clock.stage('forward'):
        outputs = backend._network.forward(given, backend._at_once())
    with clock.stage('after'):
        prediction = backend._output.window(outputs, views)
        for view in prediction.views[-new:]:
            _bytes(view)
        for view in prediction.views:
            _host(pack_points(view, view.world_from_camera))
    wait_for(setting.device)


def _bytes(view: Prediction) -> None:
    """Copy what the messages of a keyframe hold."""
    depth_m = torch.where(view.mask, view.depth_m, torch.nan)
    for values in (view.rgb, depth_m, view.confidence, pack_points(view)):
        _host(values)


def _host(values: torch.Tensor) -> None:
    values.cpu()


def _time_infer(setting: Setting, model: Any, count: int, repeats: int) -> float:
    """Return milliseconds of the package's infer, by the host's clock, on what it is given."""
    views = setting.views_of(setting.window_of(count))
    seconds: list[float] = []
    for _ in range(repeats + 1):
        with stopwatch(seconds):
            setting.official(model, views)
    return 1e3 * median(seconds[1:])


def _syncs(setting: Setting, backend: MapAnythingBackend) -> int | None:
    """Count how often the host waits for the device while it infers a window."""
    if not setting.cuda:
        return None
    window = setting.window_of(setting.window, 9000)
    backend.infer(window)
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            backend.infer(window)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return sum('synchroniz' in str(warning.message) for warning in caught)


def _resizing(setting: Setting) -> dict[str, float]:
    """Return the milliseconds of a keyframe's arrival, for common cameras."""
    model_input, found = ModelInput(setting.size_px, setting.device), {}
    for name, (height, width) in CAMERAS.items():
        rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        seconds: list[float] = []
        for number in range(6):
            with stopwatch(seconds):
                model_input.prepare_alone(Keyframe(number, number, '', rgb))
        found[name] = 1e3 * median(seconds[1:])
    return found


def _say(name: str, row: dict[str, float]) -> None:
    parts = ', '.join(f'{part} {row.get(part, 0.0):.1f}' for part in ('input', *FORWARD))
    print(
        f'  {name:20} step {row["step"]:8.1f} ms: {parts}; forward {row["forward"]:.1f}, after '
        f'{row["after"]:.1f}; peak {row["peak_gib"]:.1f} GiB', flush=True)
