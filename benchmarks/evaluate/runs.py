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

"""The runs of the evaluation: which faults, which way to join windows, what is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from benchmarks.evaluate.simulated_backend import Faults
from benchmarks.evaluate.worlds import BUILDINGS, World
from mapanything_ros.core.config import Config, from_values

# A good network on a good day, and now and then a bad one.
TYPICAL = Faults(
    scale=0.1, rotation_deg=0.1, translation=0.01, depth_noise=0.01, depth_bias=0.01,
    outlier_windows=0.03, garbage_views=0.02)
FAULTS = {
    'typical': TYPICAL,
    # What the accuracy of a long loop is promised for.
    'promised': Faults(scale=0.1, depth_noise=0.01),
    # As large as what the plane sweep's depth keeps of the recorded kitchen is off on the whole.
    'window bias': replace(TYPICAL, window_bias=0.03),
    # A scale that is nearly the same from window to window: 1 % in the three keyframes between.
    'scale drift': replace(TYPICAL, scale=0.02, scale_drift=0.01 / 3 ** 0.5),
}

RAW = 'odometry'
DRIFTING, NONE = 'drifting', 'none'
DROPS_PERCENT = (0, 10, 30)
SEEDS = (1, 2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Run:
    """
    One way through one world.

    ``method`` is 'odometry' (nothing but that) or 'sim3', which is ours; ``scale`` anchors it.
    ``odometry`` is 'drifting', which it always is, 'none', or what befalls it on top of that: one
    of MISHAPS. ``drops_percent`` of the windows are lost to overload; ``seed`` chooses the faults
    of the backend and the mishaps of odometry, not its drift.
    """

    world: str
    faults: str
    method: str
    scale: str = 'model'
    loops: bool = False
    odometry: str = DRIFTING
    drops_percent: int = 0
    seed: int = 1

    def __str__(self) -> str:
        return f'{self.row}, seed {self.seed}'

    @property
    def row(self) -> str:
        """Return what is the same for all seeds, as one name."""
        return f'{self.place}, {self.case}, {self.drops_percent} % dropped'

    @property
    def ours(self) -> bool:
        """Say whether the run is of the reconstructor's own alignment."""
        return self.method != RAW

    @property
    def with_odometry(self) -> bool:
        """Say whether the reconstructor is given odometry."""
        return self.odometry != NONE

    @property
    def place(self) -> str:
        """Return the world's name; a recorded one is the folder of a bag."""
        return Path(self.world).name

    @property
    def case(self) -> str:
        """Return the short name of the way and the faults."""
        way = f'{self.method}+{self.scale}{"+loops" * self.loops}' if self.ours else RAW
        odometry = {DRIFTING: '', NONE: 'no odometry'}.get(self.odometry, self.odometry)
        faults = '' if self.faults == 'typical' else self.faults
        return ', '.join(filter(None, (way, odometry, faults)))

    def config(self, world: World) -> Config:
        """Return the parameters."""
        values: dict[str, object] = {
            'tf.odom_frame': 'odom' if self.with_odometry else '',
            'keyframes.min_translation_m': world.keyframe_step_m,
            'keyframes.min_sharpness': 0.0, 'map.min_views': 1,
            # A map of a building in coarse voxels is corrected by loops in half the time.
            'map.voxel_m': 0.1 if self.world in BUILDINGS else 0.05,
            'scale.source': self.scale,
            'loop_closure.enabled': self.loops}
        return from_values(Config, values)


# Ways that every world is gone with every share of lost windows.
WAYS = (
    {'method': 'sim3', 'scale': 'odometry'},
    {'method': 'sim3', 'scale': 'odometry', 'loops': True},
    {'method': 'sim3', 'scale': 'model'},
)
# What else is tried in buildings, without losses but for one.
TRIALS = (
    {'faults': 'promised', 'method': 'sim3', 'scale': 'odometry'},
    {'odometry': NONE, 'method': 'sim3'},
    {'odometry': NONE, 'method': 'sim3', 'loops': True},
    {'odometry': NONE, 'method': 'sim3', 'loops': True, 'drops_percent': 10},
    {'odometry': 'slip', 'method': RAW},
    {'odometry': 'slip', 'method': 'sim3', 'scale': 'odometry'},
    {'odometry': 'slip', 'method': 'sim3', 'scale': 'odometry', 'loops': True},
    {'odometry': 'slip', 'method': 'sim3', 'scale': 'model'},
    {'odometry': 'jump', 'method': RAW},
    {'odometry': 'jump', 'method': 'sim3', 'scale': 'odometry'},
    {'odometry': 'jump', 'method': 'sim3', 'scale': 'odometry', 'loops': True},
    {'odometry': 'stretch', 'method': RAW},
    {'odometry': 'stretch', 'method': 'sim3', 'scale': 'odometry'},
    {'faults': 'window bias', 'method': 'sim3', 'scale': 'odometry'},
    {'faults': 'window bias', 'method': 'sim3', 'scale': 'odometry', 'loops': True},
    {'faults': 'scale drift', 'method': 'sim3', 'scale': 'model'},
    {'faults': 'scale drift', 'method': 'sim3', 'scale': 'model', 'loops': True},
)


def table(
    worlds: Sequence[str], drops_percent: Sequence[int] = DROPS_PERCENT,
    seeds: Sequence[int] = SEEDS,
) -> Iterator[Run]:
    """Give the runs of the table, world by world and row by row."""
    for world in worlds:
        rows = [Run(world, 'typical', RAW)]
        rows += [
            Run(world, 'typical', **way, drops_percent=drops)  # type: ignore[arg-type]
            for drops, way in product(drops_percent, WAYS)]
        if world in BUILDINGS:
            rows += [
                Run(**{'world': world, 'faults': 'typical', **trial})  # type: ignore[arg-type]
                for trial in TRIALS]
        for row, seed in product(rows, seeds):
            yield replace(row, seed=seed)
