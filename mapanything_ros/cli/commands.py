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

"""The executables: what they need of pip is looked for before they are imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
import sys

from mapanything_ros.core.errors import MissingLibraryError
from mapanything_ros.core.libraries import require_libraries

# What has no sentence of its own where it is used, by the file of requirements that brings it.
NODE = {'node': ('torch', 'gtsam')}
OFFLINE = {**NODE, 'offline': ('matplotlib', 'open3d', 'PIL', 'rosbags', 'tqdm')}


def mapanything_node() -> int:
    return _run('mapanything_node', 'mapanything_ros.ros.node', NODE)


def demo() -> int:
    return _run('demo', 'mapanything_ros.cli.demo', OFFLINE)


def evaluate() -> int:
    return _run('evaluate', 'mapanything_ros.cli.evaluate', OFFLINE)


def reconstruct() -> int:
    return _run('reconstruct', 'mapanything_ros.cli.reconstruct', OFFLINE)


def sample() -> int:
    return _run('sample', 'mapanything_ros.cli.sample', OFFLINE)


def _run(name: str, module: str, needs: Mapping[str, Sequence[str]]) -> int:
    try:
        for requirements, libraries in needs.items():
            require_libraries(libraries, name, requirements)
    except MissingLibraryError as error:
        print(error, file=sys.stderr)
        return 1
    return int(import_module(module).main())
