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

"""The GPU's benchmark: its checks judge as they say, and all of it runs, small, on a CPU."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
import subprocess
import sys

import pytest

from benchmarks.gpu.checks import Report

REPOSITORY = Path(__file__).parents[1]
# Nothing of these is on a GPU machine that knows torch and the kit alone.
ABSENT = (
    'rclpy', 'sensor_msgs', 'sensor_msgs_py', 'geometry_msgs', 'cv_bridge', 'tf2_ros', 'open3d',
    'pycolmap', 'matplotlib', 'plotly', 'rosbags', 'rerun', 'trimesh')
BLOCK = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {ABSENT}:
            raise ModuleNotFoundError(f'{{name}} is not on this machine')

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / 'out' / 'gpu.json', {'device': 'none'}, 8.0)


def written(tmp_path: Path) -> dict[str, object]:
    return json.loads((tmp_path / 'out' / 'gpu.json').read_text())


@pytest.mark.parametrize(('value', 'limit', 'least', 'holds'), [
    (1.0, 1.0, False, True), (1.1, 1.0, False, False), (1.0, 1.0, True, True),
    (0.9, 1.0, True, False), (math.nan, 1.0, False, False), (math.nan, 1.0, True, False),
    (5.0, None, False, None), (None, 1.0, False, None), (True, None, False, True),
    (False, None, False, False)])
def test_what_holds(report, tmp_path, value, limit, least, holds):
    report.add('a figure', value, 'ms', limit, least=least)
    (check,) = report.checks
    assert check.holds is holds
    assert report.conclude() == (1 if holds is False else 0)
    (found,) = written(tmp_path)['checks']
    assert found['name'] == 'a figure' and found['holds'] is holds


def test_a_group_that_breaks_fails_and_the_others_go_on(report, tmp_path, capsys):
    def broken() -> None:
        report.add('before', 1.0, '', 2.0)
        raise RuntimeError('CUDA error: out of luck')

    report.group('Luck', broken, 0)
    # What is there is on the disk, should the machine go now.
    names = [check['name'] for check in written(tmp_path)['checks']]
    assert names == ['before', 'Luck: to its end']
    report.group('More', lambda: report.add('after', True), 0)
    assert [check.holds for check in report.checks] == [True, False, True]
    assert 'RuntimeError: CUDA error: out of luck' in report.checks[1].note
    assert report.conclude() == 1
    said = capsys.readouterr().out
    assert '2 hold, 1 fail' in said and 'FAILS' in said


def test_what_does_not_fit_into_the_time_is_left_out_and_said(tmp_path):
    report = Report(tmp_path / 'out' / 'gpu.json', {}, 0.5)
    report.group('Long', lambda: report.add('long', True), 40)
    report.group('Short', lambda: report.add('short', True), 10)
    left_out, short = report.checks
    assert left_out.name == 'Long: run at all' and left_out.holds is None
    assert 'it may take 40 s' in left_out.note and short.holds is True


@pytest.mark.real_model
def test_all_of_it_runs_on_a_cpu_without_ros_and_holds(tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(BLOCK)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    environment = {**os.environ, 'PYTHONPATH': path}
    for name in ABSENT:
        assert subprocess.run(
            [sys.executable, '-c', f'import {name}'], env=environment, stderr=subprocess.PIPE,
        ).returncode, name
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.gpu', '--device', 'cpu', '--network', 'tiny',
         '--output', str(tmp_path / 'out')],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=900, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = written(tmp_path)
    assert found['network'] == 'tiny' and found['torch'] and found['device']
    holding = {check['name'] for check in found['checks'] if check['holds']}
    assert len(holding) >= 30
    for name in (
            'raw outputs, 3 views, + K + depth + poses', 'masks alike, 3 views, images',
            'weights held in float32: difference', 'compile: difference',
            'all memory again: all views at once', 'a good construction after that',
            'a lost GPU: the process ends by itself'):
        assert name in holding, done.stdout
    assert {'milliseconds', 'official_infer_ms', 'seconds'} <= found['figures'].keys()


def test_without_a_gpu_it_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.gpu', '--output', str(tmp_path / 'out')],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=120,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 2 and 'finds no GPU here' in done.stderr
    assert 'Traceback' not in done.stderr and not (tmp_path / 'out').exists()
