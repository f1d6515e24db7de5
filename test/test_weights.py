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

"""The executable weights: what it fetches, what it says, and its exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import errno
import inspect
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from checkpoints import write_checkpoint
from hub import Hub, serving
import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError
import pytest
from safetensors.torch import load_file, save_file
import torch

from mapanything_ros.cli.weights import main
from mapanything_ros.core.backends.mapanything import readiness
from mapanything_ros.core.backends.mapanything.checkpoint import (
    APACHE,
    find_checkpoint,
    NON_COMMERCIAL,
)
from mapanything_ros.core.backends.mapanything.requirements import MODULES

HERE = Path(__file__).parent
CARD = '---\ntags:\n- 3d\nlicense: {}\n---\n# Weights\nlicense: mit\n'
GIB = 2 ** 30

Weights = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp('checkpoint'))
    (folder / 'README.md').write_text(CARD.format('apache-2.0'))
    return folder


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """Return a checkpoint that may be damaged."""
    return Path(shutil.copytree(checkpoint, tmp_path / 'weights'))


@pytest.fixture
def hub(checkpoint: Path, tmp_path: Path) -> Iterator[Hub]:
    for name in (APACHE, NON_COMMERCIAL):
        shutil.copytree(checkpoint, tmp_path / 'hub' / name)
        (tmp_path / 'hub' / name / 'pytorch_model.bin').write_bytes(b'may run code')
    with serving(tmp_path / 'hub') as served:
        yield served


@pytest.fixture
def weights(hub: Hub, tmp_path: Path, request: pytest.FixtureRequest) -> Weights:
    """Run the executable with the hub's own client, which knows only the hub of this test."""
    environment = {
        **os.environ, 'HF_ENDPOINT': hub.endpoint, 'HF_HOME': str(tmp_path / 'home'),
        'HF_HUB_CACHE': str(tmp_path / 'home' / 'hub'), 'HF_HUB_DISABLE_PROGRESS_BARS': '1'}
    code = "import runpy; runpy.run_module('mapanything_ros.cli.weights', run_name='__main__')"
    if not request.config.getoption('--real-model'):
        # As in conftest.
        environment['PYTHONPATH'] = str(HERE / 'fake_package')
        code = f'import sys; sys.path.append({str(HERE / "fake_modules")!r}); {code}'

    def run(
        *arguments: object, with_model: bool = True, **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        # Without the model stack it is faster.
        prepare = '' if with_model else "import sys; sys.modules['timm'] = None; "
        return subprocess.run(
            [sys.executable, '-c', prepare + code, *map(str, arguments)], cwd=HERE.parent,
            env={**environment, **variables}, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f'asked the network: {arguments}')

    for name in ('connect', 'connect_ex', 'sendto'):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


class Client:
    """Stands for the hub's client: takes what the real one takes, and fails as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
        self.failure: BaseException | None = None
        self.calls: list[dict[str, Any]] = []
        self.holds = checkpoint
        download = inspect.signature(huggingface_hub.snapshot_download)
        about = inspect.signature(huggingface_hub.HfApi.model_info)

        def snapshot_download(*arguments: Any, **options: Any) -> str:
            self.calls.append(dict(download.bind(*arguments, **options).arguments))
            if self.failure:
                raise self.failure
            target = self.calls[-1].get('local_dir')
            return str(shutil.copytree(self.holds, target, dirs_exist_ok=True))

        def model_info(*arguments: Any, **options: Any) -> huggingface_hub.ModelInfo:
            name = about.bind(*arguments, **options).arguments['repo_id']
            return huggingface_hub.ModelInfo(id=name, sha='c' * 40, siblings=[
                {'rfilename': file.name, 'size': file.stat().st_size}
                for file in self.holds.iterdir()])

        monkeypatch.setattr('huggingface_hub.snapshot_download', snapshot_download)
        monkeypatch.setattr('huggingface_hub.HfApi.model_info', model_info)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, no_network: None) -> Client:
    return Client(monkeypatch, checkpoint)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Play a GPU: its free memory, its generation and what its kernels raise can be set."""
    state: dict[str, Any] = {'free': 70 * GIB, 'capability': (9, 0), 'failure': None}
    on_cpu = torch.ones

    def ones(*size: int, device: Any = None, **options: Any) -> torch.Tensor:
        if device is not None and state['failure']:
            raise state['failure']
        return on_cpu(*size, **options)

    monkeypatch.setattr(torch, 'ones', ones)
    for name, function in {
        'is_available': lambda: True,
        'get_device_name': lambda device=None: 'NVIDIA Test 80GB',
        'get_device_properties': lambda device=None: SimpleNamespace(is_integrated=False),
        'get_device_capability': lambda device=None: state['capability'],
        'mem_get_info': lambda device=None: (state['free'], 80 * GIB),
        'reset_peak_memory_stats': lambda device=None: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return state


def lines(text: str) -> dict[str, tuple[str, str]]:
    """Return mark and text of each line of findings, by what it is about."""
    found = {}
    for line in text.splitlines():
        if line.startswith(('ok ', 'NOT OK ', 'skipped ')):
            found[line[8:17].strip()] = (line[:8].strip(), line[17:])
    return found


def shorten_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / 'model.safetensors')
    tensors['scale_token'] = tensors['scale_token'][:-1].clone()
    save_file(tensors, folder / 'model.safetensors')


def index_of(words: str, text: str) -> int:
    assert words in text, text
    return text.index(words)


# Fetch, from a hub


def test_what_is_fetched_into_the_cache_is_what_the_node_finds(weights, hub, checkpoint):
    fetched = weights('fetch')
    assert fetched.returncode == 0, fetched.stderr
    size = f'{(checkpoint / "model.safetensors").stat().st_size / 1e6:.1f} MB'
    said = [index_of(words, fetched.stdout) for words in (
        APACHE, 'Apache-2.0', size, 'is whole', 'Fetched to', f"to '{APACHE}'", 'rsync -rL',
        'Nothing else is needed')]
    assert said == sorted(said)
    assert hub.served() == {'config.json', 'model.safetensors', 'README.md'}
    hub.asked.clear()

    checked = weights('check', '--device', 'cpu')
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.splitlines()[-1].startswith('The node would start')
    assert lines(checked.stdout)['licence'] == ('ok', 'Apache-2.0')
    assert hub.asked == [], 'check is for machines without network'


def test_weights_that_were_damaged_are_fetched_again(weights, hub, tmp_path):
    assert weights('fetch', with_model=False).returncode == 0
    file = next((tmp_path / 'home').rglob('model.safetensors')).resolve()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    again = weights('fetch', with_model=False)
    assert again.returncode == 0, again.stderr
    assert 'not whole; fetching it once more' in again.stdout
    assert next((tmp_path / 'home').rglob('model.safetensors')).read_bytes() == whole


def test_a_folder_holds_files_that_can_be_carried(weights, tmp_path):
    place = tmp_path / 'to carry' / 'weights'
    done = weights('fetch', NON_COMMERCIAL, '--folder', place, with_model=False)
    assert done.returncode == 0, done.stderr
    assert index_of('non-commercial use alone', done.stdout) < done.stdout.index('Size')
    assert f"set mapanything.weights to '{place}'" in done.stdout
    assert f"rsync -rL '{place}/'" in done.stdout
    carried = Path(shutil.copytree(place, tmp_path / 'robot', symlinks=True))
    assert not any(file.is_symlink() for file in carried.iterdir())
    assert find_checkpoint(str(carried)).licence == 'apache-2.0 (as README.md has it)'


def test_weights_that_fit_no_model_are_an_error_and_not_fetched_twice(weights, hub):
    shorten_a_tensor(hub.root / APACHE)
    done = weights('fetch')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f'weights: {APACHE} was fetched but cannot be')
    assert 'do not fit their config.json' in done.stderr
    assert sum('GET' in path and 'model.safetensors' in path for path in hub.asked) == 1


