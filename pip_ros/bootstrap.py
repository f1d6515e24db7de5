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
Make `.venv` with all that mapanything_ros needs, and do nothing where it is there already.

Without a ROS 2 on the machine, ROS 2 Jazzy comes from PyPI wheels, tf2_msgs is generated, and
`pip_ros` supplies the rest; with ROS_WHEELS=kilted Kilted does, in `.venv-kilted`. Where a ROS 2
is sourced, `.venv` sees the packages of that one.
With `model` as argument MapAnything is installed as well: from MAPANYTHING_SRC, a folder or an
address that pip understands, else from its repository. With `gpu-kit` it goes, with what it needs
of pure Python and GTSAM's wheel for the Python GPU_PYTHON, into a folder to be carried to a GPU
machine without network.

Each step leaves a stamp with a hash of what it was made from and runs again when that changes. A
step that was interrupted installs over what it left behind. Only the standard library is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
import ctypes
from dataclasses import dataclass
import hashlib
import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = Path(__file__).resolve().parent.parent
PIP_ROS = ROOT / 'pip_ros'
# The distributions that PyPI has wheels of, and where they go.
WHEELS = {'jazzy': '.venv', 'kilted': '.venv-kilted'}
DISTRO = os.environ.get('ROS_WHEELS') or 'jazzy'
VENV = ROOT / WHEELS.get(DISTRO, '.venv')
PYTHON = VENV / 'bin' / 'python'
REQUIREMENTS = ROOT / 'requirements'
LIBRARIES_REQUIREMENTS = [
    REQUIREMENTS / f'{use}.txt' for use in ('system', 'node', 'colmap', 'offline', 'dev')]
MODEL_REQUIREMENTS = REQUIREMENTS / 'model.txt'
TESTED = REQUIREMENTS / 'tested.txt'
LOG = VENV / 'setup.log'
STAMPS = VENV / 'stamps'
RUNNING = 'running'

SUPPORTED = ('3.10', '3.11', '3.12')
# What the wheels load but do not carry, and the Debian packages that have it.
LIBRARIES = {
    'libEGL.so.1': 'libegl1',
    'libGL.so.1': 'libgl1',
    'libX11.so.6': 'libx11-6',
    'libgomp.so.1': 'libgomp1',
    'libudev.so.1': 'libudev1',
    'libusb-1.0.so.0': 'libusb-1.0-0',
}
# What tf2_msgs is built with; cmake comes from PyPI.
BUILD_TOOLS = {'c++': 'g++', 'make': 'make'}
# Requirements that a robot's own packages satisfy under another name or version.
PROVIDED_BY_SYSTEM = {
    'opencv-python-headless': 'cv2', 'torch': 'torch', 'torchvision': 'torchvision'}
# What a robot's own packages are built on, as pip calls it: it stays at the robot's version.
KEPT = (
    'matplotlib', 'numpy', 'pillow', 'pyyaml', 'scipy', 'torch', 'torchvision', 'tqdm',
    'transforms3d')
# Builds of torch without CUDA, a tenth of the size; and what shows an NVIDIA GPU.
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
CPU_INDEX_WAIT_S = 5
GPU_FILES = ('/dev/nvidiactl', '/proc/driver/nvidia', '/etc/nv_tegra_release')
# Version 1.1; it and uniception pin what does not fit ROS, and are installed without their pins.
MAPANYTHING = (
    'mapanything @ git+https://github.com/facebookresearch/map-anything@'
    'f7ebafb4d8349776705aaa686cf928988d1bd7f4')
UNICEPTION = 'uniception==0.1.7'
GPU_KIT = ROOT / '.gpu_kit'
# Of the needs of MapAnything's inference what is pure Python and not beside every torch; the
# newest for Python 3.10, since nobody knows which one is there.
PURE = (
    'antlr4-python3-runtime==4.9.3', 'einops>=0.7,<1', 'hydra-core>=1.3,<2', 'jaxtyping==0.3.7',
    'omegaconf>=2.3,<3', 'tqdm', 'wadler-lindig==0.1.8')
