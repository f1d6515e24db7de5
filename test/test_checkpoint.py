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

"""Weights that are missing or damaged: one sentence each, before anything is loaded."""

import json
import os
from pathlib import Path
import socket
import subprocess
import sys

from checkpoints import unavailable
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from mapanything_ros.core.backends.mapanything.checkpoint import (
    APACHE,
    check_whole,
    find_checkpoint,
    NON_COMMERCIAL,
)

HERE = Path(__file__).parent
CONFIG = {'name': 'mapanything', 'depth': 3}
SHARDS = ('model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors')
COMMIT = 'f' * 40


def write(folder: Path) -> Path:
    """Write a checkpoint of two small tensors; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(CONFIG))
    tensors = {'a': np.arange(6, dtype=np.float32), 'b': np.ones((2, 2), np.float32)}
    save_file(tensors, folder / 'model.safetensors')
    return folder


def with_header(header: object) -> bytes:
    """Return a safetensors file with this header and no data."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / 'weights')


@pytest.fixture
def sharded(folder) -> Path:
    (folder / 'model.safetensors').unlink()
    for number, name in enumerate(SHARDS):
        save_file({f'tensor{number}': np.zeros(number + 1, np.float32)}, folder / name)
    index = {'weight_map': {f'tensor{number}': name for number, name in enumerate(SHARDS)}}
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Give this machine an empty cache of the hub, and no network."""
    def refuse(*arguments: object) -> None:
        raise AssertionError(f'asked the network: {arguments}')

    for name in ('connect', 'connect_ex', 'sendto'):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    return tmp_path / 'hub'


def fetched(cache: Path, name: str) -> Path:
    """Write a checkpoint where the hub's client would have put it; return the snapshot."""
    repository = cache / f'models--{name.replace("/", "--")}'
    files, snapshot = write(repository / 'blobs'), repository / 'snapshots' / COMMIT
    snapshot.mkdir(parents=True)
    for file in files.iterdir():
        (snapshot / file.name).symlink_to(file)
    (repository / 'refs').mkdir()
    (repository / 'refs' / 'main').write_text(COMMIT)
    return snapshot


# Found


def test_a_folder_with_config_and_weights(folder):
    found = find_checkpoint(str(folder))
    assert found.folder == folder
    assert found.config == CONFIG
    assert found.files == (folder / 'model.safetensors',)
    assert found.size_bytes == (folder / 'model.safetensors').stat().st_size > 0


def test_a_folder_below_home(folder, monkeypatch):
    monkeypatch.setenv('HOME', str(folder.parent))
    assert find_checkpoint('~/weights').folder == folder


def test_shards_are_those_of_the_index(sharded):
    write(sharded / 'other').joinpath('model.safetensors').rename(sharded / 'unused.safetensors')
    found = find_checkpoint(str(sharded))
    assert found.files == tuple(sharded / name for name in SHARDS)
    assert found.size_bytes == sum((sharded / name).stat().st_size for name in SHARDS)


@pytest.mark.parametrize(('name', 'licence'), [
    (APACHE, 'Apache-2.0'), (NON_COMMERCIAL, 'non-commercial use alone')])
def test_an_id_in_the_cache_and_its_licence(cache, name, licence):
    snapshot = fetched(cache, name)
    found = find_checkpoint(name)
    assert (found.name, found.folder, found.config) == (name, snapshot, CONFIG)
    assert licence in found.licence


def test_the_licence_of_a_folder_is_not_guessed(folder):
    assert 'unknown' in find_checkpoint(str(folder)).licence


@pytest.mark.parametrize(('card', 'licence'), [
    ('---\nlicense: cc-by-nc-4.0\n---\n', 'cc-by-nc-4.0: for non-commercial use alone'),
    ('---\ntags: [3d]\nlicense: "apache-2.0"\n---\n# Map', 'apache-2.0 (as README.md has it)'),
    ('# Map\n---\nlicense: mit\n---\n', 'unknown'), ('---\nlicense:\n---\n', 'unknown')])
def test_the_licence_of_a_folder_is_that_of_its_model_card(folder, card, licence):
    (folder / 'README.md').write_text(card)
    assert licence in find_checkpoint(str(folder)).licence


def test_the_cache_is_where_hf_home_says(tmp_path):
    snapshot = fetched(tmp_path / 'hub', APACHE)
    code = (
        'from mapanything_ros.core.backends.mapanything import checkpoint\n'
        'print(checkpoint.find_checkpoint(checkpoint.APACHE).folder)')
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=HERE.parent, capture_output=True, text=True, check=True,
        env={**os.environ, 'HF_HOME': str(tmp_path), 'HF_HUB_CACHE': str(tmp_path / 'hub')})
    assert done.stdout.strip() == str(snapshot)


# Missing


@pytest.mark.parametrize('name', ['/nowhere/weights', '~nobody/weights', './weights', 'weights'])
def test_a_folder_that_is_not_there(name):
    with unavailable(name, 'no such folder', 'config.json and model.safetensors', APACHE):
        find_checkpoint(name)