@pytest.mark.parametrize(('refusal', 'words'), [
    ((401, 'RepoNotFound'), f'the hub has no {APACHE}: give {APACHE} or {NON_COMMERCIAL}'),
    ((403, 'GatedRepo'), f'ask for access at https://huggingface.co/{APACHE} and log in'),
    ((503, ''), 'the hub refuses (Server error'),
])
def test_what_the_hub_refuses_is_not_taken_from_a_folder(
        weights, hub, checkpoint, refusal, words):
    """The hub's client alone would hand out what the folder holds."""
    hub.refusals[APACHE] = refusal
    done = weights('fetch', '--folder', checkpoint)
    assert done.returncode == 1
    assert index_of('Licence: Apache-2.0', done.stdout) > 0
    assert done.stderr.startswith('weights: ')
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_an_id_that_is_none(weights):
    done = weights('fetch', './weights')
    assert done.returncode == 1
    assert done.stderr.startswith('weights: the hub has no ./weights: give')


def test_a_repository_that_is_no_mapanything(weights, hub):
    (hub.root / APACHE / 'model.safetensors').unlink()
    done = weights('fetch')
    assert done.returncode == 1
    assert f'{APACHE} has no config.json or no safetensors' in done.stderr
    assert hub.served() == set()


@pytest.mark.parametrize(('variables', 'words'), [
    ({'HF_ENDPOINT': 'http://127.0.0.1:9'}, 'run this again, on a machine with network'),
    ({'HF_HUB_OFFLINE': '1'}, 'HF_HUB_OFFLINE is set: unset it'),
])
def test_without_network_a_folder_does_not_pass_for_fetched(
        weights, checkpoint, variables, words):
    done = weights('fetch', '--folder', checkpoint, **variables)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


