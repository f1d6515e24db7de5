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

"""The folder of results: made beside its place, and put there when it is whole."""

from __future__ import annotations

from collections.abc import Mapping
import fcntl
import json
import os
from pathlib import Path
import shutil
from typing import Any

from mapanything_ros.core.errors import ExportError

# What a folder of results always holds, written last.
SUMMARY = 'summary.json'
STATE = '.state'
KEY = 'key.json'


class ResultFolder:
    """
    Results for ``output``, gathered in the hidden folder ``work`` beside it.

    ``state`` in it is what a run that goes on needs; ``key`` says which recording and parameters
    that belongs to. A folder that exists is replaced by whole new results or not at all.
    """

    def __init__(
        self, output: Path, key: Mapping[str, Any], *, overwrite: bool, resume: bool,
    ) -> None:
        """Make ``work`` ready; raise ExportError, with what to do, where that must not be."""
        # A link stays; what it leads to is replaced.
        self.output = Path(os.path.realpath(output))
        if os.path.ismount(self.output):
            raise ExportError(
                f'{self.output} cannot be replaced by results, as a disk is mounted there: give a '
                'folder below it as --output')
        self.work = self.output.with_name(f'.{self.output.name}.part')
        self.state = self.work / STATE
        key = json.loads(json.dumps(key))
        try:
            self._check(overwrite, resume)
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            if resume:
                self._take_up(key)
            else:
                self._clear(keep_state=False)
            self.state.mkdir(exist_ok=True)
            (self.state / KEY).write_text(json.dumps(key))
        except OSError as error:
            raise ExportError(
                f'{self.output} cannot be written to: {error.strerror}') from error

    def finish(self, complete: bool) -> None:
        """Put ``work`` in the place of ``output``; raise ExportError where that fails."""
        old = self.output.with_name(f'.{self.output.name}.old')
        try:
            if complete:
                shutil.rmtree(self.state)
            shutil.rmtree(old, ignore_errors=True)
            if self.output.exists():
                self.output.rename(old)
            self.work.rename(self.output)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise ExportError(
                f'{self.output} could not be put in place: {error.strerror}; the results are in '
                f'{self.work}') from error
        finally:
            os.close(self._lock)

    def give_up(self) -> bool:
        """Remove what is half-written; return whether anything is left for another try."""
        windows = any(path.is_file() and path.name != KEY for path in self.state.rglob('*'))
        if windows:
            self._clear(keep_state=True)
        else:
            shutil.rmtree(self.work, ignore_errors=True)
        os.close(self._lock)
        return windows

    def _check(self, overwrite: bool, resume: bool) -> None:
        if self.output.exists() and not self.output.is_dir():
            raise ExportError(f'{self.output} is a file: choose another --output')
        filled = self.output.is_dir() and any(self.output.iterdir())
        own = (self.output / SUMMARY).is_file()
        if filled and not own:
            raise ExportError(
                f'{self.output} exists and holds something else than results of reconstruct: '
                'choose another --output')
        if filled and not (overwrite or resume):
            raise ExportError(
                f'{self.output} exists: choose another --output, or replace it with --overwrite')
        if self.state.is_dir() and not (overwrite or resume):
            raise ExportError(
                f'a run for {self.output} was cut off: go on with --resume, or start again with '
                '--overwrite')
        if resume and not self._home_of_state():
            raise ExportError(
                f'there is nothing to resume for {self.output}: ' + (
                    'it is complete' if own else 'run without --resume'))

    def _home_of_state(self) -> Path | None:
        homes = (self.state, self.output / STATE)
        return next((home for home in homes if (home / KEY).is_file()), None)

    def _take_up(self, key: Mapping[str, Any]) -> None:
        home = self._home_of_state()
        assert home is not None
        try:
            known = json.loads((home / KEY).read_text())
        except ValueError:
            known = {}
        changed = sorted(
            f'{part} {name}' for part in {*known, *key}
            for name in {*known.get(part, {}), *key.get(part, {})}
            if known.get(part, {}).get(name) != key.get(part, {}).get(name))
        if changed:
            os.close(self._lock)
            raise ExportError(
                f'{self.output} cannot be resumed, as something is not as it was then '
                f'({", ".join(changed)}): start again with --overwrite')
        if home != self.state:
            shutil.copytree(home, self.state)
        self._clear(keep_state=True)

    def _clear(self, keep_state: bool) -> None:
        for path in self.work.iterdir():
            if path.is_dir() and not path.is_symlink():
                if not (keep_state and path == self.state):
                    shutil.rmtree(path)
            else:
                path.unlink()

    def _locked(self) -> int:
        handle = os.open(self.work, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise ExportError(
                f'another run is at work for {self.output}: wait for it') from error
        return handle
