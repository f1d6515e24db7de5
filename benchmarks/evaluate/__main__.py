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

"""Make the table of errors, write them to out/evaluate, and check what is promised."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
import json
import multiprocessing
import os
from pathlib import Path
import sys

import cv2

from benchmarks.evaluate.claims import check
from benchmarks.evaluate.figures import Figures, measure, record
from benchmarks.evaluate.runs import DROPS_PERCENT, FAULTS, Run, SEEDS, table
from benchmarks.evaluate.summary import Spread, summary
from benchmarks.evaluate.truth_error import truth_error
from benchmarks.evaluate.window_errors import window_errors
from benchmarks.evaluate.worlds import BUILDINGS, world

BAG_VARIABLE = 'MAPANYTHING_TEST_BAG'
# Heading, figure, and how it is written: rms over seeds, and the least and largest in brackets.
SPREADS = (
    ('position, m', 'position_m', '.3f'), ('aligned, m', 'aligned_m', '.3f'),
    ('rotation, \N{DEGREE SIGN}', 'rotation_deg', '.2f'), ('map 50%, m', 'map_median_m', '.3f'),
    ('scale', 'scale_error', '.1%'))
COLUMNS = (
    f'{"world":9} {"lost":>4} {"":32}{"".join(f"{heading:>21}" for heading, _, _ in SPREADS)} '
    f'{"coverage":>8} {"seg":>4} {"rej":>4} {"loops":>5} {"s":>5}')


def main() -> None:
    arguments = _parse()
    worlds = arguments.world or list(BUILDINGS)
    if arguments.bag:
        worlds.append(arguments.bag)
    else:
        print(f'no recorded world: name a bag with true poses in --bag or {BAG_VARIABLE}')
    seeds = tuple(arguments.seed or SEEDS)
    runs = [
        run for run in table(worlds, arguments.drops or DROPS_PERCENT, seeds)
        if arguments.rows in run.case]
    results = _measured(runs, arguments.processes)
    within = {
        name: window_errors(name, FAULTS['typical'], seeds)
        for name in dict.fromkeys(run.world for run in runs)}
    for name, errors in within.items():
        print(f'within a window of {Path(name).name}: {errors}')
    # Rendered worlds are exact.
    truths = {name: truth_error(world(name)) for name in within if name not in BUILDINGS}
    for name, truth in truths.items():
        print(f'the truth of {Path(name).name}: {truth}')
    claims = check(results)
    for claim in claims:
        print(f'{claim.verdict:11} ({claim.checked} checks): {claim.text}')
        for sentence in claim.broken:
            print(f'            not in {sentence}')
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ('summary.json', summary(results)),
        ('alignment.json', {
            'within_a_window': {name: asdict(errors) for name, errors in within.items()},
            'truth_error': {name: asdict(truth) for name, truth in truths.items()},
            'runs': [record(*result) for result in results],
            'claims': [{**asdict(claim), 'verdict': claim.verdict} for claim in claims]}),
    ):
        (arguments.output / name).write_text(json.dumps(content, indent=1))
        print(f'wrote {arguments.output / name}')
    sys.exit(any(claim.broken for claim in claims))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.evaluate', description=__doc__)
    parser.add_argument('--output', type=Path, default=Path('out/evaluate'))
    parser.add_argument('--world', choices=BUILDINGS, action='append', help='render this one')
    parser.add_argument(
        '--bag', default=os.environ.get(BAG_VARIABLE, ''),
        help=f'a recorded world: a bag with true poses (default: {BAG_VARIABLE})')
    parser.add_argument('--rows', default='', help='run those whose name contains this')
    parser.add_argument(
        '--drops', type=int, choices=DROPS_PERCENT, action='append', help='percent of windows')
    parser.add_argument(
        '--seed', type=int, action='append',
        help=f'of the faults, several times for several (default: {SEEDS[0]} to {SEEDS[-1]})')
    parser.add_argument('--processes', type=int, default=os.cpu_count())
    return parser.parse_args()


def _measured(runs: Sequence[Run], processes: int) -> list[tuple[Run, Figures]]:
    """Make all runs, and print a line for all seeds of each row."""
    print(COLUMNS)
    results: list[tuple[Run, Figures]] = []
    seeds = Counter(run.row for run in runs)
    # A core for each process, which wins over threads. Spawned: threads do not survive a fork.
    os.environ['OMP_NUM_THREADS'] = '1'
    with ProcessPoolExecutor(
            processes, multiprocessing.get_context('spawn'), cv2.setNumThreads, (1,)) as pool:
        for run, figures in zip(runs, pool.map(measure, runs), strict=True):
            results.append((run, figures))
            if run == runs[-1] or runs[len(results)].row != run.row:
                print(_row(run, [found for _, found in results[-seeds[run.row]:]]), flush=True)
    return results


def _row(run: Run, seeds: Sequence[Figures]) -> str:
    spreads = ''.join(
        f'{format(spread.rms, how):>7} {f"({spread.low:{how}} to {spread.high:{how}})":>13}'
        for spread, how in ((Spread.of(seeds, name), how) for _, name, how in SPREADS))
    mean = [sum(values) / len(seeds) for values in zip(
        *((figures.coverage, figures.seconds) for figures in seeds), strict=True)]
    total = [sum(values) for values in zip(
        *((figures.segments, len(figures.rejected), figures.loops) for figures in seeds),
        strict=True)]
    return (
        f'{run.place:9} {run.drops_percent:3}% {run.case:32}{spreads} {mean[0]:8.1%} '
        f'{total[0]:4} {total[1]:4} {total[2]:5} {mean[1]:5.1f}')


if __name__ == '__main__':
    main()
