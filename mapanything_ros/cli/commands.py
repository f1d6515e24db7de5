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

"""The executables of the offline tools: what they need is looked for before it is imported."""

from __future__ import annotations

from importlib import import_module
import sys

from mapanything_ros.core.errors import MissingLibraryError
from mapanything_ros.core.libraries import require_libraries

# Of requirements/offline.txt and system.txt, without what has a sentence of its own.
LIBRARIES = ('matplotlib', 'open3d', 'PIL', 'rosbags', 'tqdm')


def demo() -> int:
    return _run('demo')


def evaluate() -> int:
    return _run('evaluate')


def reconstruct() -> int:
    return _run('reconstruct')


def sample() -> int:
    return _run('sample')


def _run(name: str) -> int:
    try:
        require_libraries(LIBRARIES, name, 'offline')
    except MissingLibraryError as error:
        print(error, file=sys.stderr)
        return 1
    return int(import_module(f'mapanything_ros.cli.{name}').main())
