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

"""What launch file and presets state, read without launch, which is not everywhere."""

import ast
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CAMERAS = ROOT / 'config' / 'cameras'


def constant(name: str) -> Any:
    """Return a constant of mapanything.launch.py."""
    for statement in ast.parse((ROOT / 'launch' / 'mapanything.launch.py').read_text()).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], 'id', '') == name:
            return ast.literal_eval(statement.value)
    raise KeyError(name)


def preset(camera: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((CAMERAS / f'{camera}.yaml').read_text())
