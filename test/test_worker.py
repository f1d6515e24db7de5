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

"""Windows that overlap in time make the same map as one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import threading
import time

import numpy as np
import pytest

from benchmarks.evaluate.drive import frame
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from benchmarks.evaluate.worlds import World, world
from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.errors import AlignmentError, ReconstructionError
from mapanything_ros.core.reconstructor import InferredWindow, Reconstructor
from mapanything_ros.ros.ticker import Ticker
from mapanything_ros.ros.worker import Worker

DEADLINE_S = 60.0
CONFIG = from_values(Config, {
    'tf.odom_frame': 'odom', 'window.size': 4, 'window.overlap': 2, 'map.voxel_m': 0.05,
    'keyframes.min_translation_m': 0.15, 'keyframes.min_sharpness': 0.0, 'map.min_views': 1})
FAULTS = Faults(
    scale=0.1, rotation_deg=0.1, translation=0.01, depth_noise=0.01, depth_bias=0.01,
    outlier_windows=0.1, garbage_views=0.02)
SEEDS = (1, 2, 3)


@pytest.fixture(scope='module')
def place() -> World:
    return world('corridor', images=60)


@pytest.fixture
def work() -> Iterator[Callable[..., Worker]]:
    """Start workers that do not outlive the test."""
    workers: list[Worker] = []

    def start(begin: Callable, idle: Callable) -> Worker:
        workers.append(Worker(begin, idle))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def stages() -> Iterator[Stages]:
    made = Stages()
    yield made
    made.gate.set()


class Mapping:
    """
    A reconstructor under a worker; an image comes when the window before it has been begun.

    It has been inferred no more than that: its placement runs beside what follows.
    """

    def __init__(
        self, work: Callable[..., Worker], backend: SimulatedBackend, place_s: Sequence[float],
    ) -> None:
        self.reconstructor = Reconstructor(CONFIG, backend)
        self.placed: list[list[int]] = []
        self.refused: list[str] = []
        self.most_at_once = 0
        self._place_s = place_s
        self._active = 0
        self._lock = threading.Lock()
        self._begun = threading.Condition()
        self._windows = 0
        self.worker = work(self._begin, lambda: None)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        with self._lock:
            self._active += 1
            self.most_at_once = max(self.most_at_once, self._active)
        yield
        with self._lock:
            self._active -= 1

    def _begin(self, partial: bool):
        window = self.reconstructor.take(partial)
        if window is None:
            return None
        with self._begun:
            self._windows += 1
            self._begun.notify()
        with self._busy():
            try:
                inferred = self.reconstructor.infer(window)
            except ReconstructionError as error:
                self.refused.append(str(error))
                return lambda: ''
        return lambda: self._place(inferred)

    def _place(self, inferred: InferredWindow) -> str:
        with self._busy():
            time.sleep(self._place_s[len(self.placed) % len(self._place_s)])
            try:
                submap = self.reconstructor.place(inferred)
            except AlignmentError as error:
                self.refused.append(str(error))
                return 'rejected'
            if submap is not None:
                self.placed.append([k.id for k in inferred.window.keyframes])
            return 'placed'

    def show(self, place: World, index: int, windows: int) -> None:
        """Show an image, and wait until so many windows have been begun."""
        self.reconstructor.add(frame(place, index))
        self.worker.wake()
        with self._begun:
            assert self._begun.wait_for(lambda: self._windows >= windows, DEADLINE_S)

    def finish(self) -> None:
        answered = threading.Event()

        class Answer:

            def set_result(self, result: str) -> None:
                answered.set()

        self.worker.request(Answer())
        assert answered.wait(DEADLINE_S)
        self.worker.stop()


def sequentially(
    place: World, seed: int, resets: Sequence[int],
) -> tuple[Reconstructor, list[list[int]], list[str], list[int]]:
    """Return the outcome of one window after the other, and how many were there by each image."""
    reconstructor = Reconstructor(CONFIG, SimulatedBackend(place, FAULTS, seed))
    placed, refused, begun, windows = [], [], [], 0
    for index in range(len(place) + 1):
        if index < len(place):
            if index in resets:
                reconstructor.reset()
                placed.clear()
            reconstructor.add(frame(place, index))
        while window := reconstructor.take(partial=index == len(place)):
            windows += 1
            try:
                reconstructor.process(window)
                placed.append([k.id for k in window.keyframes])
            except (ReconstructionError, AlignmentError) as error:
                refused.append(str(error))
        begun.append(windows)
    return reconstructor, placed, refused, begun


@pytest.mark.parametrize('seed,place_s', [
    *((seed, (0.0, 0.05, 0.01)) for seed in SEEDS), (SEEDS[-1], (0.1,))])
def test_the_map_is_the_same_as_one_window_after_the_other(place, work, seed, place_s):
    expected, placed, refused, begun = sequentially(place, seed, ())
    mapping = Mapping(work, SimulatedBackend(place, FAULTS, seed), place_s)
    for index in range(len(place)):
        mapping.show(place, index, begun[index])
    mapping.finish()
    assert mapping.placed == placed and len(placed) > 10, 'in order'
    assert mapping.refused == refused
    assert mapping.most_at_once == 2, 'or nothing overlapped'
    assert_same(mapping.reconstructor, expected)


@pytest.mark.parametrize('resets', [(20,), (15, 21, 40), (59,)])
def test_nothing_from_before_a_reset_comes_after_it(place, work, resets):
    """Whatever was in flight then, in one stage or the other."""
    expected, placed, _, begun = sequentially(place, 1, resets)
    mapping = Mapping(work, SimulatedBackend(place, FAULTS, 1), (0.05,))
    seen = []
    for index in range(len(place)):
        if index in resets:
            mapping.reconstructor.reset()
            seen.append(len(mapping.placed))
            assert not mapping.reconstructor.trajectory()
        mapping.show(place, index, begun[index])
    mapping.finish()
    assert mapping.placed[seen[-1]:] == placed
    assert_same(mapping.reconstructor, expected)


def assert_same(one: Reconstructor, other: Reconstructor) -> None:
    paths = one.trajectory(), other.trajectory()
    assert [stamp_ns for stamp_ns, _ in paths[0]] == [stamp_ns for stamp_ns, _ in paths[1]]
    for (_, mine), (_, theirs) in zip(*paths, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    clouds = one.map_points(), other.map_points()
    np.testing.assert_array_equal(clouds[0].xyz, clouds[1].xyz)
    np.testing.assert_array_equal(clouds[0].rgb, clouds[1].rgb)


# The worker alone


class Stages:
    """Counts what is begun and finished; stages wait for their gates."""

    def __init__(self) -> None:
        self.begun, self.finished = [], []
        self.left = 0
        self.gate = threading.Event()
        self.gate.set()
        self.idle = 0

    def begin(self, partial: bool):
        if not self.left:
            return None
        self.left -= 1
        number = len(self.begun)
        self.begun.append(partial)

        def finish() -> str:
            assert self.gate.wait(DEADLINE_S)
            self.finished.append(number)
            return f'window {number}'
        return finish

    def rest(self) -> None:
        self.idle += 1


class Answer:

    def __init__(self) -> None:
        self.text, self.given = '', threading.Event()

    def set_result(self, result: str) -> None:
        self.text = result
        self.given.set()


def wait_until(condition) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_at_most_one_window_waits_for_the_one_that_is_finished(work, stages):
    worker = work(stages.begin, stages.rest)
    stages.gate.clear()
    stages.left = 5
    worker.wake()
    wait_until(lambda: len(stages.begun) == 2)
    time.sleep(0.05)
    assert (len(stages.begun), stages.finished) == (2, [])
    stages.gate.set()
    wait_until(lambda: stages.finished == list(range(5)))
    wait_until(lambda: stages.idle)


def test_a_request_is_answered_when_all_before_it_is_finished(work, stages):
    worker = work(stages.begin, stages.rest)
    stages.gate.clear()
    stages.left = 2
    answer, other = Answer(), Answer()
    worker.request(answer)
    wait_until(lambda: len(stages.begun) == 2)
    stages.left = 1
    assert not answer.given.wait(0.05)
    stages.gate.set()
    assert answer.given.wait(DEADLINE_S)
    assert answer.text in ('window 2', 'nothing new to reconstruct')
    assert stages.finished == [0, 1, 2]
    worker.request(other)
    assert other.given.wait(DEADLINE_S)
    assert other.text == 'nothing new to reconstruct'
    assert stages.begun[0] is False


def test_work_that_a_second_stage_makes_is_begun_without_being_woken(work, stages):
    """Like the judge that follows a window which was refused, whether an image comes or not."""
    def begin(partial: bool):
        finish = stages.begin(partial)

        def finish_and_make_work() -> str:
            outcome = finish()
            stages.left = int(len(stages.finished) < 3)
            return outcome
        return finish and finish_and_make_work

    worker = work(begin, stages.rest)
    stages.gate.clear()
    stages.left = 1
    worker.wake()
    wait_until(lambda: len(stages.begun) == 1)
    time.sleep(0.05)
    stages.gate.set()
    wait_until(lambda: stages.finished == [0, 1, 2])


def test_a_request_takes_work_that_is_made_before_it_and_then_what_is_incomplete(work, stages):
    worker = work(stages.begin, stages.rest)
    stages.gate.clear()
    stages.left = 1
    worker.wake()
    wait_until(lambda: len(stages.begun) == 1)
    answer = Answer()
    worker.request(answer)
    time.sleep(0.05)
    stages.left = 2
    stages.gate.set()
    assert answer.given.wait(DEADLINE_S)
    assert stages.finished == [0, 1, 2]


@pytest.mark.parametrize('make', [
    lambda: Worker(lambda partial: None, lambda: None), lambda: Ticker(0.001, lambda: None)],
    ids=['worker', 'ticker'])
def test_a_thread_whose_start_ctrl_c_interrupts_can_be_stopped(make, monkeypatch):
    """Otherwise a node that is told to end while it starts never does."""
    begun = []

    def interrupted(thread):
        begun.append(thread)
        start(thread)
        raise KeyboardInterrupt

    start, made = threading.Thread.start, make()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, 'start', interrupted)
        made.start()
    made.stop()
    wait_until(lambda: not begun[0].is_alive())


def test_stop_finishes_what_was_begun_and_answers_who_waits(work, stages):
    worker = work(stages.begin, stages.rest)
    stages.gate.clear()
    stages.left = 9
    worker.wake()
    wait_until(lambda: len(stages.begun) == 2)
    answer = Answer()
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    worker.request(answer)
    stages.gate.set()
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
    assert stages.finished == list(range(len(stages.begun))) and len(stages.begun) < 9
    assert answer.text == 'the node was cleaned up'
