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

"""What was looked at, what it may be, and whether it holds: a table and a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
import json
from pathlib import Path
import time
import traceback
from typing import Any

# The unit of what is so, or not.
YES = 'yes'


@dataclass(frozen=True)
class Check:
    """
    A figure with its limit, the most (``least``: the least) that it may be.

    ``limit`` is None where the figure is to be known and not judged; ``holds`` is None there, and
    where the figure could not be had, for the reason in ``note``.
    """

    name: str
    value: float | None
    unit: str = ''
    limit: float | None = None
    least: bool = False
    holds: bool | None = None
    note: str = ''

    def __str__(self) -> str:
        """Return the row of the table."""
        sign = {True: '>=', False: '<='}[self.least]
        limit = '' if self.limit is None else f'{sign} {self.limit:.4g}'
        verdict = {True: 'holds', False: 'FAILS', None: '-'}[self.holds]
        value = '-' if self.value is None else f'{self.value:.4g} {self.unit}'.rstrip()
        if self.unit == YES:
            value, limit = ('yes' if self.value else 'no'), 'yes'
        return f'{self.name:62} {value:>12} {limit:>12}  {verdict:5}  {self.note}'.rstrip()


class Report:
    """
    Prints checks as they come and writes them all after each group.

    So a run that is cut off, or a group that breaks, leaves what was there before.
    """

    def __init__(self, path: Path, about: dict[str, Any], minutes: float) -> None:
        self._path = path
        self._about = about
        self._checks: list[Check] = []
        self._figures: dict[str, Any] = {}
        self._start_s = time.monotonic()
        self._end_s = self._start_s + 60 * minutes
        self._write()

    @property
    def checks(self) -> tuple[Check, ...]:
        """Return all checks so far."""
        return tuple(self._checks)

    def add(
        self, name: str, value: float | bool | None, unit: str = '', limit: float | None = None,
        *, least: bool = False, note: str = '',
    ) -> None:
        """Add a figure; of one that is True or False, True is what may be."""
        holds = None
        if isinstance(value, bool):
            value, unit, limit, least = float(value), YES, 1.0, True
        if value is not None and limit is not None:
            # What is not a number holds nothing.
            holds = bool(value >= limit if least else value <= limit)
        check = Check(name, value, unit, limit, least, holds, note)
        self._checks.append(check)
        print(check, flush=True)

    def keep(self, name: str, figures: Any) -> None:
        """Keep figures that are not checked, for whoever reads the file."""
        self._figures[name] = figures

    def group(self, name: str, run: Callable[[], None], needs_s: float) -> None:
        """Run a group of checks, if there is time; that it breaks is a check that fails."""
        left_s = self._end_s - time.monotonic()
        if left_s < needs_s:
            self.add(f'{name}: run at all', None, note=(
                f'{left_s:.0f} s were left, and it may take {needs_s:.0f} s'))
            return
        print(f'\n{name}', flush=True)
        start_s = time.monotonic()
        try:
            run()
        except Exception as error:
            traceback.print_exc()
            self.add(f'{name}: to its end', False, note=f'{type(error).__name__}: {error}')
        self._figures.setdefault('seconds', {})[name] = time.monotonic() - start_s
        self._write()

    def conclude(self) -> int:
        """Print what does not hold; return 1 if there is any of that, else 0."""
        broken = [check for check in self._checks if check.holds is False]
        held = sum(check.holds is True for check in self._checks)
        known = sum(check.holds is None for check in self._checks)
        seconds = time.monotonic() - self._start_s
        print(f'\n{held} hold, {len(broken)} fail, {known} are not judged; {seconds:.0f} s')
        for check in broken:
            print(f'  {check}')
        self._write()
        print(f'wrote {self._path}', flush=True)
        return 1 if broken else 0

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({
            **self._about, 'checks': [asdict(check) for check in self._checks],
            'figures': self._figures}, indent=1) + '\n')


@contextmanager
def stopwatch(seconds: list[float]) -> Iterator[None]:
    """Append how long the block took."""
    start_s = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - start_s)
