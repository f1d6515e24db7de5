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

"""Parameters: declared from the configuration, checked at start, refused while in use."""

from dataclasses import fields
import os
import signal
import subprocess
import sys

from domain_coordinator import domain_id
import pytest
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from robot import Robot
import torch

from mapanything_ros.core.config import Config, options

EXECUTABLE = [sys.executable, '-m', 'mapanything_ros.ros.node', '--ros-args']
START_S = 60.0


def change(robot: Robot, **values: object) -> list[tuple[bool, str]]:
    """Set parameters (two underscores for a dot) over DDS."""
    parameters: list[ParameterMsg] = [
        Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
        for name, value in values.items()]
    answer = robot.call(
        SetParameters, 'set_parameters', SetParameters.Request(parameters=parameters))
    return [(result.successful, result.reason) for result in answer.results]


@pytest.fixture(scope='module')
def robot(start_shared) -> Robot:
    """Start a node that is not configured."""
    return start_shared(activate=False)


def test_every_option_is_a_parameter_with_its_default_and_meaning(start):
    node = start(activate=False).node
    names = [name for name, _ in options(Config)]
    assert len(names) > len(fields(Config))
    for name, item in options(Config):
        descriptor = node.describe_parameter(name)
        assert descriptor.description == item.metadata['description']
        for choice in item.metadata['choices']:
            assert choice in descriptor.additional_constraints
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        if item.metadata['minimum'] is not None:
            assert ranges[0].from_value == item.metadata['minimum']
            assert ranges[0].to_value == item.metadata['maximum']
        else:
            assert not ranges


def test_defaults_are_those_of_the_configuration(robot):
    quick = set(robot.parameters)
    for name, item in options(Config):
        if name not in quick:
            assert robot.node.get_parameter(name).value == item.default, name


def test_good_values_are_taken_before_configuration(robot):
    assert change(robot, colmap__planes=32) == [(True, '')]
    assert robot.node.get_parameter('colmap.planes').value == 32


@pytest.mark.parametrize(('name', 'value', 'word'), [
    ('window__size', 1, 'window.size'),
    ('window__size', 'six', 'Wrong parameter type'),
    ('window__overlap', 2, 'window.overlap must be less than window.size (2), got 2'),
    ('backend', 'magic', 'backend must be one of mapanything, colmap'),
    ('map__voxel_m', float('nan'), 'map.voxel_m'),
    ('pose_source', 'tf', 'tf.odom_frame'),
    ('tf__mode', 'map_to_odom', 'tf.base_frame'),
])
def test_bad_values_are_refused_with_the_reason(robot, name, value, word):
    before = robot.node.get_parameter(name.replace('__', '.')).value
    [(successful, reason)] = change(robot, **{name: value})
    assert not successful
    assert word in reason
    assert robot.node.get_parameter(name.replace('__', '.')).value == before


def test_parameters_are_refused_while_they_are_in_use(start):
    robot = start(activate=False)
    assert robot.change_state('configure')
    [(successful, reason)] = change(robot, window__size=4)
    assert not successful
    assert 'clean up' in reason
    assert robot.node.get_parameter('window.size').value == 2
    assert change(robot, use_sim_time=True) == [(True, '')], 'it is not one of ours'
    assert robot.change_state('cleanup')
    assert change(robot, window__size=4) == [(True, '')]


def environment(domain: int) -> dict[str, str]:
    return {**os.environ, 'ROS_DOMAIN_ID': str(domain)}


@pytest.mark.parametrize(('assignment', 'words'), [
    ('window.size:=1', ['window.size', '1']),
    ('window.size:=six', ['window.size', 'six']),
    ('window.overlap:=6', ['window.overlap must be less than window.size (6), got 6']),
    ('backend:=magic', ['backend must be one of mapanything, colmap', 'magic']),
    pytest.param('device:=cuda', ['cuda', 'cpu'], marks=pytest.mark.skipif(
        torch.cuda.is_available(), reason='there is a GPU')),
])
def test_the_executable_refuses_a_bad_value_in_one_sentence(assignment, words):
    with domain_id() as domain:
        done = subprocess.run(
            [*EXECUTABLE, '-p', assignment], capture_output=True, text=True, timeout=START_S,
            env=environment(domain))
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_executable_ends_quietly_when_it_is_told_to(number):
    with domain_id() as domain, subprocess.Popen(
            [*EXECUTABLE, '-p', 'backend:=colmap', '-p', 'device:=cpu'],
            stderr=subprocess.PIPE, text=True, env=environment(domain)) as process:
        first = process.stderr.readline()
        process.send_signal(number)
        _, rest = process.communicate(timeout=START_S)
    assert 'backend: ' in first, first
    assert process.returncode == 0
    assert not rest.strip(), rest
