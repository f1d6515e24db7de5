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

"""Whether a recipe's check tells what is wrong, against an index of a few tiny wheels."""

import importlib.util
import os
from pathlib import Path
import re
import sys
import zipfile

import pytest

ROOT = Path(__file__).parents[2]
LINUX = 'cp310-cp310-manylinux_2_28'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'check_install', ROOT / 'pip_ros' / 'check_install.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['check_install'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['check_install']


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Return a function that puts wheels, by project, into an index that pip uses alone."""
    simple = tmp_path / 'simple'
    for name in [name for name in os.environ if name.startswith('PIP_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    monkeypatch.setenv('PIP_INDEX_URL', simple.as_uri())
    monkeypatch.setenv('PIP_NO_CACHE_DIR', '1')

    def add(project: str, version: str, tag: str = 'py3-none-any', requires: str = '') -> None:
        folder = simple / project
        folder.mkdir(parents=True, exist_ok=True)
        stem = f'{project.replace("-", "_")}-{version}'
        with zipfile.ZipFile(folder / f'{stem}-{tag}.whl', 'w') as wheel:
            wanted = f'Requires-Dist: {requires}\n' if requires else ''
            info = f'{stem}.dist-info'
            wheel.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {project}\n'
                                               f'Version: {version}\n{wanted}')
            wheel.writestr(f'{info}/WHEEL', f'Wheel-Version: 1.0\nTag: {tag}\n')
            wheel.writestr(f'{info}/RECORD', '')
        (folder / 'index.html').write_text(''.join(
            f'<a href="{file.name}">{file.name}</a>' for file in folder.glob('*.whl')))

    add('pip', '99.0')
    return add


@pytest.fixture
def check(tool, tmp_path):
    """Return a function that checks requirements for a robot with numpy 1.21.5 on Python 3.10."""
    def run(*lines: str, machine: str = 'x86_64', brings: dict | None = None):
        path = tmp_path / 'requirements.txt'
        path.write_text('\n'.join(lines))
        robot = tool.Robot(
            'test', machine, '3.10', 35, brings or {'numpy': '1.21.5'}, opencv='4.5.4')
        return tool.check(robot, [path])

    return run


def test_what_fits_beside_the_robots_numpy_is_fetched_and_numpy_is_not(check, index):
    index('numpy', '2.2.6', f'{LINUX}_x86_64')
    index('torch', '2.6.0', f'{LINUX}_x86_64', 'numpy>=1.20')
    outcome = check('torch>=2.5', 'numpy')
    assert outcome.ok and outcome.text == '1 packages to fetch, torch 2.6.0'


def test_a_wheel_that_is_missing_for_a_machine_fails(check, index):
    index('pycolmap', '4.2.1', f'{LINUX}_x86_64')
    assert check('pycolmap>=4').ok
    outcome = check('pycolmap>=4', machine='aarch64')
    assert outcome.ok is False
    assert 'pycolmap>=4 has no wheel for this machine and Python' in outcome.text


@pytest.mark.parametrize('wanted', ['numpy>=1.23', 'torch'])
def test_a_package_of_the_robots_that_would_be_replaced_fails(check, index, wanted):
    index('numpy', '2.2.6', f'{LINUX}_x86_64')
    index('torch', '2.6.0', f'{LINUX}_x86_64', 'numpy>=1.23')
    outcome = check(wanted)
    assert outcome.ok is False
    assert outcome.text.startswith('numpy would be replaced: ')


def test_an_opencv_that_would_hide_the_distributions_fails(check, index):
    index('opencv-python-headless', '4.14.0.94', f'{LINUX}_x86_64')
    outcome = check('opencv-python-headless')
    assert outcome.ok is False
    assert outcome.text == 'opencv-python-headless 4.14.0.94 would replace OpenCV 4.5.4'


def test_a_jetsons_own_torch_stays_and_one_that_another_package_is_tied_to_is_refused(
        check, index):
    index('torch', '2.13.0', f'{LINUX}_aarch64')
    index('torchvision', '0.28.0', f'{LINUX}_aarch64', 'torch==2.13.0')
    jetson = {'numpy': '1.26.4', 'torch': '2.5.0a0+872d972e41.nv24.8'}
    kept = check('torch>=2.5.0a0', machine='aarch64', brings=jetson)
    assert kept.ok and kept.text == '0 packages to fetch, torch 2.5.0a0+872d972e41.nv24.8'
    assert check('torch>=2.5', machine='aarch64', brings=jetson).ok is False
    assert check('torchvision', machine='aarch64', brings=jetson).ok is False
    jetson['torchvision'] = '0.20.0a0'
    assert check('torchvision>=0.20.0a0', machine='aarch64', brings=jetson).ok


@pytest.mark.parametrize('machine', ['x86_64', 'aarch64'])
def test_markers_are_judged_by_the_robots_machine_not_by_this_one(check, index, machine):
    index('pycolmap', '4.2.1', f'{LINUX}_x86_64')
    index('old', '1.0')
    outcome = check(
        "pycolmap; platform_machine != 'aarch64'", "old; python_version < '3.11'", machine=machine)
    assert outcome.ok
    assert outcome.text == {
        'x86_64': '2 packages to fetch',
        'aarch64': '1 packages to fetch, without pycolmap (no wheel)'}[machine]


def test_what_the_index_does_not_know_is_not_called_a_missing_wheel(check, index):
    outcome = check('numpy', 'pycolmap')
    assert outcome.ok is None
    assert 'does not know pycolmap' in outcome.text


@pytest.fixture
def whole(tool, tmp_path, monkeypatch):
    """Return a function that runs the tool for one robot and one recipe, and its exit status."""
    monkeypatch.setattr(tool, 'REQUIREMENTS', tmp_path)
    monkeypatch.setattr(tool, 'RECIPES', {'node': ('node',)})
    monkeypatch.setattr(tool, 'ROBOTS', tool.ROBOTS[:1])

    def run(requirement: str) -> int:
        (tmp_path / 'node.txt').write_text(requirement)
        return tool.main()

    return run


def test_the_exit_status_tells_good_from_bad_from_unknown(whole, index, capsys):
    index('torch', '2.6.0', f'{LINUX}_x86_64')
    assert whole('torch>=2.5') == 0
    assert whole('torch>=3') == 1
    assert whole('pycolmap') == 2
    said = capsys.readouterr().out
    for outcome in ('ok: 1 packages', 'FAILS: torch>=3 has no wheel', 'NOT CHECKED: the index'):
        assert f'Humble              x86_64   node           {outcome}' in said
    assert 'numpy 1.21.5' in said and 'MapAnything and uniception' in said


def test_an_index_out_of_reach_checks_nothing_and_says_so(whole, index, monkeypatch, capsys):
    monkeypatch.setenv('PIP_INDEX_URL', 'http://127.0.0.1:9/simple')
    monkeypatch.setenv('PIP_RETRIES', '0')
    assert whole('torch') == 2
    said = capsys.readouterr()
    assert said.out == '' and 'nothing was checked: the package index cannot be' in said.err


def test_an_old_pip_is_refused_in_words(tool, monkeypatch):
    old = tool.subprocess.CompletedProcess([], 0, 'pip 22.0.2 from /usr/lib (python 3.10)', '')
    monkeypatch.setattr(tool, 'pip', lambda *arguments: old)
    assert 'pip 23.2 is needed, not pip 22.0.2' in tool.pip_problem()


def test_the_recipes_robots_and_set_up_name_the_same(tool):
    recipes = (ROOT / 'docs' / 'install.md').read_text()
    for robot in tool.ROBOTS:
        assert robot.name.partition(' ')[0].rstrip(',') in recipes
    used = {use for uses in tool.RECIPES.values() for use in uses}
    files = {path.stem for path in (ROOT / 'requirements').glob('*.txt')}
    assert files - used == {'dev', 'system', 'tested'}
    for use in used:
        assert f'requirements/{use}.txt' in recipes
    kept = set(re.search(r"grep -iE '\^\(([\w|]+)\)=='", recipes)[1].split('|'))
    bootstrap = (ROOT / 'pip_ros' / 'bootstrap.py').read_text()
    assert kept == set(re.findall(r"'(\w+)'", re.search(r'KEPT = \(([^)]*)\)', bootstrap)[1]))
    assert all(set(robot.brings) <= kept for robot in tool.ROBOTS)
    assert tool.FROM_SOURCE[0] not in kept
