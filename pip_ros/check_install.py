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
Resolve the requirements of each use for each robot, and say what would go wrong there.

A recipe of docs/install.md asks pip for requirements beside what the robot has. pip resolves the
same here, for the robot's Python and machine, without installing anything. It knows nothing of
what a foreign machine has, so each package that the robot's own are built on stands in as an empty
wheel of its version, marked `+robot`, and as a constraint, as in the recipe. Then a missing wheel,
or a requirement that another version than the robot's would have to meet, is pip's own error.

Exit status 0: every recipe resolves and leaves the robot's packages alone. 1: one does not.
2: that could not be looked at everywhere. Only the standard library and pip are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile
from typing import Any
import zipfile

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'
# What the recipes of docs/install.md install together.
RECIPES = {
    'node, model': ('node', 'model'), 'node, colmap': ('node', 'colmap'),
    'node, offline': ('node', 'offline')}
# These would hide the OpenCV of the distribution, which pip does not see.
OPENCV = re.compile(r'opencv-(contrib-)?python(-headless)?')
# pip's words for files that it sees and cannot use.
OTHER_MACHINE = re.compile("none of the wheel's tags|Link requires a different Python")
MARK = '+robot'
# Pure Python without a wheel, which pip cannot resolve for another machine.
FROM_SOURCE = ('antlr4-python3-runtime', '4.9.3')
LEAST_PIP = (23, 2)  # the first that reads requirements without fetching whole wheels
PIP_TIMEOUT_S = 600
CONFLICT_LINES = 4
# pip judges environment markers by the machine that it runs on, whatever --platform says.
FOREIGN_PIP = """
import json, os, sys
from pip._vendor.packaging import markers
here, there = markers.default_environment, json.loads(os.environ['MARKERS'])
markers.default_environment = lambda: {**here(), **there}
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Robot:
    """A machine with ROS: its Python, the minor version of its glibc 2, what it brings."""

    name: str
    machine: str
    python: str
    glibc: int
    brings: Mapping[str, str]
    opencv: str

    def markers(self) -> dict[str, str]:
        """Return what the environment markers of requirements are judged by."""
        return {
            'implementation_name': 'cpython', 'implementation_version': f'{self.python}.0',
            'os_name': 'posix', 'platform_machine': self.machine,
            'platform_python_implementation': 'CPython', 'platform_system': 'Linux',
            'python_full_version': f'{self.python}.0', 'python_version': self.python,
            'sys_platform': 'linux'}

    def options(self) -> list[str]:
        """Return pip's options for wheels of this machine."""
        options = [
            '--python-version', self.python, '--implementation', 'cp',
            '--abi', f'cp{self.python.replace(".", "")}', '--only-binary', ':all:']
        names = [f'manylinux_2_{minor}' for minor in range(self.glibc, 4, -1)]
        for name in (*names, 'manylinux2014', 'manylinux2010', 'manylinux1', 'linux'):
            options += ['--platform', f'{name}_{self.machine}']
        return options


# What Ubuntu and ROS bring through package.xml (packages.ubuntu.com). The names are KEPT of
# bootstrap.py; a Jetson's torch is one of those that NVIDIA builds for JetPack 6.
JAMMY = {
    'matplotlib': '3.5.1', 'numpy': '1.21.5', 'pillow': '9.0.1', 'pyyaml': '5.4.1',
    'scipy': '1.8.0', 'tqdm': '4.57.0', 'transforms3d': '0.3.1'}
NOBLE = {
    'matplotlib': '3.6.3', 'numpy': '1.26.4', 'pillow': '10.2.0', 'pyyaml': '6.0.1',
    'scipy': '1.11.4', 'tqdm': '4.66.2', 'transforms3d': '0.4.1'}
RESOLUTE = {
    'matplotlib': '3.10.7', 'numpy': '2.3.5', 'pillow': '12.1.1', 'pyyaml': '6.0.3',
    'scipy': '1.16.3', 'tqdm': '4.67.3', 'transforms3d': '0.4.2'}
