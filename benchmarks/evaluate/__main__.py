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

"""Make the table of errors, write out/evaluate/alignment.json, and check what is promised."""

from __future__ import annotations

import argparse
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
from benchmarks.evaluate.runs import DROPS_PERCENT, FAULTS, promise, Run, table
from benchmarks.evaluate.window_errors import window_errors
from benchmarks.evaluate.worlds import BUILDINGS

BAG_VARIABLE = 'MAPANYTHING_TEST_BAG'
COLUMNS = (
    f'{"world":10} {"drops":>5} {"":31} {"position":>9} {"aligned":>8} {"rotation":>8} '
    f'{"map 50%":>8} {"map 90%":>8} {"coverage":>8} {"scale":>7} {"90%":>6} {"seg":>4} '
    f'{"rej":>4} {"loops":>5} {"s":>5}')


def main() -> None:
    arguments = _parse()
    worlds = arguments.world or list(BUILDINGS)
    if arguments.bag:
        worlds.append(arguments.bag)
    else:
        print(f'no recorded world: name a bag with true poses in --bag or {BAG_VARIABLE}')
    runs = [
        run for run in (
            *table(worlds, arguments.drops or DROPS_PERCENT, arguments.seed),
            *promise(worlds, arguments.seed))
        if arguments.rows in run.label]
    results = _measured(runs, arguments.processes)
    within = {
        world: window_errors(world, FAULTS['typical'], arguments.seed)
        for world in dict.fromkeys(run.world for run in runs)}
    for world, errors in within.items():
        print(f'within a window of {Path(world).name}: {errors}')
    claims = check(results)
    for claim in claims:
        print(f'{claim.verdict:11} ({claim.checked} runs): {claim.text}')
        for sentence in claim.broken:
            print(f'            not in {sentence}')
    arguments.output.mkdir(parents=True, exist_ok=True)
    output = arguments.output / 'alignment.json'
    output.write_text(json.dumps({
        'within_a_window': {world: asdict(errors) for world, errors in within.items()},
        'rows': [record(*result) for result in results],
        'claims': [{**asdict(claim), 'verdict': claim.verdict} for claim in claims],
    }, indent=1))
    print(f'wrote {output}')
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
    parser.add_argument('--seed', type=int, default=1, help='of the faults (default: 1)')
    parser.add_argument('--processes', type=int, default=os.cpu_count())
    return parser.parse_args()


def _measured(runs: Sequence[Run], processes: int) -> list[tuple[Run, Figures]]:
    """Make all runs, and print a line for each."""
    print(COLUMNS)
    results = []
    # A core for each process, which wins over threads. Spawned: threads do not survive a fork.
    os.environ['OMP_NUM_THREADS'] = '1'
    with ProcessPoolExecutor(
            processes, multiprocessing.get_context('spawn'), cv2.setNumThreads, (1,)) as pool:
        for run, figures in zip(runs, pool.map(measure, runs), strict=True):
            results.append((run, figures))
            print(_row(run, figures), flush=True)
    return results


def _row(run: Run, figures: Figures) -> str:
    faults = '' if run.faults == 'typical' else f' ({run.faults})'
    name = f'{Path(run.world).name:10} {run.drops_percent:4}% {run.label + faults:31}'
    return (
        f'{name} {figures.position_m:7.3f} m {figures.aligned_m:6.3f} m '
        f'{figures.rotation_deg:6.2f}\N{DEGREE SIGN} {figures.map_median_m:6.3f} m '
        f'{figures.map_p90_m:6.3f} m {figures.coverage:8.1%} {figures.scale_error:+7.2%} '
        f'{figures.scale_p90:6.1%} {figures.segments:4} {len(figures.rejected):4} '
        f'{figures.loops:5} {figures.seconds:5.1f}')


if __name__ == '__main__':
    main()
