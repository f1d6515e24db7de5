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

"""Fetch MapAnything's weights, and say whether the node would start with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import shlex
import sys

from mapanything_ros.core.backends.mapanything.checkpoint import APACHE, LICENCES, NON_COMMERCIAL
from mapanything_ros.core.backends.mapanything.hub import download, FetchError, size_at_hub
from mapanything_ros.core.backends.mapanything.readiness import (
    Finding,
    inspect_all,
    inspect_fit,
    inspect_stack,
    inspect_weights,
    size_text,
)
from mapanything_ros.core.config import Config
from mapanything_ros.core.errors import ConfigError, MapAnythingRosError

MARKS = {True: 'ok', False: 'NOT OK', None: 'skipped'}
CARRY = """
Fetched to {place}
On this machine set mapanything.weights to '{value}'.
For a robot without network copy the folder, files instead of links:
  rsync -rL {source} robot:mapanything_weights/
There set mapanything.weights to that folder's path, and run weights check with it.
Nothing else is needed: DINOv2's weights are among these, its code is in mapanything."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 if the weights are there and, for check, the node would start."""
    options = _parse(arguments)
    try:
        if options.command == 'fetch':
            _fetch(options.weights, options.folder)
            return 0
        return _check(options.weights, options.device)
    except (MapAnythingRosError, OSError) as error:
        print(f'weights: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('weights: interrupted; the same command goes on from here', file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='weights', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    fetch = commands.add_parser(
        'fetch', help='download weights, on a machine with network, and check them',
        description='Download weights from the Hugging Face hub and check them.')
    fetch.add_argument(
        'weights', nargs='?', default=APACHE, metavar='ID',
        help=f'{APACHE} (default; Apache-2.0) or {NON_COMMERCIAL} (non-commercial use alone)')
    fetch.add_argument(
        '--folder', type=Path, metavar='DIR',
        help="where to put them, to be carried elsewhere (default: the hub's cache)")
    check = commands.add_parser(
        'check', help='say what the node needs to start with weights, and what is missing',
        description='Look at all that the node needs to start with weights, without network. '
        'Exit status 0 says that it would start.')
    check.add_argument(
        'weights', nargs='?', default=Config().mapanything.weights, metavar='ID_OR_FOLDER',
        help='what mapanything.weights will be (default: %(default)s)')
    check.add_argument(
        '--device', default=Config().device,
        help='what device will be: cpu, cuda, cuda:1 (default: %(default)s)')
    options = parser.parse_args(arguments)
    try:
        Config(device=getattr(options, 'device', Config().device))
    except ConfigError as error:
        parser.error(str(error))
    return options


def _check(weights: str, device: str) -> int:
    findings = inspect_all(weights, device)
    _show(findings)
    problems = [finding for finding in findings if finding.ok is False]
    if not problems:
        print(f"The node would start: backend 'mapanything', device {device!r}, "
              f'mapanything.weights {weights!r}.')
        return 0
    count = f'{len(problems)} problem{"s" if len(problems) > 1 else ""}'
    print(f'weights: the node would not start ({count}); next: {problems[0].text}',
          file=sys.stderr)
    return 1


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f'{MARKS[finding.ok]:8}{finding.what:9}{finding.text}', flush=True)


def _fetch(name: str, folder: Path | None) -> None:
    if folder is not None and folder.exists() and not folder.is_dir():
        raise FetchError(f'{folder} is a file: give --folder a folder')
    print(f'Weights: {name}')
    print(f'Licence: {LICENCES.get(name, f"see https://huggingface.co/{name}")}', flush=True)
    print(f'Size:    {size_text(size_at_hub(name))}', flush=True)
    place = download(name, folder)
    findings, checkpoint = inspect_weights(str(place))
    if checkpoint is None:
        print('What is there is not whole; fetching it once more.', flush=True)
        place = download(name, folder, again=True)
        findings, checkpoint = inspect_weights(str(place))
    findings.append(inspect_fit(inspect_stack(), checkpoint))
    _show(findings)
    for finding in findings:
        if finding.ok is False:
            raise FetchError(f'{name} was fetched but cannot be used: {finding.text}')
    value, source = str(place) if folder else name, shlex.quote(f'{place}/')
    print(CARRY.format(place=place, value=value, source=source))


if __name__ == '__main__':
    sys.exit(main())
