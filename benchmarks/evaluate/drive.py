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

"""Drives the real Reconstructor through a world, like a robot that is too slow now and then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from benchmarks.evaluate.tf_record import TfRecord
from benchmarks.evaluate.worlds import World
from mapanything_ros.core.config import Config, KeyframesConfig
from mapanything_ros.core.datatypes import Array, Frame, Keyframe, Submap
from mapanything_ros.core.errors import AlignmentError, ReconstructionError
from mapanything_ros.core.frames.keyframes import Decision, KeyframeSelector
from mapanything_ros.core.reconstructor import Reconstructor, Window

FRAME = 'camera'
DROP_SEED = 3
# Windows are lost in exact shares of so many.
BLOCK = 10


@dataclass
class Outcome:
    """What a drive left behind; ``rejected`` are the sentences of the windows that were lost."""

    reconstructor: Reconstructor
    tf: TfRecord
    submaps: list[Submap] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    taken: int = 0
    dropped: int = 0


def drive(
    world: World, reconstructor: Reconstructor, config: Config, drops_percent: int = 0,
) -> Outcome:
    """
    Show all images of a world to a reconstructor, whose parameters are ``config``.

    While a dropped window is lost the robot is busy, until newer keyframes have made room for
    those: the next window shares none with the last.
    """
    tf = TfRecord(config)
    outcome = Outcome(reconstructor, tf)
    drops = _drops(drops_percent)
    busy = 0
    for index in range(len(world)):
        tf.image(int(world.stamps_ns[index]), FRAME, world.odom_from_camera[index])
        if not reconstructor.add(frame(world, index, config.has_odometry)).accepted:
            continue
        busy = max(0, busy - 1)
        while not busy and (window := reconstructor.take()):
            if next(drops):
                outcome.dropped += 1
                busy = config.window.size
            else:
                _process(outcome, window)
    if not busy and (window := reconstructor.take(partial=True)):
        _process(outcome, window)
    return outcome


class WorldSelector(KeyframeSelector):
    """Chooses by a world's odometry, though the frames that it is shown may have none."""

    def __init__(self, world: World, config: KeyframesConfig) -> None:
        super().__init__(config)
        self._index = {int(stamp_ns): index for index, stamp_ns in enumerate(world.stamps_ns)}
        self._world = world

    def decide(self, frame: Frame) -> Decision:
        """Say whether the frame should become a keyframe."""
        return super().decide(self._with_odometry(frame))

    def accept(self, frame: Frame) -> None:
        """Compare later frames with this one from now on."""
        super().accept(self._with_odometry(frame))

    def _with_odometry(self, frame: Frame) -> Frame:
        odom_from_camera = self._world.odom_from_camera[self._index[frame.stamp_ns]]
        return replace(frame, odom_from_camera=odom_from_camera)


def frame(world: World, index: int, with_odometry: bool = True) -> Frame:
    """Return an image of a world as a frame."""
    rgb, _ = world.render(index)
    stamp_ns = int(world.stamps_ns[index])
    odom_from_camera: Array | None = world.odom_from_camera[index] if with_odometry else None

    def keyframe(number: int) -> Keyframe:
        return Keyframe(
            number, stamp_ns, FRAME, rgb, world.intrinsics, odom_from_camera=odom_from_camera)

    return Frame(stamp_ns, lambda: cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), keyframe,
                 odom_from_camera)


def _process(outcome: Outcome, window: Window) -> None:
    outcome.taken += 1
    try:
        submap = outcome.reconstructor.process(window)
    except (ReconstructionError, AlignmentError) as error:
        outcome.rejected.append(str(error))
        return
    assert submap is not None, 'nobody has reset the map'
    outcome.submaps.append(submap)
    outcome.tf.window(submap, window.keyframes, outcome.reconstructor.map_from_odom())


def _drops(percent: int) -> Iterator[bool]:
    """Say of each window whether it is lost."""
    rng = np.random.default_rng(DROP_SEED)
    while True:
        yield from rng.permutation(BLOCK) < percent * BLOCK // 100
