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

"""What went wrong on the way, for the summary and for whoever watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
import logging

CORE = 'mapanything_ros.core'
# More would bury the rest; how many there were is still told.
MOST = 10


class Notices:
    """
    Counts problems by kind and hands on the first of each, a sentence that says what to do.

    Of problems that each concern something else, such as a photo, the first ten are handed on.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        # What was said of each kind, and how often that or what was not said after it came.
        self._times: dict[str, Counter[str]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Return how often each kind came."""
        return {kind: times.total() for kind, times in self._times.items()}

    @property
    def first(self) -> dict[str, str]:
        """Return the first sentence of each kind."""
        return {kind: next(iter(times)) for kind, times in self._times.items()}

    def warn(self, kind: str, text: str, each: bool = False) -> None:
        """Report a problem of a kind (a short identifier); ``each``: other sentences, too."""
        times = self._times.setdefault(kind, Counter())
        if not times or (each and text not in times and len(times) < MOST):
            self._say(text)
            times[text] = 0
        times[text if text in times else next(reversed(times))] += 1

    def summary(self) -> list[dict[str, object]]:
        """Return kind and text of all that was said, and how often that or the like came."""
        return [
            {'kind': kind, 'text': text, 'times': number}
            for kind, times in self._times.items() for text, number in times.items()]

    def repeat(self) -> None:
        """Say how often what was said came, where that was more than once."""
        for notice in self.summary():
            if notice['times'] != 1:
                self._say(f'{notice["times"]} times: {notice["text"]}')

    @contextmanager
    def of_the_core(self) -> Iterator[None]:
        """Take in what the core warns of through Python's logging."""
        handler = _Handler(self)
        logging.getLogger(CORE).addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger(CORE).removeHandler(handler)


class _Handler(logging.Handler):

    def __init__(self, notices: Notices) -> None:
        super().__init__(logging.WARNING)
        self._notices = notices

    def emit(self, record: logging.LogRecord) -> None:
        self._notices.warn('backend', record.getMessage())
