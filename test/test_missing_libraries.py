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

"""What is not there costs only what needs it, and is a sentence that says what to do."""

from collections.abc import Iterable
from importlib.metadata import distribution, PackageNotFoundError, packages_distributions
from pathlib import Path
import subprocess
import sys

from helpers import ExactBackend
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.config import ColmapConfig, Config, LoopClosureConfig
from mapanything_ros.core.errors import MissingLibraryError
from mapanything_ros.core.reconstructor import Reconstructor
from mapanything_ros.offline.export.formats import check_formats

ROOT = Path(__file__).parent.parent
# Of requirements/system.txt the node needs these; the rest are the offline tools' and the model's.
OF_THE_NODE = {'numpy', 'opencv-python-headless', 'pyyaml', 'scipy'}


def required(*names: str) -> set[str]:
    """Return the packages that files of requirements name."""
    lines = [line for name in names
             for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()]
    return {canonicalize_name(Requirement(line.partition('  #')[0]).name)
            for line in lines if line and not line.startswith('#')}


def with_all_they_need(names: Iterable[str]) -> set[str]:
    """Return installed packages with all that those need in turn."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        try:
            requires = () if name in found else distribution(name).requires or ()
        except PackageNotFoundError:
            continue
        found.add(name)
        waiting += [
            wanted.name for wanted in map(Requirement, requires)
            if wanted.marker is None or wanted.marker.evaluate({'extra': ''})]
    return found


def test_the_node_loads_where_there_is_nothing_but_its_own_requirements():
    own = with_all_they_need(required('node') | OF_THE_NODE)
    others = with_all_they_need(
        required('system', 'colmap', 'offline', 'model', 'dev') - OF_THE_NODE) - own
    hidden = sorted(
        module for module, owners in packages_distributions().items()
        if {canonicalize_name(owner) for owner in owners} <= others)
    assert {'open3d', 'pycolmap', 'matplotlib', 'plotly', 'laspy', 'rosbags', 'tqdm', 'PIL'} <= {
        *hidden}
    code = (f'import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n'
            'import mapanything_ros.ros.node')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name, library, requirements', [
    *((name, library, 'node') for name in ('mapanything_node', 'reconstruct')
      for library in ('torch', 'gtsam')),
    *((name, library, 'offline') for name in ('demo', 'evaluate', 'reconstruct', 'sample')
      for library in ('open3d', 'rosbags'))])
def test_an_executable_says_what_is_missing_and_how_to_get_it(name, library, requirements):
    code = (f'import sys; sys.modules[{library!r}] = None\n'
            f'from mapanything_ros.cli import commands; sys.exit(commands.{name}())')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'{name} needs {library}, which {sys.executable} does not have: ')
    assert f'pip install -r requirements/{requirements}.txt' in line
    assert (ROOT / 'requirements' / f'{requirements}.txt').is_file()


def test_the_colmap_backend_names_pycolmap(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycolmap', None)
    with pytest.raises(MissingLibraryError, match=(
            r"backend 'colmap' needs pycolmap, .*requirements/colmap\.txt")):
        create_backend(Config(backend='colmap', device='cpu', colmap=ColmapConfig()))


def test_the_node_closes_loops_without_open3d(monkeypatch):
    monkeypatch.setitem(sys.modules, 'open3d', None)
    config = Config(device='cpu', loop_closure=LoopClosureConfig(enabled=True))
    assert 'loop_corrections' in Reconstructor(config, ExactBackend()).statistics()


@pytest.mark.parametrize('name, library', [('colmap', 'pycolmap'), ('laz', 'lazrs')])
def test_a_format_that_cannot_be_written_is_refused_before_the_work(monkeypatch, name, library):
    monkeypatch.setitem(sys.modules, library, None)
    check_formats(['pcd', 'xyz'])
    with pytest.raises(MissingLibraryError, match=f'the format {name} needs {library}'):
        check_formats(['pcd', name])
