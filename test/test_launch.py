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

"""The launch files, run as `ros2 launch` runs them, with stand-ins for node and RViz."""

from contextlib import suppress
import json
import logging
import os
from pathlib import Path
import pty
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip('launch_ros', reason='launch comes with a ROS 2 from apt and is not on PyPI')

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity, LaunchService
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_file import constant, preset
from launch_ros.actions import PushRosNamespace
import yaml

from mapanything_ros.core.config import Config, to_values

# launch has every logger that is made from now on keep to itself, also those of the core, which
# the node hands on.
logging.setLoggerClass(logging.Logger)

SHARE = Path(get_package_share_directory('mapanything_ros'))
LAUNCH_FILES = ['mapanything.launch.py', 'demo.launch.py']
CAMERAS = sorted(file.stem for file in (SHARE / 'config' / 'cameras').iterdir())
# Declares what the node declares, and says what launch has told it.
STAND_IN = f"""#!{sys.executable}
import json
import sys

import rclpy
from rclpy.node import Node

from mapanything_ros.core.config import Config, options
from mapanything_ros.ros.parameters import declare_parameters

rclpy.init(args=sys.argv)
node = Node('nameless')
declare_parameters(node)
names = ['use_sim_time', *(name for name, _ in options(Config))]
topics = [
    'image', 'camera_info', 'depth', 'imu', 'odometry', 'mapanything/map', '/tf', '/tf_static',
    '/diagnostics', '/clock']
with open(sys.argv[0] + '.json', 'w') as report:
    json.dump({{
        'name': node.get_fully_qualified_name(),
        'parameters': {{name: node.get_parameter(name).value for name in names}},
        'topics': {{topic: node.resolve_topic_name(topic) for topic in topics}},
        'arguments': sys.argv[1:], 'terminal': sys.stderr.isatty()}}, report)
"""
# Ends with one code after the other, and then with 0.
MORTAL = """#!/bin/sh
echo "$@" >> $0.starts
code=$(sed -n "$(wc -l < $0.starts)p" $0.codes)
[ "$code" ] || exit 0
case $code in -*) kill $code $$;; esac
exit $code
"""
# In a process of its own, as launch's output and environment matter.
LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription

service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    sys.argv[1], launch_arguments=[a.split(':=') for a in sys.argv[2:]])]))
sys.exit(service.run())
"""


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


def test_only_the_bag_must_be_given():
    assert 'bag' not in defaults(describe('demo.launch.py'))
    mapping = describe('mapanything.launch.py')
    assert len(defaults(mapping)) == len(mapping.get_launch_arguments())


class Installed:
    """An install folder with stand-ins for executables, before the one that is tested."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.add('mapanything_ros', 'mapanything_node', STAND_IN)
        for name in ('launch', 'config'):
            (folder / 'share/mapanything_ros' / name).symlink_to(SHARE / name)

    def add(self, package: str, executable: str, script: str) -> None:
        index = 'share/ament_index/resource_index/packages'
        for name in (f'lib/{package}', f'share/{package}', index):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / index / package).touch()
        file = self._folder / 'lib' / package / executable
        file.write_text(script)
        file.chmod(0o755)

    def launch(self, name: str = 'mapanything.launch.py', **arguments: str) -> dict[str, Any]:
        """Launch, and return what the node's stand-in was told."""
        self.run([self.included(name, **arguments)])
        return self.report()

    def included(
        self, name: str = 'mapanything.launch.py', **arguments: str
    ) -> IncludeLaunchDescription:
        return IncludeLaunchDescription(
            str(SHARE / 'launch' / name), launch_arguments=arguments.items())

    def run(self, entities: list[LaunchDescriptionEntity]) -> None:
        service = LaunchService(noninteractive=True)
        service.include_launch_description(LaunchDescription(entities))
        assert service.run() == 0

    def report(self, executable: str = 'mapanything_ros/mapanything_node') -> dict[str, Any]:
        return json.loads((self._folder / 'lib' / f'{executable}.json').read_text())

    def starts(self, codes: list[str], entity: LaunchDescriptionEntity) -> list[str]:
        """Return what a node was started with each time that it ended with one of the codes."""
        self.add('mapanything_ros', 'mapanything_node', MORTAL)
        node = self._folder / 'lib/mapanything_ros/mapanything_node'
        node.with_suffix('.starts').write_text('')
        node.with_suffix('.codes').write_text('\n'.join(codes) + '\n')
        self.run([entity])
        return node.with_suffix('.starts').read_text().splitlines()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    made = Installed(tmp_path)
    monkeypatch.setenv(
        'AMENT_PREFIX_PATH', f'{tmp_path}{os.pathsep}{os.environ["AMENT_PREFIX_PATH"]}')
    return made