# Fetch, with failures that cannot be had from a hub


@pytest.mark.parametrize(('failure', 'words'), [
    (PermissionError(errno.EACCES, 'Permission denied', '/mnt/w'), "denied: '/mnt/w'): give"),
    (OSError(errno.EROFS, 'Read-only file system', '/mnt/w'), 'give --folder a place where'),
    (NotADirectoryError(errno.ENOTDIR, 'Not a directory', '/mnt/w'), 'cannot be written'),
    (OSError(errno.ENOSPC, 'No space left on device'), 'the disk is full: make room'),
    (RuntimeError('Data processing error: No space left on device (os error 28)'),
     'the disk is full: make room'),
    (LocalEntryNotFoundError('Got: ReadTimeout\nAn error happened'),
     'the hub cannot be reached (LocalEntryNotFoundError: Got: ReadTimeout): run this again'),
])
def test_a_download_that_fails(client, capsys, tmp_path, failure, words):
    client.failure = failure
    assert main(['fetch', '--folder', str(tmp_path / 'new')]) == 1
    error = capsys.readouterr().err
    assert error.startswith('weights: ')
    assert len(error.splitlines()) == 1
    assert words in error


def test_a_download_that_is_interrupted(client, capsys, tmp_path):
    client.failure = KeyboardInterrupt()
    assert main(['fetch', '--folder', str(tmp_path / 'new')]) == 130
    assert capsys.readouterr().err == 'weights: interrupted; the same command goes on from here\n'


def test_weights_that_stay_damaged_are_an_error(client, capsys, folder, tmp_path):
    file = folder / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:-1])
    client.holds = folder
    assert main(['fetch', '--folder', str(tmp_path / 'new')]) == 1
    assert [call['force_download'] for call in client.calls] == [False, True]
    assert 'cannot be used' in capsys.readouterr().err


def test_a_folder_that_is_a_file(client, capsys, tmp_path):
    (tmp_path / 'file').write_text('')
    assert main(['fetch', '--folder', str(tmp_path / 'file')]) == 1
    assert 'is a file: give --folder a folder' in capsys.readouterr().err
    assert client.calls == []