# What the path is estimated with is compiled: for a PC with this Python, and unpacked only there,
# since it is three times as large then.
GPU_PYTHON = os.environ.get('GPU_PYTHON') or '3.12'
GTSAM = 'gtsam==4.3a1' if GPU_PYTHON == '3.10' else 'gtsam==4.3.0'
# May change their version when the model is installed.
NOT_CONSTRAINED = ('mapanything==', 'uniception==', 'torchvision==', 'pip==')
# What an old pip of a distribution needs to build this package as a wheel.
WHEEL_TOOLS = ['pip>=23', 'setuptools>=61,<80', 'wheel']
# Python finds the ament index, and so every package's share folder, without sourcing anything.
AMENT_PATH_HOOK = (
    "import os, sys; paths = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep); "
    'sys.prefix in paths or os.environ.update('
    'AMENT_PREFIX_PATH=os.pathsep.join(filter(None, [*paths, sys.prefix])))\n'
)


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Interpreter:
    """The Python that `.venv` is made from; `ros_distro` is set where it sees a sourced ROS 2."""

    executable: str
    version: str
    ros_distro: str | None


@dataclass(frozen=True)
class Step:
    """
    One part of the set-up.

    `inputs` is all that its result depends on. `run` gets whether an earlier try was interrupted.
    """

    name: str
    title: str
    inputs: str
    run: Callable[[bool], None]


def main() -> None:
    try:
        interpreter = find_interpreter()
        install_system_libraries(interpreter)
        with_model = 'model' in sys.argv[1:]
        run_steps(steps_for(interpreter, with_model))
        if 'gpu-kit' in sys.argv[1:]:
            make_gpu_kit(os.environ.get('MAPANYTHING_SRC') or MAPANYTHING)
    except SetupError as error:
        sys.exit(f'\nsetup: {error}')
    except KeyboardInterrupt:
        sys.exit('\nsetup: interrupted; the next call goes on from here')


# --- which Python -------------------------------------------------------------------------------


def find_interpreter() -> Interpreter:
    """Return the running Python if it fits, else the first on PATH that does."""
    if DISTRO not in WHEELS:
        raise SetupError(
            f'PyPI has no wheels of ROS 2 {DISTRO}, only of {" and ".join(WHEELS)}; where a ROS 2 '
            'is sourced, leave ROS_DISTRO out of the command')
    ros_distro = os.environ.get('ROS_DISTRO')
    if ros_distro:
        # The packages of a distribution are built for its own Python.
        executable, version = probe('python3')
        if ask(executable, 'import rclpy; print("yes")') == 'yes':
            if 'ROS_WHEELS' in os.environ:
                raise SetupError(
                    'ROS_DISTRO on the command line chooses wheels, but a ROS 2 is sourced: leave '
                    'it out, or use a shell without ROS')
            return Interpreter(executable, version, ros_distro)
        if 'ROS_WHEELS' not in os.environ:
            print(f'setup: ROS_DISTRO is {ros_distro}, but python3 has no rclpy; using PyPI')
    for name in [sys.executable, *(f'python{version}' for version in reversed(SUPPORTED))]:
        executable, version = probe(name)
        if version in SUPPORTED:
            return Interpreter(executable, version, None)
    raise SetupError(
        f'needs Python 3.10, 3.11 or 3.12, but python3 is {platform.python_version()} and PATH '
        'has no other. Install one, for example: sudo apt-get install python3.11 python3.11-venv'
    )


def probe(name: str) -> tuple[str, str]:
    """Return a Python's own path, beneath any virtual environment, and its version ('3.11')."""
    answer = ask(
        name,
        'import os, sys; print(os.path.realpath(sys.executable), "%d.%d" % sys.version_info[:2])',
    )
    executable, _, version = answer.rpartition(' ')
    return executable, version