def params_file(folder: Path, key: str, **values: object) -> str:
    file = folder / 'mine.yaml'
    file.write_text(yaml.safe_dump({key: {'ros__parameters': values}}))
    return str(file)


# Arguments


def test_where_nothing_is_given_nothing_is_changed(installed):
    told = installed.launch()
    assert told['parameters'] == {'use_sim_time': False, **to_values(Config())}
    assert told['topics'] == {topic: '/' + topic.lstrip('/') for topic in told['topics']}
    assert told['name'] == '/mapanything'


def test_each_argument_reaches_its_parameter_in_the_right_type(installed):
    """Frames are strings even where YAML would take them for something else."""
    given = {
        'backend': 'colmap', 'device': 'cuda:1', 'image_transport': 'compressed',
        'use_camera_info': 'false', 'rectified': 'true', 'use_depth': 'true',
        'depth_transport': 'compressedDepth', 'use_imu': 'true', 'odometry_source': 'topic',
        'pose_source': 'tf', 'pose_use': 'prior',
        'map_frame': 'on', 'odom_frame': '42', 'base_frame': 'robot/base',
        'use_sim_time': 'true'}
    bools = {'true': True, 'false': False}
    parameters = constant('PARAMETERS')
    assert set(given) == set(parameters), 'an argument that nobody tests'
    assert installed.launch(**given)['parameters'] == {**to_values(Config()), **{
        parameters[name][0]: bools.get(value, value) for name, value in given.items()}}


def test_an_argument_beats_the_file_and_the_file_beats_the_preset(installed, tmp_path):
    assert preset('zed')['parameters'] == {'use_depth': True, 'rectified': True}
    file = params_file(tmp_path, '/**', rectified=False, backend='colmap', pose_use='prior')
    told = installed.launch(camera='zed', params_file=file, pose_use='fixed')
    assert told['parameters'] == {
        'use_sim_time': False, **to_values(Config()), 'use_depth': True, 'backend': 'colmap'}
    assert not installed.launch(camera='zed', use_depth='false')['parameters']['use_depth']


@pytest.mark.parametrize('key', ['/**', 'mapanything', '/mapanything'])
def test_a_file_may_name_the_node_as_it_likes(installed, tmp_path, key):
    """A name wins over /** in ROS, wherever it stands."""
    file = params_file(tmp_path, key, use_depth=False, device='cuda:3', use_sim_time=True)
    told = installed.launch(camera='zed', params_file=file, device='cpu')['parameters']
    assert (told['use_depth'], told['device'], told['use_sim_time']) == (False, 'cpu', True)


@pytest.mark.parametrize('camera', CAMERAS)
def test_a_preset_sets_topics_and_parameters(installed, camera):
    topics, parameters = preset(camera)['topics'], preset(camera)['parameters']
    told = installed.launch(camera=camera)
    assert told['parameters'] == {'use_sim_time': False, **to_values(Config()), **parameters}
    for name in ('image', 'camera_info', 'depth'):
        assert told['topics'][name] == '/' + topics.get(name, name)


def test_a_topic_that_is_given_beats_the_preset(installed):
    topics = installed.launch(camera='realsense', image='/front/image_raw')['topics']
    assert topics['image'] == '/front/image_raw'
    assert topics['camera_info'] == '/camera/camera/color/camera_info'


