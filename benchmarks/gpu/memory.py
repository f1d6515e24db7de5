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

"""What happens where memory is short, and that it does not go little by little."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
import time

import numpy as np
import torch

from benchmarks import scene
from benchmarks.gpu.checks import Report
from benchmarks.gpu.limits import memory_limit, views_limit
from benchmarks.gpu.setting import PLACES, Setting
from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend
from mapanything_ros.core.datatypes import (
    Frame,
    Keyframe,
    Prediction,
    Scale,
    WindowPrediction,
)
from mapanything_ros.core.device import SideStream
from mapanything_ros.core.errors import WindowTooLargeError
from mapanything_ros.core.frames.patience import FIRST
from mapanything_ros.core.map.packing import pack_points
from mapanything_ros.core.reconstructor import InferredWindow, Reconstructor

GIB = 2 ** 30
LADDER_GIB = (12, 9, 7, 6)
# Views at once, and in a window one by one, in place of those on a CPU.
LADDER_VIEWS = ((2, 3), (1, 3), (1, 2), (0, 0))
GROWTH = 0.05
# Windows before what is reserved is looked at for the first time.
SETTLED = 20


def ladder(setting: Setting, report: Report) -> None:
    """Give less and less memory: an answer or WindowTooLargeError; then all of it again."""
    largest = max(setting.views)
    sizes = sorted({2, setting.window, largest}, reverse=True)
    with setting.backend(setting.window) as backend:
        first = 0
        for step, gib in enumerate(LADDER_GIB):
            answers = []
            with _limit(setting, backend, step):
                for count in sizes:
                    first += count
                    answers.append(_answer(backend, setting.window_of(count, first)))
            at_once, in_ones = LADDER_VIEWS[step]
            name = f'{gib} GiB' if setting.cuda else f'{at_once} views at once, {in_ones} in ones'
            report.add(
                f'{name}: an answer or WindowTooLargeError',
                all(answer != 'error' for answer in answers),
                note=', '.join(f'{n} views: {a}' for n, a in zip(sizes, answers, strict=True)))
        ran_out = backend.statistics()['out_of_memory']
        report.add('how often memory ran out', float(str(ran_out)))
        for window in range(2 * FIRST + 1):
            answer = _answer(backend, setting.window_of(setting.window, 5000 + window))
        report.add('all memory again: a full window', answer == 'answered')
        report.add('all memory again: all views at once', backend._at_once() == 0)


def _limit(
    setting: Setting, backend: MapAnythingBackend, step: int,
) -> AbstractContextManager[None]:
    if setting.cuda:
        return memory_limit(setting.device, LADDER_GIB[step] * GIB)
    return views_limit(backend, *LADDER_VIEWS[step])


def _answer(backend: MapAnythingBackend, window: list[Keyframe]) -> str:
    try:
        views = backend.infer(window).views
    except WindowTooLargeError as error:
        return f'{error.fits} may fit'
    except Exception as error:
        print(f'  {type(error).__name__}: {str(error).splitlines()[:1]}', flush=True)
        return 'error'
    good = all(torch.isfinite(view.depth_m[view.mask]).all() for view in views)
    return 'answered' if good and len(views) == len(window) else 'error'


def many_windows(setting: Setting, report: Report) -> None:
    """Map for a while as the node does, one stage beside the other, and one after the other."""
    with setting.backend(setting.window) as backend:
        seconds = {}
        for name, overlapping in (('one after the other', False), ('overlapping', True)):
            run = _Run(setting, _TrueGeometry(backend))
            start_s = time.perf_counter()
            run.drive(setting.long, overlapping)
            seconds[name] = (time.perf_counter() - start_s) / setting.long
            report.add(f'windows placed, {name}', run.placed == setting.long, note=(
                f'{run.placed} of {setting.long}'))
            if run.reserved:
                report.add(
                    f'growth of memory reserved, windows {SETTLED} to {setting.long}, {name}',
                    run.reserved[-1] / run.reserved[0] - 1, '', GROWTH)
        report.add('a window, inferred and placed', 1e3 * seconds['one after the other'], 'ms')
        report.add(
            'the same where the next is inferred beside, ratio',
            seconds['overlapping'] / seconds['one after the other'])


class _TrueGeometry(Backend):
    """Runs the network for its time and memory, and answers with what is really there."""

    name = 'true geometry'

    def __init__(self, backend: MapAnythingBackend) -> None:
        self._backend = backend

    def prepare(self, keyframe: Keyframe) -> Keyframe:
        return self._backend.prepare(keyframe)

    def infer(self, keyframes: list[Keyframe]) -> WindowPrediction:
        window = self._backend.infer(keyframes)
        first = np.linalg.inv(scene.pose(keyframes[0].id % PLACES))
        views = []
        for view in window.views:
            height, width = view.depth_m.shape
            place = view.keyframe_id % PLACES
            depth_m = torch.from_numpy(scene.depth_at(place, (width, height))).to(
                view.depth_m.device)
            views.append(Prediction(
                view.keyframe_id, view.rgb, depth_m, view.confidence, depth_m > 0,
                scene.intrinsics((width, height)), first @ scene.pose(place)))
        return WindowPrediction(tuple(views), Scale('model'))

    def statistics(self) -> dict[str, object]:
        return self._backend.statistics()


class _Run:
    """A reconstructor that is shown places, and what came of it."""

    def __init__(self, setting: Setting, backend: Backend) -> None:
        config = setting.config(
            setting.window, **{
                'window.overlap': setting.window - 1, 'keyframes.min_translation_m': 0.001,
                'keyframes.min_sharpness': 0.0, 'map.min_views': 1, 'tf.odom_frame': 'odom',
                'pose_source': 'tf', 'map.max_points': 200_000})
        self._setting = setting
        self._reconstructor = Reconstructor(config, backend)
        self._beside = SideStream(setting.device)
        self.placed = 0
        self.reserved: list[int] = []

    def drive(self, windows: int, overlapping: bool) -> None:
        """Show places until so many windows are placed."""
        with ThreadPoolExecutor(1) as finisher:
            last: Future[None] = finisher.submit(lambda: None)
            for number in range(windows + self._setting.window - 1):
                self._reconstructor.add(_frame(number))
                while window := self._reconstructor.take():
                    inferred = self._reconstructor.infer(window)
                    last.result()
                    last = finisher.submit(self._place, inferred)
                    if not overlapping:
                        last.result()
            last.result()

    def _place(self, inferred: InferredWindow) -> None:
        with self._beside():
            submap = self._reconstructor.place(inferred)
            if submap is None:
                return
            for view in submap.views:
                pack_points(view, submap.map_from_camera(view)).cpu()
                torch.where(view.mask, view.depth_m, torch.nan).cpu()
        self.placed += 1
        if self._setting.cuda and self.placed >= SETTLED:
            self.reserved.append(torch.cuda.memory_reserved(self._setting.device))


def _frame(number: int) -> Frame:
    place = number % PLACES
    return Frame(
        number, lambda: scene.photo(place)[::8, ::8, 0],
        lambda known: Keyframe(
            known, number, 'camera', scene.photo(place), scene.intrinsics(scene.PHOTO),
            odom_from_camera=scene.pose(place)),
        scene.pose(place))
