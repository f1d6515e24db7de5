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

"""What the table must show over all seeds, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
import math

from benchmarks.evaluate.figures import Figures
from benchmarks.evaluate.runs import FAULTS, Run
from benchmarks.evaluate.summary import by_row, Results, Spread
from benchmarks.evaluate.window_errors import window_errors
from benchmarks.evaluate.worlds import BUILDINGS

# Loop closure may make an error, rms over seeds, this much larger, and this is no error.
WORSE = 1.05
NOTHING = {'position_m': 0.001, 'aligned_m': 0.001, 'rotation_deg': 0.01, 'map_median_m': 0.001}
# A loop that is none ruins a map: no seed may be so many times worse, and what is below this after
# loops is no ruin.
DISASTER = 1.5
SOUND = {'position_m': 0.1, 'aligned_m': 0.1, 'rotation_deg': 1.0, 'map_median_m': 0.05}
# Where what gives the scale drifts itself, one part of the path is as wrong in size as another:
# loops make all of it alike, and where that is nearest to the truth is luck.
SIZED = {'position_m', 'map_median_m'}
POSITION_SHARE = 0.005
SCALE_SHARE = 0.01


@dataclass(frozen=True)
class Claim:
    """What is claimed, how often it was checked, and where it does not hold."""

    text: str
    checked: int
    broken: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Return 'held', 'not held', or 'not checked' where no run could be."""
        if not self.checked:
            return 'not checked'
        return 'not held' if self.broken else 'held'


def check(results: Results) -> list[Claim]:
    """Return every claim about the runs that were made."""
    return [
        _claim('beats raw odometry where the backend does within a window (rms over seeds)',
               _odometry(results)),
        _claim('drops make no new segment with odometry', _segments(results)),
        _claim('all drops together cost no more than odometry errs in the gaps', _drops(results)),
        _claim(f'loop closure makes no error more than {WORSE - 1:.0%} worse (rms over seeds)',
               _loops(results)),
        _claim(f'loop closure makes no seed a disaster ({DISASTER:g} times worse)',
               _disasters(results)),
        _claim('a walk that comes back is recognised where no window is lost', _found(results)),
        _claim('TF: one parent a frame, no stamp going back', _tf(results)),
        _claim(f'10 % scale error, 1 % depth noise, odometry-anchored: position within '
               f'{POSITION_SHARE:.1%} of the distance', _promise(results, _position)),
        _claim(f'the same: scale within {SCALE_SHARE:.0%}', _promise(results, _scale)),
    ]


def _claim(text: str, checks: Iterator[str]) -> Claim:
    said = list(checks)
    return Claim(text, len(said), tuple(sentence for sentence in said if sentence))


def _odometry(results: Results) -> Iterator[str]:
    """Give a sentence, empty if all is well, for each row."""
    for row, seeds in by_row(results).items():
        run = seeds[0][0]
        if not run.ours or not run.with_odometry or run.faults != 'typical':
            continue
        within = window_errors(run.world, FAULTS[run.faults], tuple(run.seed for run, _ in seeds))
        if within.backend_is_better(anchored=run.scale == 'odometry'):
            ours, odometry = (
                Spread.of([figures for _, figures in seeds], name).rms
                for name in ('position_m', 'odometry_m'))
            yield '' if ours < odometry else f'{row}: {ours:.3f} m, odometry {odometry:.3f} m'


def _segments(results: Results) -> Iterator[str]:
    for run, figures in results:
        if run.ours and run.with_odometry and run.drops_percent:
            yield '' if figures.segments == 1 else f'{run}: {figures.segments} segments'


def _drops(results: Results) -> Iterator[str]:
    """
    Compare with the error without drops and odometry's share of a random walk, in quadrature.

    What one gap costs is luck, so all runs count together; but for those where every window has
    its own scale, which odometry has no part in.
    """
    by_run = dict(results)
    shares = []
    for run, figures in results:
        whole = by_run.get(replace(run, drops_percent=0))
        if run.drops_percent and run.ours and run.with_odometry and whole:
            expected_m = math.hypot(
                whole.position_m, math.sqrt(figures.gaps) * figures.odometry_m)
            shares.append(figures.position_m / expected_m)
    if shares:
        share = math.sqrt(sum(share ** 2 for share in shares) / len(shares))
        yield '' if share <= 1 else (
            f'{len(shares)} runs: their errors are {share:.2f} (rms) times what they should be')


def _loops(results: Results) -> Iterator[str]:
    """Compare rows over the seeds that were run with loop closure and without."""
    by_run = dict(results)
    for row, seeds in by_row(results).items():
        pairs = [
            (figures, by_run[without]) for run, figures in seeds
            if run.loops and (without := replace(run, loops=False)) in by_run]
        if not pairs:
            continue
        worse = []
        for name, nothing in _judged(seeds[0][0], NOTHING):
            after, before = (Spread.of(found, name).rms for found in zip(*pairs, strict=True))
            if not after <= WORSE * before + nothing:
                worse.append(f'{name} {after:.3f} after {before:.3f}')
        yield f'{row}: {", ".join(worse)}' if worse else ''


def _judged(run: Run, limits: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the errors that loops are judged by, with their limits."""
    return [
        (name, limit) for name, limit in limits.items()
        if run.faults != 'scale drift' or name not in SIZED]


def _disasters(results: Results) -> Iterator[str]:
    by_run = dict(results)
    for run, figures in results:
        without = by_run.get(replace(run, loops=False))
        if not run.loops or without is None:
            continue
        worse = [
            f'{name} {getattr(figures, name):.3f} after {getattr(without, name):.3f}'
            for name, sound in _judged(run, SOUND)
            if not getattr(figures, name) <= max(sound, DISASTER * getattr(without, name))]
        yield f'{run}: {", ".join(worse)}' if worse else ''


def _found(results: Results) -> Iterator[str]:
    for run, figures in results:
        if run.loops and not run.drops_percent and run.world in BUILDINGS:
            yield '' if figures.loops else f'{run}: no loop found'


def _tf(results: Results) -> Iterator[str]:
    for run, figures in results:
        if run.ours:
            yield f'{run}: {figures.tf_faults[0]}' if figures.tf_faults else ''


def _promise(results: Results, judge: Callable[[Run, Figures], str]) -> Iterator[str]:
    for run, figures in results:
        if run.faults == 'promised':
            yield judge(run, figures)


def _position(run: Run, figures: Figures) -> str:
    share = figures.position_m / figures.length_m
    return '' if share <= POSITION_SHARE else f'{run}: {share:.2%}'


def _scale(run: Run, figures: Figures) -> str:
    good = abs(figures.scale_error) <= SCALE_SHARE
    return '' if good else f'{run}: {figures.scale_error:+.2%}'
