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

"""The set-up script, without installing anything: what it would do, and where."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import importlib.util
import os
from pathlib import Path
import socket
import subprocess
import sys
import sysconfig
from threading import Thread

from packaging.requirements import Requirement
import pytest


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Load the script with its `.venv` in an empty folder."""
    monkeypatch.delenv('ROS_WHEELS', raising=False)
    module = load(monkeypatch)
    venv = tmp_path / '.venv'
    for name, value in {
        'VENV': venv, 'PYTHON': venv / 'bin' / 'python', 'LOG': venv / 'setup.log',
        'STAMPS': venv / 'stamps',
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, value)
    return module


def load(monkeypatch):
    path = Path(__file__).parent.parent / 'bootstrap.py'
    spec = importlib.util.spec_from_file_location('bootstrap', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'bootstrap', module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sourced_ros(tmp_path, monkeypatch):
    """Return a function that makes a ROS 2 of fake modules look as if it was sourced."""
    packages, binaries = tmp_path / 'ros' / 'site-packages', tmp_path / 'ros' / 'bin'
    packages.mkdir(parents=True)
    binaries.mkdir()
    (binaries / 'python3').symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setenv('PATH', f'{binaries}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', str(packages))
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    monkeypatch.delenv('_ROS_WHEELS_BOOTSTRAP_COMPLETE', raising=False)

    def make(**modules: str) -> None:
        for name, content in modules.items():
            (packages / f'{name}.py').write_text(content)

    return make


def test_a_sourced_ros_is_used_instead_of_the_wheels(setup, sourced_ros):
    sourced_ros(rclpy='')
    interpreter = setup.find_interpreter()
    assert interpreter.ros_distro == 'jazzy'
    names = [step.name for step in setup.steps_for(interpreter, with_model=False)]
    assert names == ['venv', 'libraries', 'package']


def test_without_rclpy_ros_comes_from_wheels_though_ros_distro_is_set(setup, sourced_ros, capsys):
    sourced_ros(rclpy='raise ImportError')
    interpreter = setup.find_interpreter()
    assert interpreter.ros_distro is None
    assert 'python3 has no rclpy' in capsys.readouterr().out
    names = [step.name for step in setup.steps_for(interpreter, with_model=False)]
    assert names == ['venv', 'ros', 'tf2_msgs', 'pip_ros', 'libraries', 'package']


def test_wheels_of_another_distribution_have_a_virtual_environment_of_their_own(monkeypatch):
    monkeypatch.setenv('ROS_WHEELS', 'kilted')
    monkeypatch.setenv('ROS_DISTRO', 'kilted')
    setup = load(monkeypatch)
    assert setup.VENV == setup.ROOT / '.venv-kilted'
    steps = setup.steps_for(setup.find_interpreter(), with_model=False)
    assert 'ROS 2 Kilted from PyPI' in [step.title for step in steps]
    pinned = ''.join(path.read_text() for path in setup.ros_requirements())
    assert 'ros-kilted-rclpy==' in pinned and 'ros-jazzy' not in pinned


def test_wheels_that_there_are_not_are_refused(monkeypatch):
    monkeypatch.setenv('ROS_WHEELS', 'humble')
    setup = load(monkeypatch)
    with pytest.raises(setup.SetupError, match='no wheels of ROS 2 humble, only of jazzy and kil'):
        setup.find_interpreter()


def test_wheels_are_refused_beside_a_sourced_ros(sourced_ros, monkeypatch):
    sourced_ros(rclpy='')
    monkeypatch.setenv('ROS_WHEELS', 'kilted')
    setup = load(monkeypatch)
    with pytest.raises(setup.SetupError, match='a ROS 2 is sourced: leave it out'):
        setup.find_interpreter()


@pytest.mark.parametrize('distro', ['jazzy', 'kilted'])
def test_every_version_of_the_wheels_is_exact(setup, distro):
    for name in ('ros', distro):
        lines = (setup.PIP_ROS / f'requirements-{name}.txt').read_text().splitlines()
        assert all('==' in line for line in lines if not line.startswith('#'))


def test_beside_a_ros_the_environment_sees_its_packages_and_its_own_share(setup, sourced_ros):
    sourced_ros(rclpy='')
    interpreter = setup.find_interpreter()
    setup.make_venv(interpreter)
    assert 'include-system-site-packages = true' in (setup.VENV / 'pyvenv.cfg').read_text()
    show = 'import os, rclpy; print(os.environ["AMENT_PREFIX_PATH"])'
    environment = {**os.environ, 'AMENT_PREFIX_PATH': '/opt/ros/jazzy'}
    shown = subprocess.run(
        [setup.PYTHON, '-c', show], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == f'/opt/ros/jazzy{os.pathsep}{setup.VENV}'


def test_numpy_and_opencv_of_a_ros_stay_as_they_are(setup, sourced_ros, tmp_path, monkeypatch):
    sourced_ros(rclpy='', cv2='', torch='raise ImportError')
    for stem in ('numpy-1.21.5', 'PyYAML-5.4.1', 'cycler-0.11.0'):
        info = tmp_path / 'ros' / 'site-packages' / f'{stem}.dist-info'
        info.mkdir()
        name, version = stem.split('-')
        (info / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')
    setup.VENV.mkdir()
    monkeypatch.setattr(setup, 'PYTHON', os.path.realpath(sys.executable))
    (wanted,), options = setup.beside_system(setup.LIBRARIES_REQUIREMENTS)
    constraints = options[1].read_text().splitlines()
    assert {'numpy==1.21.5', 'pyyaml==5.4.1'} <= set(constraints)
    assert not any(line.startswith('cycler') for line in constraints)
    lines = wanted.read_text().splitlines()
    assert not any(line.startswith('opencv') for line in lines)
    assert any(line.startswith('torch>=') for line in lines)
    assert any(line.startswith('open3d') for line in lines)


@pytest.fixture
def libraries(setup, monkeypatch):
    """Return a function that gives pip's arguments of the step that brings torch."""
    monkeypatch.setattr(setup.platform, 'system', lambda: 'Linux')

    def arguments(*, gpu: bool, answers: bool) -> list[str]:
        given: list[str] = []
        monkeypatch.setattr(setup, 'has_nvidia_gpu', lambda: gpu)
        monkeypatch.setattr(setup, 'answers', lambda url: answers)
        monkeypatch.setattr(setup, 'pip', lambda *given_, **_: given.extend(map(str, given_)))
        setup.install_libraries(
            setup.Interpreter('python3', '3.12', None), setup.LIBRARIES_REQUIREMENTS, False)
        return given

    return arguments


def test_without_a_gpu_torch_comes_without_cuda(libraries, capsys):
    given = libraries(gpu=False, answers=True)
    assert given[given.index('--extra-index-url') + 1] == 'https://download.pytorch.org/whl/cpu'
    assert capsys.readouterr().out == ''


def test_where_the_builds_without_cuda_are_out_of_reach_that_is_said_and_the_index_is_used(
        libraries, capsys):
    assert '--extra-index-url' not in libraries(gpu=False, answers=False)
    assert 'download.pytorch.org/whl/cpu does not answer' in capsys.readouterr().out


def test_with_a_gpu_torch_is_the_default_build_and_nobody_is_asked(setup, libraries, monkeypatch):
    assert '--extra-index-url' not in libraries(gpu=True, answers=True)


def test_each_sign_of_an_nvidia_gpu_counts(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(setup.shutil, 'which', lambda tool: None)
    for name in setup.GPU_FILES:
        monkeypatch.setattr(setup.os.path, 'exists', lambda path, name=name: path == name)
        assert setup.has_nvidia_gpu()
    monkeypatch.setattr(setup.os.path, 'exists', lambda path: False)
    assert not setup.has_nvidia_gpu()
    monkeypatch.setattr(setup.shutil, 'which', lambda tool: f'/usr/lib/wsl/lib/{tool}')
    assert setup.has_nvidia_gpu()


@pytest.fixture
def server():
    """Serve one page, and an address that accepts and never answers."""
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == '/whl/cpu/torch/' else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Page) as serving, socket.create_server(
            ('127.0.0.1', 0)) as silent:
        Thread(target=serving.serve_forever, daemon=True).start()
        yield (f'http://127.0.0.1:{serving.server_port}',
               f'http://127.0.0.1:{silent.getsockname()[1]}')
        serving.shutdown()


def test_an_address_answers_or_is_given_up(setup, server, monkeypatch):
    serving, silent = server
    assert setup.answers(f'{serving}/whl/cpu/torch/')
    assert not setup.answers(f'{serving}/elsewhere/')
    monkeypatch.setattr(setup, 'CPU_INDEX_WAIT_S', 1)
    assert not setup.answers(f'{silent}/whl/cpu/torch/')
    assert not setup.answers('http://no-such-host.invalid/')


def test_the_versions_that_are_tested_fit_what_is_required(setup):
    tested: dict[str, list[str]] = {}
    for line in setup.TESTED.read_text().splitlines():
        if line and not line.startswith('#'):
            pinned = Requirement(line)
            (pin,) = pinned.specifier
            assert pin.operator == '==', line
            tested.setdefault(pinned.name, []).append(pin.version)
    for path in (*setup.LIBRARIES_REQUIREMENTS, setup.MODEL_REQUIREMENTS):
        for line in path.read_text().splitlines():
            if not line or line.startswith('#'):
                continue
            wanted = Requirement(line.partition('  #')[0])
            for version in tested.pop(wanted.name, ()):
                assert wanted.specifier.contains(version), line
    assert not tested


def test_a_python_that_is_too_old_or_new_is_named(setup, monkeypatch):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    monkeypatch.setattr(setup, 'probe', lambda name: ('/usr/bin/python3', '3.14'))
    with pytest.raises(setup.SetupError, match=r'needs Python 3\.10, 3\.11 or 3\.12'):
        setup.find_interpreter()


def test_missing_libraries_are_named_with_the_command_to_install_them(setup, monkeypatch):
    monkeypatch.setattr(setup, 'can_load', lambda library: library != 'libusb-1.0.so.0')
    monkeypatch.setattr(setup, 'can_sudo', lambda: False)
    monkeypatch.setattr(setup.os, 'geteuid', lambda: 1000)
    monkeypatch.setattr(setup.shutil, 'which', lambda tool: f'/usr/bin/{tool}')
    interpreter = setup.Interpreter(os.path.realpath(sys.executable), '3.11', None)
    with pytest.raises(setup.SetupError, match=r'sudo apt-get install .* libusb-1\.0-0$'):
        setup.install_system_libraries(interpreter)


def test_nothing_is_installed_where_nothing_is_missing(setup, monkeypatch):
    monkeypatch.setattr(setup, 'can_load', lambda library: True)
    monkeypatch.setattr(setup.subprocess, 'run', lambda *args, **kwargs: pytest.fail(str(args)))
    monkeypatch.setattr(setup, 'ask', lambda executable, code: 'yes')
    monkeypatch.setattr(setup.shutil, 'which', lambda tool: f'/usr/bin/{tool}')
    setup.install_system_libraries(setup.Interpreter('python3', '3.11', None))


def test_a_step_runs_once_and_again_when_its_inputs_change(setup):
    setup.STAMPS.mkdir(parents=True)
    runs: list[str] = []
    for inputs in ('a', 'a', 'b', 'b', 'a'):
        note = lambda interrupted, inputs=inputs: runs.append(inputs)  # noqa: E731
        setup.run_steps([setup.Step('ros', 'ROS', inputs, note)])
    assert runs == ['a', 'b', 'a']


def test_an_interrupted_step_runs_again_and_knows_it(setup):
    setup.STAMPS.mkdir(parents=True)
    runs: list[bool] = []

    def fail(interrupted: bool) -> None:
        raise setup.SetupError('no network')

    with pytest.raises(setup.SetupError):
        setup.run_steps([setup.Step('ros', 'ROS', 'a', fail)])
    for _ in range(2):
        setup.run_steps([setup.Step('ros', 'ROS', 'a', runs.append)])
    assert runs == [True]


def test_what_an_interrupted_installation_left_is_removed_and_written_again(setup, monkeypatch):
    packages = setup.VENV / 'lib' / 'python3.11' / 'site-packages'
    (packages / '~etuptools-65.dist-info').mkdir(parents=True)
    (packages / 'numpy').mkdir()
    commands: list[tuple] = []
    monkeypatch.setattr(setup, 'call', lambda *command: commands.append(command))
    setup.pip('numpy', interrupted=True)
    assert [path.name for path in packages.iterdir()] == ['numpy']
    assert '--ignore-installed' in commands[0]
    setup.pip('numpy')
    assert '--ignore-installed' not in commands[1]


def test_a_command_that_fails_shows_its_last_words_and_the_log(setup):
    setup.VENV.mkdir()
    with pytest.raises(setup.SetupError) as error:
        setup.call(sys.executable, '-c', 'print("no such wheel"); raise SystemExit(1)')
    assert 'no such wheel' in str(error.value)
    assert str(setup.LOG) in str(error.value)


def test_a_digest_changes_with_content_and_names_but_not_with_caches(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, 'ROOT', tmp_path)
    source = tmp_path / 'package' / 'module.py'
    source.parent.mkdir()
    source.write_text('a = 1')
    first = setup.digest([source.parent])
    cache = source.parent / '__pycache__' / 'module.pyc'
    cache.parent.mkdir()
    cache.write_text('compiled')
    assert setup.digest([source.parent]) == first
    source.write_text('a = 2')
    second = setup.digest([source.parent])
    source.rename(source.with_name('renamed.py'))
    assert len({first, second, setup.digest([source.parent])}) == 3


def test_paths_of_the_machine_that_made_the_wheels_are_mended(setup, monkeypatch):
    monkeypatch.setattr(setup, 'PYTHON', sys.executable)
    exported = setup.VENV / 'share' / 'std_msgs' / 'cmake' / 'export.cmake'
    exported.parent.mkdir(parents=True)
    exported.write_text(
        '"/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"'
    )
    setup.mend_cmake_paths()
    here = sysconfig.get_paths()
    numpy = f'{here["purelib"]}/numpy/_core/include'
    assert exported.read_text() == f'"{here["include"]};{numpy}"'
    assert Path(here['include'], 'Python.h').exists()


def test_the_gpu_kit_is_made_anew_of_a_copy_of_the_source_without_what_nobody_needs_there(
        setup, tmp_path, monkeypatch, capsys):
    source, kit = tmp_path / 'map-anything', tmp_path / '.gpu_kit'
    source.mkdir()
    (source / 'pyproject.toml').touch()
    (kit / 'old').mkdir(parents=True)
    monkeypatch.setattr(setup, 'GPU_KIT', kit)

    def pip(*arguments, **options):
        assert {'--no-deps', '--target', kit, 'uniception==0.1.7'} <= set(arguments)
        copy = Path(next(a for a in arguments if str(a).endswith('/mapanything')))
        assert copy != source and (copy / 'pyproject.toml').exists()
        for folder in ('bin', 'hydra/tests', 'mapanything/models'):
            (kit / folder).mkdir(parents=True)
        (kit / 'mapanything' / 'model.py').write_text('x' * 2_000_000)

    def call(*command):
        assert {'download', '--no-deps', '3.10', setup.GTSAM} <= set(command)
        (kit / 'gtsam-4.3a1-cp310.whl').touch()

    monkeypatch.setattr(setup, 'pip', pip)
    monkeypatch.setattr(setup, 'call', call)
    monkeypatch.setattr(setup, 'GPU_PYTHON', '3.10')
    setup.make_gpu_kit(str(source))
    assert sorted(path.name for path in kit.iterdir()) == [
        'gtsam-4.3a1-cp310.whl', 'hydra', 'mapanything']
    assert not list(kit.rglob('tests')) and not (source / 'build').exists()
    said = capsys.readouterr().out
    assert '2.0 MB' in said and 'PYTHONPATH=.gpu_kit python3 -m benchmarks.gpu' in said
