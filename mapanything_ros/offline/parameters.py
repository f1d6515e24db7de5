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

"""The node's parameters for a tool: from its parameter file and from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mapanything_ros.core.config import Config, from_values, to_values
from mapanything_ros.core.errors import ConfigError

NODE = 'mapanything'


def load_config(path: Path | None, settings: Sequence[str]) -> Config:
    """
    Return the configuration of a parameter file (None: defaults) and ``name=value`` settings.

    Settings come last. Raises ConfigError with the name of what is at fault.
    """
    values = _read(path) if path else {}
    for setting in settings:
        name, equals, text = setting.partition('=')
        if not equals:
            raise ConfigError(f'--set {setting}: it needs NAME=VALUE')
        values[name] = text
    defaults = to_values(Config())
    return from_values(Config, {
        name: _value(name, value, defaults.get(name)) for name, value in values.items()})


def changed_values(config: Config) -> dict[str, Any]:
    """Return the parameters that differ from their defaults, by dotted name."""
    defaults = to_values(Config())
    return {name: value for name, value in to_values(config).items() if value != defaults[name]}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError) as error:
        raise ConfigError(f'the parameter file {path} cannot be read: {error}') from error
    except yaml.YAMLError as error:
        raise ConfigError(f'the parameter file {path} is no YAML: {error}') from error
    values: dict[str, Any] = {}
    for node, content in document.items() if isinstance(document, Mapping) else ():
        if node == '/**' or str(node).rpartition('/')[2] == NODE:
            own = content.get('ros__parameters') if isinstance(content, Mapping) else None
            values.update(_flat(own, ''))
    values.pop('use_sim_time', None)
    if not values:
        raise ConfigError(
            f'the parameter file {path} has nothing for the node {NODE!r}: it needs "/**:" and '
            'below it "ros__parameters:"')
    return values


def _flat(content: Any, prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Mapping):
            values.update(_flat(value, f'{prefix}{name}.'))
        else:
            values[f'{prefix}{name}'] = value
    return values


def _value(name: str, value: Any, default: Any) -> Any:
    """Return a value as the parameter's type, where that loses nothing."""
    if isinstance(default, str):
        return value
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f'{name} must be {type(default).__name__}, got {value!r}') from None
    return float(value) if isinstance(default, float) and type(value) is int else value
