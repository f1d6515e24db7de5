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

"""MapAnything's weights on this machine: where they are, and whether they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import json
import os
from pathlib import Path
import re
from typing import Any

from mapanything_ros.core.errors import BackendUnavailableError

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
NEEDED = [CONFIG, INDEX, '*.safetensors']
CARD = 'README.md'
PICKLES = ('.bin', '.pth', '.pt')
# The most that safetensors reads as a header.
MAX_HEADER_BYTES = 100_000_000

APACHE = 'facebook/map-anything-apache'
NON_COMMERCIAL = 'facebook/map-anything'
LIMITED = 'for non-commercial use alone'
# The first version of either computes 1.8 times less and takes half the memory.
V1 = '-v1'
LICENCES = {
    f'{name}{version}': licence
    for name, licence in (
        (APACHE, 'Apache-2.0'), (NON_COMMERCIAL, f'CC-BY-NC-4.0: {LIMITED}'))
    for version in ('', V1)}


@dataclass(frozen=True)
class Checkpoint:
    """A folder's ``config`` (the arguments of the model's class) and its safetensors files."""

    name: str
    folder: Path
    config: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Return the size of the weights."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def licence(self) -> str:
        """Return the licence of the weights, as far as the name or their model card tells."""
        return (
            LICENCES.get(self.name) or _licence_of_card(self.folder / CARD)
            or 'unknown: see where the weights came from')


def find_checkpoint(weights: str) -> Checkpoint:
    """
    Find weights in a folder, or by Hugging Face id in this machine's cache; never in the network.

    Raises BackendUnavailableError, with what to do, where they are missing or damaged.
    """
    with readable():
        folder = find_folder(weights)
        files = find_files(folder)
        for file in files:
            check_whole(file)
        return Checkpoint(weights, folder, read_config(folder), files)


@contextmanager
def readable() -> Iterator[None]:
    """Turn what the file system refuses into a BackendUnavailableError."""
    try:
        yield
    except OSError as error:
        raise BackendUnavailableError(
            f'{error.filename} cannot be read ({error.strerror}): give the user that runs this '
            'the right to read it, or copy the folder again') from error


def find_folder(weights: str) -> Path:
    """Return the folder of weights that are a folder or an id in this machine's cache."""
    folder = Path(os.path.expanduser(weights))
    return folder if folder.is_dir() else _cached(weights)


def _cached(name: str) -> Path:
    looks_like_id = name.count('/') == 1 and not name.startswith(('.', '/', '~'))
    if not looks_like_id:
        raise BackendUnavailableError(
            f'mapanything.weights is {name!r}, but there is no such folder; give a folder with '
            f'{CONFIG} and {WEIGHTS}, or an id such as {APACHE}')
    # Imported here: with a folder it is not needed.
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise BackendUnavailableError(
            f'{error}: install the model stack (make model), or give a folder') from error
    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=NEEDED))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise BackendUnavailableError(
            f'the weights {name} are neither a folder nor (whole) in the cache of this machine: '
            f'run `weights fetch {name}` on a machine with network, and copy its folder here if '
            'that is another one') from error


def find_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a folder, one or several, that are all there."""
    files = _shards(folder) if (folder / INDEX).is_file() else (folder / WEIGHTS,)
    missing = [file for file in files if not file.is_file()]
    if missing:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        hint = f' ({pickles[0]} can run code when it is read, and is not used)' if pickles else ''
        raise BackendUnavailableError(
            f'{", ".join(map(str, missing))} is missing{hint}: run `weights fetch`, or copy the '
            'whole folder')
    return files


def _shards(folder: Path) -> tuple[Path, ...]:
    names = _json(folder / INDEX).get('weight_map')
    if not (isinstance(names, dict) and names):
        raise BackendUnavailableError(
            f'{folder / INDEX} is damaged (it names no files): fetch it again')
    return tuple(sorted({folder / str(name) for name in names.values()}))


def read_config(folder: Path) -> dict[str, Any]:
    """Return the arguments of the model's class."""
    if not (folder / CONFIG).is_file():
        raise BackendUnavailableError(
            f'{folder / CONFIG} is missing: run `weights fetch`, or copy the whole folder')
    return _json(folder / CONFIG)


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise BackendUnavailableError(f'{path} is damaged ({error}): fetch it again') from error
    if not isinstance(values, dict):
        raise BackendUnavailableError(f'{path} is damaged (it is no object): fetch it again')
    return values


def check_whole(path: Path) -> dict[str, tuple[int, ...]]:
    """
    Return the shapes of a safetensors file's tensors by name, as its header has them.

    Raises BackendUnavailableError unless the file is as long as its header says.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise BackendUnavailableError(
                f'{path} is damaged ({size} bytes, and no safetensors header): fetch it again')
        header = file.read(length)
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != '__metadata__'}
        shapes = {name: tuple(map(int, tensor['shape'])) for name, tensor in tensors.items()}
        ends = [tensor['data_offsets'][1] for tensor in tensors.values()]
        expected = 8 + length + max(ends, default=0)
    except (
        ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError,
    ) as error:
        raise BackendUnavailableError(
            f'{path} is damaged (its header cannot be read): fetch it again') from error
    if size != expected:
        raise BackendUnavailableError(
            f'{path} is damaged ({size} bytes, {expected} expected): fetch it again')
    return shapes


def _licence_of_card(path: Path) -> str | None:
    """Return the licence that a model card names between its first two lines of dashes."""
    try:
        text = path.read_text(errors='replace')
    except OSError:
        return None
    header = text.split('---', 2)[1] if text.startswith('---') else ''
    found = re.search(r'^license:\s*(\S+)\s*$', header, re.MULTILINE)
    if found is None:
        return None
    name = found[1].strip('\'"')
    limited = f': {LIMITED}' if '-nc' in name.lower() else ''
    return f'{name}{limited} (as {CARD} has it)'
