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

import logging
import os
from pathlib import Path

import pytest

pytest.importorskip('launch_ros', reason='launch comes with a ROS 2 from apt and is not on PyPI')

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node

# launch has every logger that is made from now on keep to itself, also those of the core, which
# the node hands on.
logging.setLoggerClass(logging.Logger)

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


@pytest.fixture
def run_node(tmp_path, monkeypatch):
    """Launch a node that ends with one code after the other, and then stays a while."""
    (tmp_path / 'lib' / 'mapanything_ros').mkdir(parents=True)
    for folder in ('share/mapanything_ros', 'share/ament_index/resource_index/packages'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'share/ament_index/resource_index/packages/mapanything_ros').touch()
    for name in ('launch', 'config'):
        (tmp_path / 'share/mapanything_ros' / name).symlink_to(SHARE / name)
    monkeypatch.setenv(
        'AMENT_PREFIX_PATH', f'{tmp_path}{os.pathsep}{os.environ["AMENT_PREFIX_PATH"]}')

    def run(codes: list[str], **arguments: str) -> list[str]:
        """Return the codes that it ended with."""
        node = tmp_path / 'lib' / 'mapanything_ros' / 'mapanything_node'
        node.write_text(
            f"""#!/bin/sh
cd {tmp_path}
echo started >> starts
code=$(sed -n "$(wc -l < starts)p" codes)
[ "$code" ] || exit 0
case $code in -*) kill $code $$;; esac
exit $code
""")
        node.chmod(0o755)
        (tmp_path / 'starts').write_text('')
        (tmp_path / 'codes').write_text('\n'.join(codes) + '\n')
        service = LaunchService(noninteractive=True)
        service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
            str(SHARE / 'launch' / 'mapanything.launch.py'),
            launch_arguments=arguments.items())]))
        assert service.run() == 0
        return (tmp_path / 'starts').read_text().splitlines()

    return run


@pytest.mark.parametrize(('codes', 'arguments', 'starts'), [
    (['75', '-9', '75'], {}, 4), (['75'], {'respawn': 'false'}, 1), (['1'], {}, 1),
    (['0'], {}, 1)])
def test_a_node_that_died_is_started_again_but_not_one_that_cannot_start(
        run_node, codes, arguments, starts):
    """75 is a lost GPU, -9 the kernel when memory runs out."""
    assert len(run_node(codes, **arguments)) == starts
