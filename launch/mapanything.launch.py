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
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, TimerAction
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('mapanything_ros'))
TRUE_OR_FALSE = ['true', 'false']
LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'fatal']
RESPAWN_DELAY_S = 2.0
# Exit codes that would come again: told to stop, and a start that the node has refused.
FINAL = (0, 1)
# The node's inputs, which are remapped to the topics of the robot.
INPUTS = {
    'image': 'Topic of the images to map; image/compressed is taken below it.',
    'camera_info': 'Topic of the calibration that belongs to the images.',
    'depth': 'Topic of the depth images, where use_depth is set.',
}

USE_SIM_TIME = {'use_sim_time': LaunchConfiguration('use_sim_time')}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            'params_file',
            default_value=str(SHARE / 'config' / 'mapanything.yaml'),
            description='YAML file with the parameters of the node.',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of the node and its topics.'
        ),
        *(
            DeclareLaunchArgument(topic, default_value=topic, description=description)
            for topic, description in INPUTS.items()
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='false',
            choices=TRUE_OR_FALSE,
            description='Take the time from /clock, as a simulator or a replayed bag needs it.',
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
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        name='rviz',
        namespace=LaunchConfiguration('namespace'),
        arguments=['-d', str(SHARE / 'config' / 'mapanything.rviz')],
        parameters=[USE_SIM_TIME],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*arguments, mapping_node(), rviz])


def mapping_node() -> Node:
    return Node(
        package='mapanything_ros',
        executable='mapanything_node',
        name='mapanything',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), USE_SIM_TIME],
        remappings=[
            *((topic, LaunchConfiguration(topic)) for topic in INPUTS),
        ],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        output='screen',
        emulate_tty=True,
        on_exit=start_again,
    )


def start_again(
    event: ProcessExited, context: LaunchContext
) -> list[LaunchDescriptionEntity] | None:
    """Start the node again where that may help; launch's own respawn does not look at the code."""
    wanted = LaunchConfiguration('respawn').perform(context) == 'true'
    if event.returncode in FINAL or context.is_shutdown or not wanted:
        return None
    return [
        LogInfo(msg=f'mapanything_node died and starts again in {RESPAWN_DELAY_S:g} s'),
        TimerAction(period=RESPAWN_DELAY_S, actions=[mapping_node()]),
    ]