JETSON = {
    **JAMMY, 'torch': '2.5.0a0+872d972e41.nv24.8', 'torchvision': '0.20.0a0'}
ROBOTS = (
    *(Robot('Humble', machine, '3.10', 35, JAMMY, '4.5.4') for machine in ('x86_64', 'aarch64')),
    Robot('Humble on a Jetson', 'aarch64', '3.10', 35, JETSON, '4.5.4'),
    *(Robot('Jazzy, Kilted', machine, '3.12', 39, NOBLE, '4.6.0')
      for machine in ('x86_64', 'aarch64')),
    *(Robot('Lyrical', machine, '3.14', 43, RESOLUTE, '4.10.0')
      for machine in ('x86_64', 'aarch64')),
)
NOT_CHECKED = (
    'MapAnything and uniception, which are installed without what they ask for',
    'whether a wheel works: only that there is one, and that what it asks for is there',
    'packages of the distribution that are not named above: the virtual environment may hold '
    'newer ones, for itself alone',
    f'building {FROM_SOURCE[0]} {FROM_SOURCE[1]}, which hydra-core asks for and has no wheel: it '
    'is pure Python',
    "what a Jetson's own torch and torchvision ask for: they stand in by their versions",
)


@dataclass(frozen=True)
class Outcome:
    """
    What pip would do: `ok`, or None where that could not be looked at.

    `text` says what is fetched and left out, or what is wrong.
    """

    ok: bool | None
    text: str


def main(arguments: Sequence[str] | None = None) -> int:
    if unusable := pip_problem():
        print(f'check-install: nothing was checked: {unusable}', file=sys.stderr)
        return 2
    outcomes = []
    print(f'{"robot":20}{"machine":9}{"uses":15}outcome', flush=True)
    for robot in ROBOTS:
        for title, uses in RECIPES.items():
            outcome = check(robot, [REQUIREMENTS / f'{use}.txt' for use in uses])
            word = {True: 'ok', False: 'FAILS', None: 'NOT CHECKED'}[outcome.ok]
            print(f'{robot.name:20}{robot.machine:9}{title:15}{word}: {outcome.text}', flush=True)
            outcomes.append(outcome.ok)
    print('\nThe robots keep, and nothing above changes:')
    for robot in ROBOTS:
        kept = ', '.join(f'{name} {version}' for name, version in robot.brings.items())
        print(f'  {robot.name} ({robot.machine}, Python {robot.python}): {kept}, '
              f'OpenCV {robot.opencv}')
    print('\nNot checked:')
    for line in NOT_CHECKED:
        print(f'  {line}')
    if False in outcomes:
        return 1
    return 2 if None in outcomes else 0


def pip_problem() -> str:
    """Return why pip cannot be used here, or ''."""
    done = pip('--version')
    found = re.match(r'pip (\d+)\.(\d+)', done.stdout)
    if not found or tuple(map(int, found.groups())) < LEAST_PIP:
        return (f'pip 23.2 is needed, not {done.stdout.strip() or "none"}: '
                f'{sys.executable} -m pip install --upgrade pip')
    if not knows('pip'):
        return 'the package index cannot be reached'
    return ''


