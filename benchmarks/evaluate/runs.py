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
from dataclasses import dataclass
from itertools import product

from benchmarks.evaluate.simulated_backend import Faults
from benchmarks.evaluate.worlds import BUILDINGS, World
from mapanything_ros.core.config import Config, from_values

# A good network on a good day, and now and then a bad one.
TYPICAL = Faults(
    scale=0.1, rotation_deg=0.1, translation=0.01, depth_noise=0.01, depth_bias=0.01,
    outlier_windows=0.03, garbage_views=0.02)
# What the accuracy of a long loop is promised for.
PROMISED = Faults(scale=0.1, depth_noise=0.01)
FAULTS = {'typical': TYPICAL, 'promised': PROMISED}

ODOMETRY = 'odometry'
UNALIGNED = 'unaligned'
MODELS = ('se3', 'sim3')
SCALES = ('model', 'odometry')
DROPS_PERCENT = (0, 10, 30)


@dataclass(frozen=True)
class Run:
    """
    One way through one world.

    ``method`` is 'odometry' (nothing but that), 'unaligned' (each window where odometry has its
    first keyframe), 'se3' or 'sim3'; ``scale`` what anchors it. ``drops_percent`` of the windows
    are lost to overload; ``seed`` chooses the faults.
    """

    world: str
    faults: str
    method: str
    scale: str = 'model'
    loops: bool = False
    drops_percent: int = 0
    seed: int = 1

    def __str__(self) -> str:
        return f'{self.world}, {self.label}, {self.drops_percent} % dropped, {self.faults} faults'

    @property
    def ours(self) -> bool:
        """Say whether the run is of the reconstructor's own alignment."""
        return self.method in MODELS

    @property
    def one_scale(self) -> bool:
        """Say whether windows are brought to one scale, not left as the backend has each."""
        return self.method == 'sim3' or self.ours and self.scale == 'odometry'

    @property
    def label(self) -> str:
        """Return the row's name in the table."""
        if not self.ours:
            return {'odometry': 'raw odometry', 'unaligned': 'no alignment'}[self.method]
        return f'{self.method}, {self.scale} scale{", loops" if self.loops else ""}'

    def config(self, world: World) -> Config:
        """Return the parameters."""
        values: dict[str, object] = {
            'tf.odom_frame': 'odom', 'keyframes.min_translation_m': world.keyframe_step_m,
            'keyframes.min_sharpness': 0.0, 'map.voxel_m': 0.05, 'map.min_views': 1}
        if self.ours:
            values |= {'alignment.model': self.method, 'scale.source': self.scale}
        if self.loops:
            values['loop_closure.enabled'] = True
        return from_values(Config, values)


def table(worlds: Sequence[str], drops_percent: Sequence[int], seed: int) -> Iterator[Run]:
    """Give the runs of the table, world by world."""
    for world, drops in product(worlds, drops_percent):
        for method in (ODOMETRY, UNALIGNED):
            yield Run(world, 'typical', method, drops_percent=drops, seed=seed)
        for method, scale, loops in product(MODELS, SCALES, (False, True)):
            yield Run(world, 'typical', method, scale, loops, drops, seed)


def promise(worlds: Sequence[str], seed: int) -> Iterator[Run]:
    """Give the runs that show the promised accuracy of 60 m loops."""
    for world, method in product(worlds, MODELS):
        if world in BUILDINGS:
            yield Run(world, 'promised', method, 'odometry', seed=seed)
