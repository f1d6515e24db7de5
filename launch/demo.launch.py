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
Replay a bag through the mapping node, with the backend colmap, which needs no GPU and no weights.

The topics fit the bags that `ros2 run mapanything_ros sample` writes; for others give their names.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('mapanything_ros'))
TRUE_OR_FALSE = ['true', 'false']
# The node starts up in this time, so that it misses nothing of the bag.
DELAY_S = '5'
CLOCK_HZ = '100'


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument('bag', description='Folder of the bag to replay.'),
        DeclareLaunchArgument(
            'rate', default_value='1.0', description='Speed of the replay; 0.5 is half as fast.'
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=str(SHARE / 'config' / 'mapanything.yaml'),
            description='YAML file with the parameters of the node.',
        ),
        DeclareLaunchArgument(
            'image',
            default_value='/camera/color/image_raw',
            description='Topic of the images in the bag, without /compressed.',
        ),
        DeclareLaunchArgument(
            'camera_info',
            default_value='/camera/color/camera_info',
            description='Topic of the calibration in the bag.',
        ),
        DeclareLaunchArgument(
            'depth',
            default_value='/camera/aligned_depth_to_color/image_raw',
            description='Topic of the registered depth in the bag, for use_depth.',
        ),
        DeclareLaunchArgument(
            'image_transport',
            default_value='compressed',
            choices=['raw', 'compressed'],
            description='How the images are stored in the bag.',
        ),
        DeclareLaunchArgument(
            'use_depth',
            default_value='false',
            choices=TRUE_OR_FALSE,
            description='Use the depth of the bag.',
        ),
        DeclareLaunchArgument(
            'pose_source',
            default_value='tf',
            choices=['tf', 'none'],
            description='Take camera poses from the odometry in /tf, or estimate them.',
        ),
        DeclareLaunchArgument(
            'odom_frame',
            default_value='odom',
            description='Frame of the odometry in /tf; empty where the bag has none.',
        ),
        DeclareLaunchArgument(
            'base_frame',
            default_value='base_link',
            description='Frame of the robot in /tf; empty where the camera is alone.',
        ),
        DeclareLaunchArgument(
            'rviz',
            default_value='true',
            choices=TRUE_OR_FALSE,
            description='Show map, points, path and keyframes in RViz.',
        ),
    ]
    node = Node(
        package='mapanything_ros',
        executable='mapanything_node',
        name='mapanything',
        parameters=[
            LaunchConfiguration('params_file'),
            {
                'backend': 'colmap',
                'device': 'cpu',
                'image_transport': LaunchConfiguration('image_transport'),
                'pose_source': LaunchConfiguration('pose_source'),
                'tf.odom_frame': LaunchConfiguration('odom_frame'),
                'tf.base_frame': LaunchConfiguration('base_frame'),
                'use_depth': LaunchConfiguration('use_depth'),
                'use_sim_time': True,
            },
        ],
        remappings=[
            ('image', LaunchConfiguration('image')),
            ('camera_info', LaunchConfiguration('camera_info')),
            ('depth', LaunchConfiguration('depth')),
        ],
        output='screen',
        emulate_tty=True,
    )
    bag = ExecuteProcess(
        cmd=[
            'ros2', 'bag', 'play', LaunchConfiguration('bag'), '--clock', CLOCK_HZ,
            '--rate', LaunchConfiguration('rate'), '--delay', DELAY_S,
        ],
        output='screen',
    )  # fmt: skip
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        name='rviz',
        arguments=['-d', str(SHARE / 'config' / 'mapanything.rviz')],
        parameters=[{'use_sim_time': True}],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*arguments, node, bag, rviz])