def test_fetching_takes_the_client_alone_not_the_model(client, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'timm', None)
    assert main(['fetch', '--folder', str(tmp_path / 'new')]) == 0
    found = lines(capsys.readouterr().out)
    assert found['file'][0] == 'ok'
    assert found['fit'][0] == 'skipped'


def test_fetching_without_the_client(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    assert main(['fetch']) == 1
    assert 'pip install huggingface_hub' in capsys.readouterr().err


# Check


@pytest.mark.model
def test_all_that_is_there_is_said_line_by_line(checkpoint, capsys, no_network):
    assert main(['check', str(checkpoint), '--device', 'cpu']) == 0
    captured = capsys.readouterr()
    found = lines(captured.out)
    assert list(found) == [
        'modules', 'package', 'weights', 'config', 'file', 'size', 'licence', 'fit', 'device']
    assert {mark for mark, _ in found.values()} == {'ok'}
    assert 'mapanything 1.1 in ' in found['package'][1]
    assert found['weights'][1] == str(checkpoint)
    assert found['licence'][1] == 'apache-2.0 (as README.md has it)'
    assert f'torch {torch.__version__}' in found['device'][1]
    assert captured.out.splitlines()[-1] == (
        f"The node would start: backend 'mapanything', device 'cpu', mapanything.weights "
        f"'{checkpoint}'.")
    assert captured.err == ''


@pytest.mark.model
def test_weights_of_another_shape(folder, capsys, no_network):
    shorten_a_tensor(folder)
    assert main(['check', str(folder), '--device', 'cpu']) == 1
    captured = capsys.readouterr()
    assert lines(captured.out)['fit'][0] == 'NOT OK'
    assert '1 of another shape (scale_token)' in lines(captured.out)['fit'][1]
    assert 'fetch them again' in captured.err.splitlines()[-1]


@pytest.mark.model
def test_the_weights_are_compared_without_being_read(folder, capsys):
    file = folder / 'model.safetensors'
    size = file.stat().st_size
    header = 8 + int.from_bytes(file.read_bytes()[:8], 'little')
    os.truncate(file, header)
    os.truncate(file, size)  # a hole
    assert main(['check', str(folder), '--device', 'cpu']) == 0
    assert lines(capsys.readouterr().out)['fit'][0] == 'ok'


def test_all_problems_are_said_at_once_and_the_first_is_next(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    (folder / 'config.json').write_text('{')
    file = folder / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:-1])
    assert main(['check', str(folder), '--device', 'cuda']) == 1
    captured = capsys.readouterr()
    found = lines(captured.out)
    assert {what for what, (mark, _) in found.items() if mark == 'NOT OK'} == {
        'modules', 'config', 'file', 'device'}
    assert found['fit'][0] == 'skipped'
    assert 'module timm is missing: install the model stack' in found['modules'][1]
    assert 'config.json is damaged' in found['config'][1]
    assert 'model.safetensors is damaged' in found['file'][1]
    assert "set device to 'cpu'" in found['device'][1]
    assert captured.err == (
        f'weights: the node would not start (4 problems); next: {found["modules"][1]}\n')


def test_weights_that_are_not_there(capsys, tmp_path):
    assert main(['check', str(tmp_path / 'none'), '--device', 'cpu']) == 1
    captured = capsys.readouterr()
    assert lines(captured.out)['weights'][0] == 'NOT OK'
    assert 'no such folder' in captured.err
    assert '(1 problem)' in captured.err


def test_a_folder_without_anything_names_both_files(capsys, tmp_path):
    assert main(['check', str(tmp_path), '--device', 'cpu']) == 1
    found = lines(capsys.readouterr().out)
    assert 'config.json is missing' in found['config'][1]
    assert 'model.safetensors is missing' in found['files'][1]


