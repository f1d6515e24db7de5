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

"""Run every benchmark: a table on the terminal, the figures in out/bench."""

import argparse
from pathlib import Path

import torch

from benchmarks import backend, front_end, places, reconstruct
from benchmarks import map as accumulated_map

TINY = Path('test/data/mapanything_tiny.json')
FULL = Path('benchmarks/mapanything_v1.1.json')


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('--output', type=Path, default=Path('out/bench'))
    parser.add_argument(
        '--only', choices=('backend', 'front_end', 'map', 'places', 'reconstruct'),
        help='run one of them')
    parser.add_argument(
        '--images', type=int, default=10_000, help='images of the memory run (default: 10000)')
    parser.add_argument(
        '--device', choices=('cpu', 'cuda'),
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='of the backend; cuda runs the whole architecture, cpu a tiny one')
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.only in (None, 'backend'):
        backend.run(
            arguments.output / 'backend.json', torch.device(arguments.device),
            FULL if arguments.device == 'cuda' else TINY)
    if arguments.only in (None, 'front_end'):
        front_end.run(arguments.output / 'front_end.json', arguments.images)
    if arguments.only in (None, 'map'):
        accumulated_map.run(arguments.output / 'map.json')
    if arguments.only in (None, 'places'):
        places.run(arguments.output / 'places.json')
    if arguments.only in (None, 'reconstruct'):
        reconstruct.run(arguments.output / 'reconstruct.json')


if __name__ == '__main__':
    main()
