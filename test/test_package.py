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

"""What is installed, and what package.xml says of it."""

import ast
from importlib.metadata import distribution
from pathlib import Path
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from ament_index_python.packages import get_package_share_directory
import pytest

ROOT = Path(__file__).parent.parent
# The key in package.xml for what is imported under another name.
KEYS = {
    'cv2': 'python3-opencv',
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'PIL': 'python3-pil',
    'scipy': 'python3-scipy',
    'tf2_ros': 'tf2_ros_py',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
}
# These have no key that a release may use, and come from requirements/.
FROM_PIP = {
    'gtsam', 'huggingface_hub', 'laspy', 'lazrs', 'open3d', 'plotly', 'pycolmap', 'rosbags',
    'torch'}
# These are extras of setup.py: what needs one says so where it is missing.
OPTIONAL = {'rerun': 'rerun-sdk'}


@pytest.fixture(scope='module')
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / 'package.xml').getroot()


def imported_packages() -> set[str]:
    """Return the top-level names that the product imports from others, at any place."""
    names: set[str] = set()
    for path in (ROOT / 'mapanything_ros').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.partition('.')[0])
    return names - set(sys.stdlib_module_names) - {'mapanything_ros', '__future__'}


def test_all_that_is_imported_is_declared(manifest):
    declared = {element.text for element in manifest.findall('depend')}
    required = ''.join(path.read_text() for path in (ROOT / 'requirements').glob('*.txt'))
    for name in imported_packages():
        if name in OPTIONAL:
            assert any(
                OPTIONAL[name] in line and 'extra ==' in line
                for line in distribution('mapanything_ros').requires or ()), name
        elif name in FROM_PIP:
            assert re.search(f'^{name}>=', required, re.MULTILINE), name
        else:
            assert KEYS.get(name, name) in declared, f'{name} is imported but not in package.xml'


def test_a_release_for_a_robot_without_a_screen_may_use_every_key(manifest):
    keys = {element.text for element in manifest.iter() if element.tag.endswith('depend')}
    assert not {key for key in keys if key.endswith('-pip')} and 'rviz2' not in keys


def test_all_files_say_the_same_version(manifest):
    version = manifest.findtext('version')
    assert distribution('mapanything_ros').version == version
    changelog = (ROOT / 'CHANGELOG.rst').read_text()
    assert 'Forthcoming' in changelog or version in changelog


def test_the_share_folder_holds_what_the_launch_files_name():
    share = Path(get_package_share_directory('mapanything_ros'))
    for name in ('package.xml', 'config/mapanything.yaml', 'config/mapanything.rviz',
                 'config/cameras/realsense.yaml',
                 'launch/mapanything.launch.py', 'launch/demo.launch.py'):  # fmt: skip
        assert (share / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_executables_take_the_python_of_the_environment_that_is_active(tmp_path):
    # As colcon does, which runs in the system's Python whatever is active.
    command = [
        sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', tmp_path,
        'build', '--build-base', tmp_path / 'build', 'install', '--root', tmp_path / 'root',
        '--single-version-externally-managed', '--record', tmp_path / 'record']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scripts = list((tmp_path / 'root').rglob('lib/mapanything_ros/*'))
    assert len(scripts) == 6
    assert {path.read_text().splitlines()[0] for path in scripts} == {'#!/usr/bin/env python3'}


def test_every_executable_has_a_function_behind_it():
    scripts = distribution('mapanything_ros').entry_points.select(group='console_scripts')
    assert {script.name for script in scripts} == {
        'mapanything_node', 'demo', 'evaluate', 'reconstruct', 'sample', 'weights'}
    for script in scripts:
        assert callable(script.load())
