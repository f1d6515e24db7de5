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

"""A progress bar with the stage and the time left; sentences go above it."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from mapanything_ros.offline.reconstruction import Progress


class ProgressBar:
    """Shows a reconstruction of ``total`` images on a terminal; nothing where there is none."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm(
            total=total, desc='reconstructing', unit='img', disable=None, dynamic_ncols=True,
            file=sys.stderr)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        self._bar.update(progress.images - self._bar.n)
        lost = f', {progress.windows_lost} lost' if progress.windows_lost else ''
        self._bar.set_postfix_str(
            f'{progress.keyframes} keyframes, {progress.windows} windows{lost}', refresh=False)

    def stage(self, name: str) -> None:
        """Show what is done now."""
        self._bar.set_description(name)


def say(text: str) -> None:
    """Print a sentence above whatever bar there is."""
    with tqdm.external_write_mode(file=sys.stderr):
        print(text, file=sys.stderr, flush=True)