@pytest.mark.parametrize('name', [APACHE, 'models/indoor', 'my models/indoor'])
def test_an_id_that_is_not_in_the_cache(cache, name):
    with unavailable(name, 'neither a folder nor', f'`weights fetch {name}`', 'copy its folder'):
        find_checkpoint(name)


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors'])
def test_an_id_that_is_in_the_cache_in_part(cache, name):
    fetched(cache, APACHE).joinpath(name).unlink()
    with unavailable(name, 'missing', 'weights fetch'):
        find_checkpoint(APACHE)


def test_a_download_that_was_cut_off_leaves_a_link_to_nothing(cache):
    fetched(cache, APACHE).joinpath('model.safetensors').resolve().unlink()
    with unavailable('model.safetensors is missing', 'weights fetch'):
        find_checkpoint(APACHE)


def test_an_empty_folder(tmp_path):
    with unavailable(f'{tmp_path}/model.safetensors is missing', 'copy the whole folder'):
        find_checkpoint(str(tmp_path))


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.pth', 'model.pt'])
def test_pickles_are_not_used(folder, name):
    (folder / 'model.safetensors').rename(folder / name)
    with unavailable('model.safetensors is missing', name, 'can run code', 'is not used'):
        find_checkpoint(str(folder))


def test_a_shard_that_is_missing(sharded):
    (sharded / SHARDS[1]).unlink()
    with unavailable(f'{SHARDS[1]} is missing', 'copy the whole folder'):
        find_checkpoint(str(sharded))


def test_a_config_that_is_missing(folder):
    (folder / 'config.json').unlink()
    with unavailable('config.json is missing', 'copy the whole folder'):
        find_checkpoint(str(folder))


# Damaged


@pytest.mark.parametrize(
    'content', [b'', b'{"name": ', b'\xff\xfe\x00', b'[1, 2]', b'null', 10**5 * b'['])
def test_a_config_that_is_damaged(folder, content):
    (folder / 'config.json').write_bytes(content)
    with unavailable('config.json is damaged', 'fetch it again'):
        find_checkpoint(str(folder))


@pytest.mark.parametrize(
    'content', ['{', '[]', '{}', '{"weight_map": {}}', '{"weight_map": ["a"]}'])
def test_an_index_that_is_damaged(sharded, content):
    (sharded / 'model.safetensors.index.json').write_text(content)
    with unavailable('index.json is damaged', 'fetch it again'):
        find_checkpoint(str(sharded))


@pytest.mark.parametrize('share', [0.0, 0.01, 0.3, 0.9, 0.999])
def test_weights_that_are_cut_off(folder, share):
    path = folder / 'model.safetensors'
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    with unavailable(f'{path} is damaged', f'{int(share * len(whole))} bytes', 'fetch it again'):
        find_checkpoint(str(folder))


def test_weights_with_something_behind_them(folder):
    path = folder / 'model.safetensors'
    whole = path.read_bytes()
    path.write_bytes(whole + b'\0')
    with unavailable(
            'damaged', f'{len(whole) + 1} bytes, {len(whole)} expected', 'fetch it again'):
        find_checkpoint(str(folder))


def test_every_shard_is_looked_at(sharded):
    path = sharded / SHARDS[1]
    path.write_bytes(path.read_bytes()[:-1])
    with unavailable(f'{path} is damaged'):
        find_checkpoint(str(sharded))


@pytest.mark.parametrize('content', [
    b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n',
    b'<!doctype html><title>404</title>',
    (5).to_bytes(8, 'little') + b'{"a":',
    (4).to_bytes(8, 'little') + b'\xff\xfe\xfd\xfc',
    (10**5).to_bytes(8, 'little') + 10**5 * b'[',
    with_header([]),
    with_header({'a': None}),
    with_header({'a': {'dtype': 'F32', 'shape': [1]}}),
    with_header({'a': {'data_offsets': []}}),
    with_header({'a': {'data_offsets': ['0', '4']}}),
    with_header({'a': {'data_offsets': [0, 4]}, 'b': {'data_offsets': [0, None]}}),
])
def test_weights_whose_header_is_damaged(folder, content):
    (folder / 'model.safetensors').write_bytes(content)
    with unavailable('model.safetensors is damaged', 'fetch it again'):
        find_checkpoint(str(folder))


def test_a_header_that_claims_gigabytes_is_not_read(folder):
    path = folder / 'model.safetensors'
    with path.open('r+b') as file:
        file.write((10**9).to_bytes(8, 'little'))
        file.truncate(2 * 10**9)
    with unavailable('no safetensors header', 'fetch it again'):
        check_whole(path)


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors'])
def test_a_file_that_may_not_be_read(folder, name, monkeypatch):
    """Root may read anything: the refusal is played."""
    open_path = Path.open

    def refuse(path, *arguments, **options):
        if path.name == name:
            raise PermissionError(13, 'Permission denied', str(path))
        return open_path(path, *arguments, **options)

    monkeypatch.setattr(Path, 'open', refuse)
    with unavailable(f'{folder / name} cannot be read', 'Permission denied', 'the right to'):
        find_checkpoint(str(folder))


def test_weights_without_tensors_are_whole(tmp_path):
    path = tmp_path / 'empty.safetensors'
    path.write_bytes(save({}))
    check_whole(path)
