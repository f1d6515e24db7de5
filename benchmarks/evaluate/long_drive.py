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
What a drive of 10 km costs the estimator: ``python -m benchmarks.evaluate.long_drive``.

Laps of 500 m with a keyframe every half metre, typical faults, odometry that drifts, depth images
of 108 pixels and a map of next to nothing, so that time and memory are those of the estimator.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path
import time

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.evaluate.drive import frame
from benchmarks.evaluate.odometry import Drift, drifted
from benchmarks.evaluate.runs import TYPICAL
from benchmarks.evaluate.simulated_backend import SimulatedBackend, STRIDE
from benchmarks.evaluate.walks import OPTICAL
from benchmarks.evaluate.worlds import PERIOD_NS, START_NS, World
from benchmarks.map import resident_mib
from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.datatypes import Array, Keyframe, Prediction
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.measures.evaluation import anchor, Trajectory, trajectory_error
from mapanything_ros.core.places.loop_edge import LoopEdge
from mapanything_ros.core.reconstructor import Reconstructor
from mapanything_ros.sample.room import RenderedView

STEP_M = 0.5
LAP_M = 500.0
HEIGHT_M = 1.5
# Of the predictions; three views that windows share are enough to compare their scales.
SIZE = (12, 9)
# A car with a gyroscope.
DRIFT = Drift(yaw_bias_deg_per_m=0.01, yaw_walk_deg_per_root_m=0.1)
LOOP_EVERY = 5
LOOP_SIGMA_M, LOOP_SIGMA_RAD, LOOP_SIGMA_SCALE = 0.05, float(np.radians(0.5)), 0.01
FIRST_MARK = 1000
# Windows before a mark whose times are averaged.
TIMED = 100


@dataclass(frozen=True)
class Mark:
    """
    What the drive costs at a keyframe: the mean and longest of 100 windows, and memory.

    Seconds are the processor's: other programs do not count.
    """

    keyframe: int
    seconds_a_window: float
    longest_s: float
    resident_mib: float
    position_m: float


class GivenLoops:
    """Stands for LoopClosure: each fifth keyframe knows where it saw the one a lap before."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = np.random.default_rng(seed)
        self._lap = round(LAP_M / STEP_M)
        # The keyframe of each place, and the place of each image.
        self._keyframes: dict[int, int] = {}
        self._index = {int(stamp_ns): index for index, stamp_ns in enumerate(world.stamps_ns)}
        self._given = 0

    def add(
        self, keyframe: Keyframe, view: Prediction, map_from_camera: Array, segment: int,
    ) -> list[LoopEdge]:
        """Return the loops of a new keyframe."""
        index = self._index[keyframe.stamp_ns]
        self._keyframes[index] = keyframe.id
        older = self._keyframes.get(index - self._lap)
        if older is None or index % LOOP_EVERY:
            return []
        self._given += 1
        true = self._world.world_from_camera
        noise = np.eye(4)
        noise[:3, :3] = Rotation.from_rotvec(
            LOOP_SIGMA_RAD * self._rng.standard_normal(3)).as_matrix()
        noise[:3, 3] = LOOP_SIGMA_M * self._rng.standard_normal(3)
        motion = np.linalg.inv(true[index - self._lap]) @ true[index] @ noise
        scale = float(np.exp(LOOP_SIGMA_SCALE * self._rng.standard_normal()))
        return [LoopEdge(
            older, keyframe.id, motion, LOOP_SIGMA_M, LOOP_SIGMA_RAD, scale, LOOP_SIGMA_SCALE)]

    def repose(
        self, poses: Mapping[int, Array], segments: Mapping[int, int] | None = None,
    ) -> None:
        """Take corrected poses, of which nothing here depends."""

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget keyframes, by id."""
        self._keyframes = {
            index: number for index, number in self._keyframes.items() if number not in numbers}

    def clear(self) -> None:
        """Forget the keyframes."""
        self._keyframes.clear()

    def statistics(self) -> dict[str, int]:
        """Return how many loops there were."""
        return {'loop_closed': self._given}


