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

"""The launch files, as `ros2 launch` finds them by share path."""

from pathlib import Path

import pytest

pytest.importorskip('launch_ros', reason='launch comes with a ROS 2 from apt and is not on PyPI')

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('mapanything_ros'))
LAUNCH_FILES = ['mapanything.launch.py', 'demo.launch.py']


def describe(name: str) -> LaunchDescription:
    return get_launch_description_from_python_launch_file(str(SHARE / 'launch' / name))


def defaults(description: LaunchDescription) -> dict[str, str]:
    context = LaunchContext()
    return {
        argument.name: perform_substitutions(context, argument.default_value)
        for argument in description.get_launch_arguments()
        if argument.default_value is not None
    }


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_every_argument_says_what_it_does(name):
    arguments = describe(name).get_launch_arguments()
    assert arguments
    for argument in arguments:
        # launch itself adds the choices to the sentence.
        sentence, _, _ = argument.description.partition(' Valid choices are')
        assert sentence.endswith('.'), argument.name


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_defaults_are_among_the_choices(name):
    description = describe(name)
    for argument in description.get_launch_arguments():
        if argument.choices:
            assert defaults(description)[argument.name] in argument.choices


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_the_files_that_are_named_exist(name):
    assert Path(defaults(describe(name))['params_file']).is_file()
    assert (SHARE / 'config' / 'mapanything.rviz').is_file()


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_the_node_has_its_name_and_executable(name):
    nodes = [entity for entity in describe(name).entities if isinstance(entity, Node)]
    described = {(node.node_package, node.node_executable) for node in nodes}
    assert ('mapanything_ros', 'mapanything_node') in described
    assert ('rviz2', 'rviz2') in described


def test_only_the_bag_must_be_given():
    assert 'bag' not in defaults(describe('demo.launch.py'))
    mapping = describe('mapanything.launch.py')
    assert len(defaults(mapping)) == len(mapping.get_launch_arguments())
