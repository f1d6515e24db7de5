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

"""What all seeds of a row say together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluate.figures import Figures
from benchmarks.evaluate.runs import Run

Results = Sequence[tuple[Run, Figures]]
# Names in summary.json, and the figures that they are the rms of.
RMS = {
    'position_m': 'position_m', 'rotation_deg': 'rotation_deg', 'map_m': 'map_median_m',
    'scale': 'scale_error', 'aligned_m': 'aligned_m'}


@dataclass(frozen=True)
class Spread:
    """Root mean square, least and largest of a figure; nan where one seed has nothing to say."""

    rms: float
    low: float
    high: float

    @classmethod
    def of(cls, seeds: Iterable[Figures], name: str) -> Spread:
        """Take a figure of all seeds."""
        values = np.array([getattr(figures, name) for figures in seeds])
        return cls(float(np.sqrt(np.mean(values ** 2))), float(values.min()), float(values.max()))


def by_row(results: Results) -> dict[str, list[tuple[Run, Figures]]]:
    """Group results by what is the same for all seeds."""
    rows: dict[str, list[tuple[Run, Figures]]] = {}
    for run, figures in results:
        rows.setdefault(run.row, []).append((run, figures))
    return rows


def summary(results: Results) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """
    Return, by world, case and percentage of lost windows, the rms over seeds for JSON.

    nan is null. ``coverage`` is the mean share of keyframes in the map: the errors are theirs.
    """
    worlds: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    for seeds in by_row(results).values():
        run = seeds[0][0]
        found = [figures for _, figures in seeds]
        values = {name: Spread.of(found, figure).rms for name, figure in RMS.items()}
        values['coverage'] = float(np.mean([figures.coverage for figures in found]))
        cases = worlds.setdefault(run.place, {}).setdefault(run.case, {})
        cases[str(run.drops_percent)] = {
            'seeds': len(seeds),
            **{name: None if value != value else value for name, value in values.items()}}
    return worlds