def test_the_demo_tells_the_node_what_fits_its_bag(installed):
    # There is no bag, nor ros2 to play it: the node is started all the same.
    with suppress(AssertionError):
        installed.run([installed.included('demo.launch.py', bag='bag', rviz='false')])
    told = installed.report()
    assert told['parameters'] == {
        **to_values(Config()), 'backend': 'colmap', 'device': 'cpu', 'use_sim_time': True,
        'image_transport': 'compressed', 'pose_source': 'tf', 'tf.odom_frame': 'odom',
        'tf.base_frame': 'base_link'}
    assert told['topics']['image'] == '/camera/color/image_raw'


# Namespaces


def test_a_namespace_holds_topics_tf_and_diagnostics(installed):
    """As in Nav2, where /tf and /tf_static are remapped to tf and tf_static; time is for all."""
    told = installed.launch(namespace='robot1', camera='realsense')
    assert told['name'] == '/robot1/mapanything'
    assert told['topics'].pop('/clock') == '/clock'
    assert all(topic.startswith('/robot1/') for topic in told['topics'].values())
    assert told['topics']['/tf'] == '/robot1/tf'
    assert told['topics']['image'] == '/robot1/camera/camera/color/image_raw'


def test_global_tf_leaves_tf_out_of_the_namespace(installed):
    topics = installed.launch(namespace='robot1', global_tf='true')['topics']
    assert (topics['/tf'], topics['/tf_static']) == ('/tf', '/tf_static')
    assert topics['/diagnostics'] == '/robot1/diagnostics'


def test_a_node_of_a_group_starts_again_in_its_namespace(installed):
    """When it dies, the group that it was launched in has ended."""
    group = GroupAction([
        PushRosNamespace('fleet'), installed.included(namespace='robot1', camera='zed')])
    first, second = installed.starts(['75'], group)
    assert '__ns:=/fleet/robot1' in first and 'image:=zed/' in first
    # The file with the parameters is written anew each time.
    assert second == first


# RViz


def test_rviz_is_in_the_namespace_of_the_node(installed):
    installed.add('rviz2', 'rviz2', STAND_IN)
    installed.launch(rviz='true', namespace='robot1', map_frame='robot1/map', use_sim_time='true')
    told = installed.report('rviz2/rviz2')
    assert told['name'] == '/robot1/rviz'
    assert told['parameters']['use_sim_time'] is True
    assert told['topics']['mapanything/map'] == '/robot1/mapanything/map'
    assert told['topics']['/tf'] == '/robot1/tf'
    config, frame = told['arguments'][1], told['arguments'][3]
    assert told['arguments'][:4] == ['-d', config, '-f', frame] and frame == 'robot1/map'
    assert Path(config).is_file()


def run_apart(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    file = str(SHARE / 'launch' / 'mapanything.launch.py')
    return subprocess.run(
        [sys.executable, '-c', LAUNCHER, file, *arguments], text=True, timeout=120, check=True,
        stderr=subprocess.STDOUT, **options)


def test_without_rviz_the_node_starts_and_a_sentence_says_what_to_install(installed):
    done = run_apart(['rviz:=true'], stdout=subprocess.PIPE)
    assert 'rviz2 is not installed here' in done.stdout
    assert installed.report()['name'] == '/mapanything'


# Processes


def test_in_a_container_no_home_is_needed_and_the_log_has_no_colours(installed, tmp_path):
    nowhere = {'HOME': '/dev/null', 'ROS_LOG_DIR': str(tmp_path / 'log')}
    done = run_apart([], stdout=subprocess.PIPE, env={**os.environ, **nowhere})
    assert '\x1b' not in done.stdout
    assert not installed.report()['terminal']


def test_in_a_terminal_the_node_writes_as_to_a_terminal(installed):
    ours, theirs = pty.openpty()
    try:
        run_apart([], stdout=theirs)
        assert installed.report()['terminal']
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(('codes', 'arguments', 'starts'), [
    (['75', '-9', '75'], {}, 4), (['75'], {'respawn': 'false'}, 1), (['1'], {}, 1),
    (['0'], {}, 1)])
def test_a_node_that_died_is_started_again_but_not_one_that_cannot_start(
        installed, codes, arguments, starts):
    """75 is a lost GPU, -9 the kernel when memory runs out."""
    assert len(installed.starts(codes, installed.included(**arguments))) == starts
