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

The node brings itself up (its `autostart` parameter); no transition is driven from here.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('mapanything_ros'))
TRUE_OR_FALSE = ['true', 'false']
LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'fatal']
# The node's inputs, which are remapped to the topics of the robot.
INPUTS = {
    'image': 'Topic of the images to map; image/compressed is taken below it.',
    'camera_info': 'Topic of the calibration that belongs to the images.',
    'depth': 'Topic of depth images registered to the images, where use_depth is set.',
}


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
            'log_level',
            default_value='info',
            choices=LOG_LEVELS,
            description='How much the node logs.',
        ),
    ]
    use_sim_time = {'use_sim_time': LaunchConfiguration('use_sim_time')}
    node = Node(
        package='mapanything_ros',
        executable='mapanything_node',
        name='mapanything',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), use_sim_time],
        remappings=[
            *((topic, LaunchConfiguration(topic)) for topic in INPUTS),
            # A remapping holds for one name only, not for the names below it.
            ('image/compressed', [LaunchConfiguration('image'), '/compressed']),
        ],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        output='screen',
        emulate_tty=True,
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        name='rviz',
        namespace=LaunchConfiguration('namespace'),
        arguments=['-d', str(SHARE / 'config' / 'mapanything.rviz')],
        parameters=[use_sim_time],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*arguments, node, rviz])
