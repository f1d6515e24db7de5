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

"""Libraries that not every machine needs, or has a wheel of: looked for where they are used."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
import sys

from mapanything_ros.core.errors import MissingLibraryError


def require_libraries(modules: Iterable[str], needed_by: str, requirements: str) -> None:
    """Raise MissingLibraryError, with the file that brings them, unless all can be found."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingLibraryError(
            f'{needed_by} needs {" and ".join(missing)}, which {sys.executable} does not have: '
            'activate the virtual environment that does, or pip install -r '
            f'requirements/{requirements}.txt; docs/install.md says where that has no wheel')