def laps(km: float) -> World:
    """Return a drive round a circle; all its pictures are one."""
    count = round(km * 1000 / STEP_M) + 1
    angle = 2 * np.pi * np.arange(count) * STEP_M / LAP_M
    radius_m = LAP_M / (2 * np.pi)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = np.stack(
        [radius_m * np.sin(angle), -radius_m * np.cos(angle), np.full(count, HEIGHT_M)], axis=1)
    poses[:, :3, :3] = Rotation.from_rotvec(angle[:, None] * (0.0, 0.0, 1.0)).as_matrix() @ OPTICAL
    width, height = STRIDE * SIZE[0], STRIDE * SIZE[1]
    depth_m = np.tile(np.linspace(4, 5, width, dtype=np.float32), (height, 1))
    view = RenderedView(np.full((height, width, 3), 128, np.uint8), depth_m)
    return World(
        name='drive', stamps_ns=START_NS + PERIOD_NS * np.arange(count), world_from_camera=poses,
        odom_from_camera=drifted(poses, DRIFT, 0),
        intrinsics=np.array([[20.0, 0, width / 2], [0, 20.0, height / 2], [0, 0, 1]]),
        views=(view,) * count, distance=lambda points: np.zeros(len(points)),
        keyframe_step_m=STEP_M / 2)


def estimator(world: World, backend: SimulatedBackend, loops: bool, seed: int) -> Reconstructor:
    """Return what is measured; given loops are all that is not as robots have it."""
    config = from_values(Config, {
        'tf.odom_frame': 'odom', 'keyframes.min_translation_m': world.keyframe_step_m,
        'keyframes.min_sharpness': 0.0, 'scale.source': 'odometry', 'map.voxel_m': 1.0,
        'map.max_points': 1000, 'loop_closure.enabled': loops})
    reconstructor = Reconstructor(config, backend)
    if reconstructor._loops:
        reconstructor._loops = GivenLoops(world, seed)  # type: ignore[assignment]
    return reconstructor


class LongDrive:
    """A drive of so many kilometres; ``rejected`` are the sentences of lost windows."""

    def __init__(self, km: float, loops: bool = False, seed: int = 1) -> None:
        self.world = laps(km)
        backend = SimulatedBackend(self.world, TYPICAL, seed)
        self.reconstructor = estimator(self.world, backend, loops, seed)
        self.rejected: list[str] = []
        self._seconds: list[float] = []

    def drive(self, marks: Sequence[int]) -> list[Mark]:
        """Drive to the end; return a mark at each of these keyframes."""
        marked = []
        for index in range(len(self.world)):
            self.reconstructor.add(frame(self.world, index))
            if window := self.reconstructor.take():
                inferred = self.reconstructor.infer(window)
                start_s = time.process_time()
                try:
                    self.reconstructor.place(inferred)
                except AlignmentError as error:
                    self.rejected.append(str(error))
                self._seconds.append(time.process_time() - start_s)
            if index + 1 in marks:
                marked.append(self._mark(index + 1))
        return marked

    def _mark(self, keyframe: int) -> Mark:
        path = self.reconstructor.trajectory()
        estimate = Trajectory(
            np.array([stamp_ns for stamp_ns, _ in path]), np.stack([pose for _, pose in path]))
        truth = Trajectory(self.world.stamps_ns, self.world.world_from_camera)
        error = trajectory_error(truth, estimate, anchor(truth, estimate))
        timed = self._seconds[-TIMED:]
        return Mark(keyframe, sum(timed) / len(timed), max(timed), resident_mib(),
                    error.position_rmse_m)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.evaluate.long_drive', description=__doc__)
    parser.add_argument('--km', type=float, default=10.0)
    parser.add_argument(
        '--loops', action='store_true', help='each fifth keyframe is given a loop of one lap')
    parser.add_argument('--output', type=Path, default=Path('out/evaluate'))
    arguments = parser.parse_args()
    drive = LongDrive(arguments.km, arguments.loops)
    marks = drive.drive((FIRST_MARK, len(drive.world)))
    for mark in marks:
        print(f'keyframe {mark.keyframe}: {1000 * mark.seconds_a_window:.1f} ms a window (longest '
              f'{1000 * mark.longest_s:.0f} ms), {mark.resident_mib:.0f} MiB resident, position '
              f'{mark.position_m:.2f} m rms')
    counts = drive.reconstructor.statistics()
    print(f'{len(drive.rejected)} windows rejected; {counts}')
    arguments.output.mkdir(parents=True, exist_ok=True)
    output = arguments.output / 'drive.json'
    output.write_text(json.dumps({
        'km': arguments.km, 'loops': arguments.loops, 'marks': [asdict(mark) for mark in marks],
        'rejected': len(drive.rejected), 'counts': counts}, indent=1))
    print(f'wrote {output}')


if __name__ == '__main__':
    main()
