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


class Notices:
    """Counts problems by kind and hands on the first of each, a sentence that says what to do."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def warn(self, kind: str, text: str) -> None:
        """Report a problem of a kind (a short identifier)."""
        self.counts[kind] += 1
        if kind not in self.first:
            self.first[kind] = text
            self._say(text)

    def summary(self) -> list[dict[str, object]]:
        """Return kind, first text and number of times of each."""
        return [
            {'kind': kind, 'text': text, 'times': self.counts[kind]}
            for kind, text in self.first.items()]

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
