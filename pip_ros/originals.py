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
Build the original packages that `pip_ros` stands in for, and test on them.

Takes a folder that holds checkouts of geometry2, common_interfaces, rcl_interfaces, launch,
launch_ros, ros2cli, tf_transformations and vision_opencv, of the distribution whose wheels are in
this virtual environment, and options for pytest. They are built with colcon, together with this
package, into `originals` in the environment, where they hide what `pip_ros` installed.
"""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(sys.prefix)
WORKSPACE = VENV / 'originals'
INSTALL = WORKSPACE / 'install'
SITE = Path(sysconfig.get_path('purelib')).relative_to(VENV)
FROM_PYPI = WORKSPACE / 'from_pypi'
# What `pip_ros` replaces, `ros2 launch`, and what of that the wheels lack.
PACKAGES = (
    'tf2', 'tf2_msgs', 'tf2_py', 'tf2_ros_py', 'sensor_msgs_py', 'tf_transformations',
    'composition_interfaces', 'launch', 'launch_xml', 'launch_yaml', 'launch_ros', 'ros2cli',
    'ros2pkg', 'ros2launch')
REQUIREMENTS = ('osrf_pycommon==2.0.2', 'psutil==7.2.2')
# The tests that speak with ROS.
TESTS = (
    'test/test_conversions.py', 'test/test_frames.py', 'test/test_launch.py',
    'test/test_node_*.py', 'test/test_ros2_launch.py', 'test/test_spinning.py',
    'test/test_stack_*.py', 'test/test_transforms.py', 'pip_ros/test/test_point_cloud2.py',
    'pip_ros/test/test_t*.py')


def main() -> int:
    if not sys.argv[1:] or not Path(sys.argv[1]).is_dir():
        sys.exit('test-ros: say where the sources are: make test-ros ROS_SRC=folder')
    folders = package_folders(Path(sys.argv[1]).resolve())
    missing = {*PACKAGES, 'cv_bridge'} - folders.keys()
    if missing:
        sys.exit(f'test-ros: {sys.argv[1]} has no sources of {", ".join(sorted(missing))}')
    WORKSPACE.mkdir(exist_ok=True)
    run(sys.executable, '-m', 'pip', 'install', '--quiet', '--upgrade', '--no-deps',
        '--target', FROM_PYPI, *REQUIREMENTS)
    run(VENV / 'bin' / 'colcon', 'build', '--merge-install', '--event-handlers',
        'console_stderr-', '--paths', ROOT, *(folders[name] for name in PACKAGES),
        '--cmake-args', *cmake_options())
    build_cv_bridge(folders['cv_bridge'])
    tests = [path for name in TESTS for path in sorted(ROOT.glob(name))]
    command = [sys.executable, '-m', 'pytest', '-rs', *map(str, tests), *sys.argv[2:]]
    return subprocess.run(command, cwd=ROOT, env=overlaid()).returncode


def package_folders(sources: Path) -> dict[str, Path]:
    """Return the folder of each package below a folder."""
    folders = {}
    for manifest in sources.rglob('package.xml'):
        name = ElementTree.parse(manifest).findtext('name')
        if name:
            folders[name.strip()] = manifest.parent
    return folders


def build_cv_bridge(source: Path) -> None:
    build = WORKSPACE / 'build' / 'cv_bridge'
    run('cmake', '-Wno-dev', '-S', ROOT / 'pip_ros' / 'cv_bridge', '-B', build,
        f'-DCV_BRIDGE={source}', f'-DPYTHON_PACKAGES={SITE}',
        f'-DCMAKE_INSTALL_PREFIX={INSTALL}', *cmake_options(),
        advice='cv_bridge needs OpenCV and Boost.Python for this Python: '
               'sudo apt-get install libopencv-dev libboost-python-dev')
    run('cmake', '--build', build)
    run('cmake', '--install', build)


def cmake_options() -> list[str]:
    return [f'-DPython3_EXECUTABLE={sys.executable}', '-DCMAKE_BUILD_TYPE=Release',
            '-DBUILD_TESTING=OFF']


def overlaid() -> dict[str, str]:
    """Return the environment in which the built packages come before those of the wheels."""
    environment = building()
    for name, paths in (
        ('PYTHONPATH', [INSTALL / SITE, FROM_PYPI]), ('LD_LIBRARY_PATH', [INSTALL / 'lib']),
        ('AMENT_PREFIX_PATH', [INSTALL]), ('PATH', [INSTALL / 'bin']),
    ):
        found = environment.get(name)
        environment[name] = os.pathsep.join([*map(str, paths), *([found] if found else [])])
    return environment


def building() -> dict[str, str]:
    """Return the environment in which the wheels are found."""
    return {
        **os.environ, 'AMENT_PREFIX_PATH': str(VENV), 'CMAKE_PREFIX_PATH': str(VENV),
        'PATH': f'{VENV / "bin"}{os.pathsep}{os.environ.get("PATH", "")}'}


def run(*command: str | Path, advice: str = '') -> None:
    done = subprocess.run(list(map(str, command)), cwd=WORKSPACE, env=building())
    if done.returncode != 0:
        sys.exit(f'test-ros: {command[0]} failed; {advice}')


if __name__ == '__main__':
    sys.exit(main())
