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

"""ROS parameters, declared from the configuration's dataclasses."""

from __future__ import annotations

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mapanything_ros.core.config import Config, from_values, options
from mapanything_ros.core.errors import ConfigError


def declare_parameters(node: Node) -> None:
    """Declare every parameter with its default, description and range."""
    for name, item in options(Config):
        meta = item.metadata
        descriptor = ParameterDescriptor(description=meta['description'])
        if meta['choices']:
            descriptor.additional_constraints = 'one of: ' + ', '.join(meta['choices'])
        bounds = meta['minimum'], meta['maximum']
        if None not in bounds and isinstance(item.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(bounds[0]), to_value=float(bounds[1]))]
        elif None not in bounds:
            descriptor.integer_range = [
                IntegerRange(from_value=int(bounds[0]), to_value=int(bounds[1]))]
        node.declare_parameter(name, item.default, descriptor)


def read_config(node: Node) -> Config:
    """Return the configuration; raise ConfigError with the name of the parameter at fault."""
    values = {name: node.get_parameter(name).value for name, _ in options(Config)}
    return from_values(Config, values)


def check_change(node: Node, changes: list[Parameter], configured: bool) -> SetParametersResult:
    """Accept new values before configure, if all parameters together make sense."""
    names = {name for name, _ in options(Config)}
    changed = {change.name: change.value for change in changes if change.name in names}
    if changed and configured:
        return SetParametersResult(successful=False, reason=(
            'parameters are read by configure: deactivate and clean up the node first'))
    values = {name: node.get_parameter(name).value for name in names}
    try:
        from_values(Config, {**values, **changed})
    except ConfigError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)