def ask(executable: str, code: str) -> str:
    """Return what a line of Python prints, or '' where it fails."""
    try:
        done = subprocess.run(
            [executable, '-c', code], capture_output=True, text=True, env=clean_environment()
        )
    except OSError:
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''


# --- system libraries ---------------------------------------------------------------------------


def install_system_libraries(interpreter: Interpreter) -> None:
    """Install missing libraries through apt-get where that is allowed, else say how to."""
    packages = missing_packages(interpreter)
    if not packages:
        return
    install = ['apt-get', 'install', '-y', '--no-install-recommends', *packages]
    advice = f'install what is missing and try again: sudo {" ".join(install)}'
    if shutil.which('apt-get') is None:
        raise SetupError(f'missing system packages (Debian names): {" ".join(packages)}')
    prefix = [] if os.geteuid() == 0 else ['sudo', '-n']
    if prefix and not can_sudo():
        raise SetupError(advice)
    print(f'system libraries: {" ".join(packages)} ...', end='', flush=True)
    environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for command in (['apt-get', 'update'], install):
        done = subprocess.run(
            prefix + command, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != 0 and command is install:
            raise SetupError(f'apt-get failed:\n{tail(done.stdout)}\n{advice}')
    print(' done', flush=True)


def missing_packages(interpreter: Interpreter) -> list[str]:
    """Return the Debian packages to install; only for Linux is it known what the wheels load."""
    if platform.system() != 'Linux':
        return []
    packages = {package for library, package in LIBRARIES.items() if not can_load(library)}
    if interpreter.ros_distro is None:
        packages |= {package for tool, package in BUILD_TOOLS.items() if not shutil.which(tool)}
    if not ask(interpreter.executable, 'import ensurepip; print("yes")'):
        packages.add(f'python{interpreter.version}-venv')
    return sorted(packages)


def can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def can_sudo() -> bool:
    if shutil.which('sudo') is None:
        return False
    return subprocess.run(['sudo', '-n', 'true'], capture_output=True).returncode == 0


# --- steps --------------------------------------------------------------------------------------


def steps_for(interpreter: Interpreter, with_model: bool) -> list[Step]:
    venv = f'{interpreter} {ROOT}'
    ros = digest(ros_requirements())
    messages = digest([PIP_ROS / 'tf2_msgs'])
    requirements = LIBRARIES_REQUIREMENTS
    product = ['setup.py', 'setup.cfg', 'package.xml', 'resource', 'launch', 'config',
               'mapanything_ros']  # fmt: skip
    title = f'.venv with Python {interpreter.version}'
    if interpreter.ros_distro is not None:
        title += f' beside ROS 2 {interpreter.ros_distro}'
    steps = [Step('venv', title, venv, lambda interrupted: make_venv(interpreter))]
    if interpreter.ros_distro is None:
        steps += [
            Step('ros', f'ROS 2 {DISTRO.capitalize()} from PyPI', ros, install_ros),
            Step('tf2_msgs', 'tf2_msgs', ros + messages, build_tf2_msgs),
            Step('pip_ros', 'tf2_ros, sensor_msgs_py, tf_transformations',
                 digest([PIP_ROS / 'src', PIP_ROS / 'pyproject.toml']), install_pip_ros),
        ]  # fmt: skip
    steps += [
        Step('libraries', 'torch, GTSAM, Open3D, pycolmap, OpenCV and tools',
             digest([*requirements, TESTED]),
             lambda interrupted: install_libraries(interpreter, requirements, interrupted)),
        Step('package', 'mapanything_ros',
             digest(ROOT / name for name in product), install_package),
    ]  # fmt: skip
    if with_model:
        source = os.environ.get('MAPANYTHING_SRC') or MAPANYTHING
        steps.append(Step(
            'model', 'MapAnything, torchvision, timm and tools', model_inputs(source),
            lambda interrupted: install_model(interpreter, source, interrupted)))
    return steps


def run_steps(steps: list[Step]) -> None:
    """Run the steps whose inputs have changed, with a line for each."""
    for number, step in enumerate(steps, 1):
        stamp = STAMPS / step.name
        found = stamp.read_text() if stamp.exists() else ''
        if found == step.inputs:
            continue
        print(f'[{number}/{len(steps)}] {step.title} ...', end='', flush=True)
        start = time.monotonic()
        if step.name != 'venv':  # that one starts from an empty folder
            stamp.write_text(RUNNING)
        step.run(found == RUNNING)
        STAMPS.mkdir(exist_ok=True)
        stamp.write_text(step.inputs)
        print(f' {time.monotonic() - start:.0f} s', flush=True)


def make_venv(interpreter: Interpreter) -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    options = ['--system-site-packages'] if interpreter.ros_distro is not None else []
    command = [interpreter.executable, '-m', 'venv', *options, str(VENV)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if done.returncode != 0:
        raise SetupError(f'cannot make {VENV}:\n{tail(done.stdout + done.stderr)}')
    site_packages(interpreter).joinpath('mapanything_ros_ament.pth').write_text(AMENT_PATH_HOOK)


def ros_requirements() -> list[Path]:
    return [PIP_ROS / 'requirements-ros.txt', PIP_ROS / f'requirements-{DISTRO}.txt']


def install_ros(interrupted: bool) -> None:
    pip(*(part for path in ros_requirements() for part in ('-r', path)), interrupted=interrupted)


def build_tf2_msgs(interrupted: bool) -> None:
    """Generate and build the one message package that the wheels lack, into `.venv`."""
    mend_cmake_paths()
    build = VENV / 'build' / 'tf2_msgs'
    shutil.rmtree(build, ignore_errors=True)
    cmake = VENV / 'bin' / 'cmake'
    environment = {'AMENT_PREFIX_PATH': str(VENV), 'CMAKE_PREFIX_PATH': str(VENV)}
    call(
        cmake, '-S', PIP_ROS / 'tf2_msgs', '-B', build, f'-DCMAKE_INSTALL_PREFIX={VENV}',
        f'-DPython3_EXECUTABLE={PYTHON}', '-DCMAKE_BUILD_TYPE=Release', '-DBUILD_TESTING=OFF',
        **environment,
    )  # fmt: skip
    call(cmake, '--build', build, '--parallel', '2', **environment)
    call(cmake, '--install', build, **environment)


def mend_cmake_paths() -> None:
    """Replace the paths of the machine that made the wheels by the ones of this machine."""
    code = 'import sysconfig as s; p = s.get_paths(); print(p["include"]); print(p["purelib"])'
    include, packages = ask(str(PYTHON), code).splitlines()
    made_at = re.compile(
        r'/opt/python/cp\d+-cp\d+/(?:(include/python3\.\d+)|lib/python3\.\d+/site-packages)'
    )
    for path in (VENV / 'share').rglob('*.cmake'):
        text = path.read_text()
        mended = made_at.sub(lambda match: include if match[1] else packages, text)
        if mended != text:
            path.write_text(mended)


def install_pip_ros(interrupted: bool) -> None:
    pip('transforms3d==0.4.2', interrupted=interrupted)
    install_folder(PIP_ROS)


def install_libraries(
    interpreter: Interpreter, requirements: list[Path], interrupted: bool
) -> None:
    if interpreter.ros_distro is None:
        wanted, constraints = requirements, tested_versions()
    else:
        wanted, constraints = beside_system(requirements)
    arguments = [part for path in wanted for part in ('-r', path)]
    pip(*arguments, *constraints, *torch_index(), interrupted=interrupted)


def tested_versions() -> list[str | Path]:
    # What the messages were built with stays as it is.
    return ['-c', PIP_ROS / 'requirements-ros.txt', '-c', TESTED]


def torch_index() -> list[str]:
    """Return pip's options for a torch without CUDA, where CUDA is of no use and that answers."""
    if platform.system() != 'Linux' or has_nvidia_gpu():
        return []
    if not answers(f'{CPU_INDEX}/torch/'):
        print(f'\n  {CPU_INDEX} does not answer: torch comes from the plain index, which may '
              'bring gigabytes of CUDA ...', end='', flush=True)
        return []
    return ['--extra-index-url', CPU_INDEX]


def has_nvidia_gpu() -> bool:
    return any(map(os.path.exists, GPU_FILES)) or shutil.which('nvidia-smi') is not None


def answers(url: str) -> bool:
    """Say whether an address can be read; in a process, as looking up a name knows no limit."""
    code = f'from urllib.request import urlopen; urlopen({url!r}, timeout={CPU_INDEX_WAIT_S})'
    try:
        done = subprocess.run(
            [sys.executable, '-c', code], capture_output=True, timeout=CPU_INDEX_WAIT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def model_inputs(source: str) -> str:
    """Return what the installed model depends on; of a source folder that is its contents."""
    hashed = hashlib.sha256(source.encode())
    folder = Path(source)
    for file in sorted(folder.rglob('*.py')) if folder.is_dir() else []:
        hashed.update(file.read_bytes())
    return f'{UNICEPTION} {hashed.hexdigest()} {digest([MODEL_REQUIREMENTS, TESTED])}'


def install_model(interpreter: Interpreter, source: str, interrupted: bool) -> None:
    """Install what inference needs, and no more; nothing that is there changes its version."""
    if interpreter.ros_distro is None:
        wanted, constraints = [MODEL_REQUIREMENTS], tested_versions()
    else:
        wanted, constraints = beside_system([MODEL_REQUIREMENTS])
    pip('-r', wanted[0], *constraints, '-c', installed_versions(), *torch_index(),
        interrupted=interrupted)
    with source_to_build(source) as mapanything:
        pip('--no-deps', UNICEPTION, mapanything, interrupted=interrupted)


@contextmanager
def source_to_build(source: str) -> Iterator[str]:
    """Give a copy of a source folder, since the build writes into it, or an address as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        if Path(source).is_dir():
            yield str(shutil.copytree(source, Path(scratch) / 'mapanything', symlinks=True))
        else:
            yield source


def make_gpu_kit(source: str) -> None:
    """Make .gpu_kit anew: MapAnything and what of its needs a machine with torch may lack."""
    shutil.rmtree(GPU_KIT, ignore_errors=True)
    with source_to_build(source) as mapanything:
        pip('--no-deps', '--no-compile', '--target', GPU_KIT, UNICEPTION, mapanything, *PURE)
    for folder in (GPU_KIT / 'bin', *GPU_KIT.rglob('tests'), *GPU_KIT.rglob('__pycache__')):
        shutil.rmtree(folder, ignore_errors=True)
    call(PYTHON, '-m', 'pip', 'download', '--no-deps', '--dest', GPU_KIT, '--only-binary', ':all:',
         '--python-version', GPU_PYTHON, '--platform', 'manylinux_2_28_x86_64',
         '--platform', 'manylinux2014_x86_64', GTSAM)
    size = sum(file.stat().st_size for file in GPU_KIT.rglob('*') if file.is_file())
    print(f'{GPU_KIT}: {size / 1e6:.1f} MB; on the GPU machine, in this folder:\n'
          f'    python3 -m zipfile -e .gpu_kit/gtsam*.whl .gpu_kit    # Python {GPU_PYTHON}\n'
          '    PYTHONPATH=.gpu_kit python3 -m benchmarks.gpu')


def installed_versions() -> Path:
    """Write down what is in `.venv` as constraints, and return where."""
    path = VENV / 'installed.txt'
    frozen = ask(str(PYTHON), (
        'from importlib.metadata import distributions\n'
        'for d in distributions(): print(d.name + "==" + d.version)'))
    path.write_text('\n'.join(sorted(
        line for line in frozen.splitlines() if not line.startswith(NOT_CONSTRAINED))) + '\n')
    return path


def beside_system(requirements: list[Path]) -> tuple[list[Path], list[str | Path]]:
    """Write requirements without what the robot has, and its versions as pip's constraints."""
    provided = {
        name for name, module in PROVIDED_BY_SYSTEM.items()
        if ask(str(PYTHON), f'import {module}; print("yes")') == 'yes'
    }  # fmt: skip
    wanted = VENV / 'requirements.txt'
    lines = [line for path in requirements for line in path.read_text().splitlines()]
    others = [line for line in lines if re.split(r'[=<>;\s]', line)[0] not in provided]
    wanted.write_text('\n'.join(WHEEL_TOOLS + others))
    constraints = VENV / 'constraints.txt'
    constraints.write_text(ask(str(PYTHON), (
        'from importlib.metadata import PackageNotFoundError, version\n'
        f'for name in {KEPT}:\n'
        '    try: print(name + "==" + version(name))\n'
        '    except PackageNotFoundError: pass')) + '\n')
    return [wanted], ['-c', constraints]


def install_package(interrupted: bool) -> None:
    install_folder(ROOT)


def install_folder(folder: Path) -> None:
    # What setuptools left of an earlier build holds modules that are gone by now.
    shutil.rmtree(folder / 'build' / 'lib', ignore_errors=True)
    pip('--no-deps', '--no-build-isolation', '--force-reinstall', folder)
    shutil.rmtree(folder / 'build' / 'lib', ignore_errors=True)


# --- running things -----------------------------------------------------------------------------


def pip(*arguments: str | Path, interrupted: bool = False) -> None:
    again = []
    if interrupted:
        # A package that was cut off looks installed to pip, so it is written once more; one that
        # was half removed lies about under a name with a tilde.
        again = ['--ignore-installed']
        for remnant in VENV.glob('lib/python*/site-packages/~*'):
            shutil.rmtree(remnant)
    call(PYTHON, '-m', 'pip', 'install', '--disable-pip-version-check', *again, *arguments)


def call(*command: str | Path, **environment: str) -> None:
    """Run a command with its output in the log; on failure show the log's end."""
    # The generators of tf2_msgs are found on PATH.
    path = f'{PYTHON.parent}{os.pathsep}{os.environ.get("PATH", "")}'
    with LOG.open('a') as log:
        log.write(f'\n$ {" ".join(map(str, command))}\n')
        log.flush()
        begin = log.tell()
        done = subprocess.run(
            list(map(str, command)), stdout=log, stderr=subprocess.STDOUT,
            env={**clean_environment(), 'PATH': path, **environment}, cwd=VENV,
        )  # fmt: skip
    if done.returncode != 0:
        output = LOG.read_bytes()[begin:].decode(errors='replace')
        raise SetupError(f'failed:\n{tail(output)}\nThe whole log: {LOG}')


def clean_environment() -> dict[str, str]:
    """Return the environment without what another virtual environment left in it."""
    environment = dict(os.environ)
    if environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None):
        environment.pop('LD_LIBRARY_PATH', None)
        environment.pop('AMENT_PREFIX_PATH', None)
    return environment


def tail(text: str, lines: int = 15) -> str:
    return '\n'.join(text.strip().splitlines()[-lines:])


def site_packages(interpreter: Interpreter) -> Path:
    return VENV / 'lib' / f'python{interpreter.version}' / 'site-packages'


def digest(paths: Iterable[Path]) -> str:
    """Return a hash of the names and contents of files and of all files in folders."""
    hashed = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob('*')) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and '__pycache__' not in file.parts and 'egg-info' not in str(file):
                hashed.update(f'{file.relative_to(ROOT)}\0'.encode())
                hashed.update(file.read_bytes())
    return hashed.hexdigest()


if __name__ == '__main__':
    main()