def test_a_package_that_cannot_be_imported(checkpoint, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mapanything.models', None)
    assert main(['check', str(checkpoint), '--device', 'cpu']) == 1
    found = lines(capsys.readouterr().out)
    assert found['package'][0] == 'NOT OK'
    assert 'mapanything cannot be imported' in found['package'][1]
    assert found['file'][0] == 'ok'
    assert found['fit'][0] == 'skipped'


def test_a_torch_that_cannot_be_imported(capsys, monkeypatch):
    def broken(name: str) -> object:
        raise OSError('libcudart.so.12: cannot open shared object file')

    monkeypatch.setattr(readiness.importlib, 'import_module', broken)
    assert main(['check', '/nowhere', '--device', 'cpu']) == 1
    found = lines(capsys.readouterr().out)
    for what in ('package', 'device'):
        assert found[what] == (
            'NOT OK', 'torch cannot be imported (libcudart.so.12: cannot open shared object '
            'file): install it again')


def test_a_machine_with_python_alone(checkpoint):
    """Nothing outside the standard library can be imported there."""
    code = 'from mapanything_ros.cli.weights import main; raise SystemExit(main({!r}))'

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, '-S', '-c', code.format(arguments)], cwd=HERE.parent,
            env={'PATH': os.environ['PATH']}, capture_output=True, text=True, timeout=60)

    assert run('--help').returncode == 0
    assert 'pip install huggingface_hub' in run('fetch').stderr
    checked = run('check', str(checkpoint))
    assert checked.returncode == 1
    for module in MODULES:
        assert f'the Python module {module} is missing' in checked.stdout
    assert f'({len(MODULES)} problems)' in checked.stderr
    found = lines(checked.stdout)
    assert found['file'][0] == 'ok'
    assert found['device'] == ('skipped', 'for that torch is needed')


# The GPU


def test_a_gpu_is_named_with_its_memory(gpu, checkpoint, capsys):
    assert main(['check', str(checkpoint)]) == 0
    assert lines(capsys.readouterr().out)['device'] == (
        'ok', f'NVIDIA Test 80GB, 70.0 of 80.0 GiB free, torch {torch.__version__}')


def test_a_gpu_without_room_for_the_weights(gpu, checkpoint, capsys):
    gpu['free'] = 1000
    assert main(['check', str(checkpoint)]) == 1
    text = lines(capsys.readouterr().out)['device'][1]
    assert 'NVIDIA Test 80GB, 0.0 of 80.0 GiB free) is too small for the weights' in text


def test_a_gpu_without_bf16_wants_another_parameter(gpu, checkpoint, capsys):
    gpu['capability'] = (7, 5)
    assert main(['check', str(checkpoint)]) == 0
    assert 'no bf16: set amp_dtype to fp16' in lines(capsys.readouterr().out)['device'][1]


def test_a_gpu_that_torch_was_not_built_for(gpu, checkpoint, capsys):
    gpu['failure'] = RuntimeError(
        'CUDA error: no kernel image is available for execution on the device\nCompile with')
    assert main(['check', str(checkpoint)]) == 1
    text = lines(capsys.readouterr().out)['device'][1]
    assert 'NVIDIA Test 80GB does not compute with torch' in text
    assert 'no kernel image is available for execution on the device)' in text
    assert 'install the build that fits' in text


# The licence


@pytest.mark.parametrize(('card', 'licence'), [
    (CARD.format('apache-2.0'), 'apache-2.0 (as README.md has it)'),
    (CARD.format('"cc-by-nc-4.0"'),
     'cc-by-nc-4.0: for non-commercial use alone (as README.md has it)'),
    ('# Weights\nlicense: mit\n', 'unknown: see where the weights came from'),
    ('---\ntags: [3d]\n---\nlicense: mit\n', 'unknown: see where the weights came from'),
    ('---\n', 'unknown: see where the weights came from'),
])
def test_the_licence_of_a_folder_is_that_of_its_card(folder, card, licence):
    (folder / 'README.md').write_text(card)
    assert find_checkpoint(str(folder)).licence == licence
