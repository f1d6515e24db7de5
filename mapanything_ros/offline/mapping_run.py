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

"""One run of the node over a bag: start it, play, wait for the last window, save, collect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from mapanything_ros.core.config import WindowConfig
from mapanything_ros.core.measures.evaluation import Trajectory
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.node_process import (
    DemoError,
    NodeProcess,
    private_domain,
    ros_arguments,
    use_large_shared_memory,
)
from mapanything_ros.offline.player import Player
from mapanything_ros.offline.recorder import PublishedKeyframe, Recorder
from mapanything_ros.offline.truth import Topics
from mapanything_ros.offline.tum import read_tum
from mapanything_ros.ros.spinning import spinning

NODE_MODULE = 'mapanything_ros.ros.node'
START_TIMEOUT_S = 90.0
WINDOW_TIMEOUT_S = 600.0
ANSWER_TIMEOUT_S = 60.0
SAY_PERIOD_S = 5.0
HOLD_S = 0.05


@dataclass(frozen=True)
class Recorded:
    """What the node made of a bag; ``trajectory`` and the map are also files in the output."""

    keyframes: list[PublishedKeyframe]
    trajectory: Trajectory
    diagnostics: dict[str, str]
    seconds: float
    waited_s: float
    images_played: int


def map_bag(
    bag: Bag, topics: Topics, parameters: Mapping[str, object], *, output: Path, rate: float,
    with_tf: bool, window: WindowConfig, say: Callable[[str], None],
) -> Recorded:
    """
    Play an open bag through a fresh node; it saves to ``output``, its log goes there too.

    The bag stands still while the node has keyframes enough for its next window, so that a slow
    machine loses none. ``say`` is given a line of progress every few seconds. DemoError says
    why there is no map.
    """
    remappings = remappings_of(topics, bool(parameters['use_depth']))
    inputs = list(dict.fromkeys(remappings.values()))
    transforms = [t for t in ('/tf_static', '/tf') if t in bag.topics and (with_tf or t != '/tf')]
    log = output / 'node.log'
    use_large_shared_memory(output / 'fastdds.xml')
    process = NodeProcess(NODE_MODULE, ros_arguments(parameters, remappings), log)
    with private_domain(), _spinning_node() as node, process:
        recorder = Recorder(node, process.check)
        recorder.wait_until_active(START_TIMEOUT_S)
        recorder.wait_for_diagnostics(START_TIMEOUT_S)
        player = Player(node, bag, [*inputs, *transforms])
        player.wait_for_subscribers(inputs, START_TIMEOUT_S)
        start_s = time.monotonic()
        pace = Pace(recorder, process.check, say, window)
        counts = player.play(rate, pace)
        say('played; finishing the last window')
        recorder.trigger('reconstruct', WINDOW_TIMEOUT_S)
        seconds = time.monotonic() - start_s
        diagnostics = recorder.wait_for_diagnostics(ANSWER_TIMEOUT_S)
        if diagnostics['windows'] == '0':
            raise DemoError(
                f'no map came out: {diagnostics["last_problem"] or diagnostics["message"]}; '
                f'see {log}')
        saved, problem = recorder.trigger('save', ANSWER_TIMEOUT_S)
        if not saved:
            raise DemoError(f'the node could not save the map: {problem}')
        trajectory = read_tum(output / 'trajectory.tum')
        recorder.wait_for_keyframes(set(trajectory.stamps_ns.tolist()), ANSWER_TIMEOUT_S)
        return Recorded(
            recorder.keyframes(), trajectory, diagnostics, seconds, pace.waited_s,
            counts[topics.image])


def remappings_of(topics: Topics, use_depth: bool) -> dict[str, str]:
    """Return the topics of a bag by the names that the node has for them."""
    remappings = {
        'image/compressed' if topics.compressed else 'image': topics.image,
        'camera_info': topics.camera_info}
    if use_depth and topics.depth:
        remappings['depth/compressedDepth' if topics.depth_compressed else 'depth'] = topics.depth
        if topics.depth_camera_info:
            remappings['depth/camera_info'] = topics.depth_camera_info
    return remappings


@contextmanager
def _spinning_node() -> Iterator[Node]:
    # Ctrl-C and SIGTERM are for main: the node is to be stopped in order first.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('mapanything_demo')
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    try:
        with spinning(executor):
            yield node
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


class Pace:
    """
    Says how far the bag is, and holds it while the node has its hands full.

    One window may be in flight; as soon as the keyframes of the next one have gathered, more
    would push them out. The bag goes on when another window is done.
    """

    def __init__(
        self, recorder: Recorder, check: Callable[[], None], say: Callable[[str], None],
        window: WindowConfig,
    ) -> None:
        self._recorder = recorder
        self._check = check
        self._say = say
        self._step = window.size - window.overlap
        self._taken = window.size
        self._windows = 0
        self._said_s = float('-inf')
        self.waited_s = 0.0

    def __call__(self, at_s: float, all_s: float) -> None:
        """Return when the next message may be played."""
        start_s = time.monotonic()
        while True:
            self._check()
            if time.monotonic() - self._said_s > SAY_PERIOD_S:
                self._said_s = time.monotonic()
                self._say(
                    f'{at_s:5.1f} of {all_s:.1f} s played, {len(self._recorder.stamps())} '
                    f'keyframes mapped, {self._recorder.map_points} points')
            if not self._full():
                break
            if time.monotonic() - start_s > WINDOW_TIMEOUT_S:
                raise DemoError(f'no window was done within {WINDOW_TIMEOUT_S:.0f} s')
            time.sleep(HOLD_S)
            self.waited_s += HOLD_S

    def _full(self) -> bool:
        keyframes, windows = self._recorder.counts()
        if windows != self._windows:
            self._windows, self._taken = windows, max(keyframes, self._taken)
        return keyframes >= self._taken + self._step