def check(robot: Robot, requirements: Sequence[Path]) -> Outcome:
    """Resolve requirements for a robot; nothing is installed."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        stand_ins = {name: stand_in_version(version) for name, version in robot.brings.items()}
        for package, version in stand_ins.items():
            write_empty_wheel(scratch, package, version)
        write_empty_wheel(scratch, *FROM_SOURCE)
        constraints, report = scratch / 'robot.txt', scratch / 'report.json'
        constraints.write_text(
            ''.join(f'{package}=={version}\n' for package, version in stand_ins.items()))
        done = pip(
            'install', '--dry-run', '--report', report, '--target', scratch / 'target',
            '--find-links', scratch, '-c', constraints, *robot.options(),
            *(part for path in requirements for part in ('-r', path)), robot=robot)
        if done.returncode == 0:
            return judge(json.loads(report.read_text()), done.stdout, robot)
    return explain(done.stdout + done.stderr, robot)


def judge(report: Mapping[str, Any], said: str, robot: Robot) -> Outcome:
    """Return what a resolution fetches, and whether that leaves the robot's packages alone."""
    found = {
        re.sub('[-_.]+', '-', item['metadata']['name']).lower(): item['metadata']['version']
        for item in report['install']}
    wrong = [
        f'{name} {version} would replace {robot.brings[name]}' for name, version in found.items()
        if name in robot.brings and version != stand_in_version(robot.brings[name])]
    wrong += [
        f'{name} {version} would replace OpenCV {robot.opencv}'
        for name, version in found.items() if OPENCV.fullmatch(name)]
    if wrong:
        return Outcome(False, '; '.join(wrong))
    fetched = [name for name in found if name not in robot.brings]
    left_out = re.findall(r'Ignoring ([\w.-]+): markers', said)
    has = {line for line in left_out if not any(
        part in found for part in (line, line.removesuffix('-cpu'), f'{line}-cpu'))}
    without = f', without {", ".join(sorted(has))} (no wheel)' if has else ''
    torch = f', torch {found["torch"].removesuffix(MARK)}' if 'torch' in found else ''
    return Outcome(True, f'{len(fetched)} packages to fetch{torch}{without}')


def explain(said: str, robot: Robot) -> Outcome:
    """Say why a resolution failed: the index, a missing wheel, or a version of the robot's."""
    missing = re.search(r'No matching distribution found for ([\w.-]+)(.*)', said)
    conflict = re.search(r'The conflict is caused by:\n((?: {4}.*\n)+)', said)
    if conflict:
        lines = [line.strip() for line in conflict[1].splitlines()]
        replaced = [name for name in robot.brings if any(name in line for line in lines)]
        what = f'{" and ".join(replaced)} would be replaced' if replaced else 'nothing fits'
        return Outcome(False, f'{what}: {"; ".join(lines[:CONFLICT_LINES])}')
    if missing:
        package, rest = missing[1], missing[2]
        if package.lower() in robot.brings:
            return Outcome(False, f'{package}{rest} would replace {robot.brings[package.lower()]}')
        if knows(package):
            return Outcome(False, f'{package}{rest} has no wheel for this machine and Python')
        return Outcome(None, f'the index that is used here does not know {package}, or is away')
    return Outcome(None, said.strip().splitlines()[-1] if said.strip() else 'pip said nothing')


def knows(package: str) -> bool:
    """Say whether the index has anything of a package, be it for other machines alone."""
    done = pip('index', 'versions', '--pre', '-vv', package)
    return done.returncode == 0 or OTHER_MACHINE.search(done.stdout) is not None


def stand_in_version(version: str) -> str:
    return version if '+' in version else version + MARK


def write_empty_wheel(folder: Path, package: str, version: str) -> None:
    """Write a wheel that has a name and a version, and asks for nothing."""
    stem = f'{package.replace("-", "_")}-{version}'
    with zipfile.ZipFile(folder / f'{stem}-py3-none-any.whl', 'w') as wheel:
        info = f'{stem}.dist-info'
        wheel.writestr(
            f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n')
        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
        wheel.writestr(f'{info}/RECORD', '')


def pip(*arguments: str | Path, robot: Robot | None = None) -> subprocess.CompletedProcess[str]:
    """Run pip, as if it was on a robot where one is named."""
    markers = json.dumps(robot.markers() if robot else {})
    try:
        return subprocess.run(
            [sys.executable, '-c', FOREIGN_PIP, *map(str, arguments)], capture_output=True,
            text=True, timeout=PIP_TIMEOUT_S,
            env={**os.environ, 'MARKERS': markers, 'PIP_DISABLE_PIP_VERSION_CHECK': '1'})
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 1, '', f'no answer in {PIP_TIMEOUT_S} s')


if __name__ == '__main__':
    sys.exit(main())
