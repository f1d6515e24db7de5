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

"""
Start the mapping node, and RViz when asked to.

The node brings itself up (its `autostart` parameter); no transition is driven from here. Where it
dies, as with a GPU that is lost to its process, it is started again.

Parameters come from the node's defaults, then the camera's preset, then params_file, then the
arguments below, the last one winning; an argument that is not given (empty) changes nothing.
"""

from __future__ import annotations

from functools import partial
import json
import os
from pathlib import Path
import sys
from typing import Any

from ament_index_python.packages import (
    get_package_prefix,
    get_package_share_directory,
    PackageNotFoundError,
)
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, TimerAction
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace
import yaml

CONFIG = Path(get_package_share_directory('mapanything_ros')) / 'config'
DEFAULTS = yaml.safe_load((CONFIG / 'mapanything.yaml').read_text())['/**']['ros__parameters']
CAMERAS = sorted(file.stem for file in (CONFIG / 'cameras').glob('*.yaml'))
TRUE_OR_FALSE = ['true', 'false']
LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'fatal']
RESPAWN_DELAY_S = 2.0
# Exit codes that would come again: told to stop, and a start that the node has refused.
FINAL = (0, 1)
# The node's inputs, which are remapped to the topics of the robot.
INPUTS = {
    'image': 'Topic of the images to map; compressed ones are below it.',
    'camera_info': 'Topic of the calibration that belongs to the images.',
    'depth': 'Topic of the depth images, where use_depth is set.',
    'imu': 'Topic of the IMU that levels the map, where use_imu is set.',
    'odometry': 'Topic of the odometry, where odometry_source is topic.',
}
# By argument: the parameter that it sets, and what it does.
PARAMETERS = {
    'backend': ('backend', 'What reconstructs: mapanything or colmap.'),
    'device': ('device', 'Where the backend runs: cuda, cuda:<number> or cpu.'),
    'image_transport': ('image_transport', 'How images come: raw or compressed.'),
    'use_camera_info': ('use_camera_info', 'Wait for the calibration.'),
    'rectified': ('rectified', 'The images are rectified already.'),
    'use_depth': ('use_depth', 'Use the depth images.'),
    'depth_transport': ('depth_transport', 'How depth comes: raw or compressedDepth.'),
    'use_imu': ('use_imu', 'Level a map without odometry by an IMU.'),
    'odometry_source': ('odometry_source', 'Where odometry comes from: tf or topic.'),
    'pose_source': ('pose_source', 'Camera poses: from odometry in tf, or none (estimated).'),
    'pose_use': ('pose_use', 'Odometry: fixed, or a prior that the images correct.'),
    'map_frame': ('tf.map_frame', 'Frame of the map.'),
    'odom_frame': ('tf.odom_frame', 'Frame of the odometry.'),
    'base_frame': ('tf.base_frame', 'Frame of the robot.'),
    'use_sim_time': ('use_sim_time', 'Take the time from /clock, as a simulator gives it.'),
}
# ROS names these absolutely; as relative names they fall into the namespace.
TF_REMAPPINGS = [('/tf', 'tf'), ('/tf_static', 'tf_static')]
DIAGNOSTICS_REMAPPING = ('/diagnostics', 'diagnostics')


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            'camera',
            default_value='',
            choices=['', *CAMERAS],
            description="Take topics and parameters that fit this camera's driver.",
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value='',
            description='YAML file with the parameters of the node that are to be changed.',
        ),
        *(
            DeclareLaunchArgument(topic, default_value='', description=description)
            for topic, description in INPUTS.items()
        ),
        *(
            DeclareLaunchArgument(
                name,
                default_value='',
                choices=['', *TRUE_OR_FALSE] if is_bool(parameter) else None,
                description=description,
            )
            for name, (parameter, description) in PARAMETERS.items()
        ),
        DeclareLaunchArgument(
            'namespace',
            default_value='',
            description='Namespace of the node, its topics, TF, diagnostics and RViz.',
        ),
        DeclareLaunchArgument(
            'global_tf',
            default_value='false',
            choices=TRUE_OR_FALSE,
            description='Leave TF out of the namespace, for robots that share one tree.',
        ),
        DeclareLaunchArgument(
            'rviz',
            default_value='false',
            choices=TRUE_OR_FALSE,
            description='Show map, points, path and keyframes in RViz.',
        ),
        DeclareLaunchArgument(
            'respawn',
            default_value='true',
            choices=TRUE_OR_FALSE,
            description='Start the node again when it dies, but not where it could not start.',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=LOG_LEVELS,
            description='How much the node logs.',
        ),
    ]
    names = [argument.name for argument in arguments]
    return LaunchDescription([*arguments, OpaqueFunction(function=start, args=[names])])


def is_bool(parameter: str) -> bool:
    value = {'use_sim_time': False, **DEFAULTS}
    for key in parameter.split('.'):
        value = value[key]
    return isinstance(value, bool)


def start(context: LaunchContext, names: list[str]) -> list[LaunchDescriptionEntity]:
    # Read once: when the node is started again, a group that it was launched in has ended.
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    outer = context.launch_configurations.get('ros_namespace')
    given['namespace'] = make_namespace_absolute(prefix_namespace(outer, given['namespace']))
    shown = given['rviz'] == 'true'
    return [mapping_node(given), *([rviz(given)] if shown else [])]


def mapping_node(given: dict[str, str]) -> Node:
    preset: dict[str, dict[str, Any]] = {'topics': {}, 'parameters': {}}
    if given['camera']:
        preset = yaml.safe_load((CONFIG / 'cameras' / f'{given["camera"]}.yaml').read_text())
    topics = {**preset['topics'], **{name: given[name] for name in INPUTS if given[name]}}
    # As -p, for launch writes a dictionary under the full name of the node, and that would win
    # over the /** of a params_file.
    below = [f'{name}:={json.dumps(value)}' for name, value in preset['parameters'].items()]
    above = parameters(given)
    return Node(
        package='mapanything_ros',
        executable='mapanything_node',
        name='mapanything',
        namespace=given['namespace'],
        ros_arguments=[
            '--log-level', given['log_level'], *(part for rule in below for part in ('-p', rule))
        ],
        parameters=[part for part in (given['params_file'], above) if part],
        remappings=[*topics.items(), *into_namespace(given)],
        output='screen',
        # Colours where somebody looks, but not in a file or in the log of a container.
        emulate_tty=sys.stdout.isatty(),
        on_exit=partial(start_again, given),
    )  # fmt: skip


def parameters(given: dict[str, str]) -> dict[str, bool | str]:
    return {
        parameter: given[name] == 'true' if is_bool(parameter) else given[name]
        for name, (parameter, _) in PARAMETERS.items()
        if given[name]
    }


def into_namespace(given: dict[str, str]) -> list[tuple[str, str]]:
    return [DIAGNOSTICS_REMAPPING, *([] if given['global_tf'] == 'true' else TF_REMAPPINGS)]


def rviz(given: dict[str, str]) -> LaunchDescriptionEntity:
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        distro = os.environ.get('ROS_DISTRO', '<distro>')
        return LogInfo(
            msg='rviz:=true, but rviz2 is not installed here (sudo apt install '
            f'ros-{distro}-rviz2): the node runs without it'
        )
    frame = ['-f', given['map_frame']] if given['map_frame'] else []
    return Node(
        package='rviz2',
        executable='rviz2',
        name='rviz',
        namespace=given['namespace'],
        arguments=['-d', str(CONFIG / 'mapanything.rviz'), *frame],
        parameters=[{'use_sim_time': given['use_sim_time'] == 'true'}],
        remappings=into_namespace(given),
    )


def start_again(
    given: dict[str, str], event: ProcessExited, context: LaunchContext
) -> list[LaunchDescriptionEntity] | None:
    """Start the node again where that may help; launch's own respawn does not look at the code."""
    if event.returncode in FINAL or context.is_shutdown or given['respawn'] == 'false':
        return None
    return [
        LogInfo(msg=f'mapanything_node died and starts again in {RESPAWN_DELAY_S:g} s'),
        TimerAction(period=RESPAWN_DELAY_S, actions=[mapping_node(given)]),
    ]
