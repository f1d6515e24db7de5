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


"""Two robots on one network, each in its namespace by the rules of the launch file."""

from helpers import FRAME
from launch_file import constant, ROOT
from robot import ODOMETRY, OUTPUTS
from tf2_msgs.msg import TFMessage
import yaml

# What belongs to no robot; the robots' peers advertise a clock.
GLOBAL = {'/rosout', '/parameter_events', '/clock'}


def rules(namespace):
    remappings = [constant('DIAGNOSTICS_REMAPPING'), *constant('TF_REMAPPINGS')]
    return [f'__ns:=/{namespace}', *(f'{source}:={target}' for source, target in remappings)]


def parents(messages):
    return {
        (edge.header.frame_id, edge.child_frame_id)
        for message in messages for edge in message.transforms}


def test_two_robots_in_two_namespaces_hear_nothing_of_each_other(start):
    """Both use the same names for topics and frames, and only the first one moves."""
    first = start(ODOMETRY, remappings=rules('robot1'))
    domain = first.peer.context.get_domain_id()
    second = start(ODOMETRY, remappings=rules('robot2'), domain=domain)
    for robot in (first, second):
        robot.listen(TFMessage, '/tf')
    first.calibrate()
    first.mount()
    seen = first.explore(4)
    first.path(4)
    first.wait_for(lambda: first.status().get('images') == str(len(seen)), 'diagnostics')

    # Long after all that was sent: its own diagnostics and map -> odom come all the time.
    heard = len(second.heard['/diagnostics']), len(second.heard['/tf'])
    second.wait_for(
        lambda: len(second.heard['/diagnostics']) > heard[0] + 5
        and len(second.heard['/tf']) > heard[1] + 5, 'the second robot')
    status = second.status()
    assert status['images'] == '0'
    assert FRAME not in second.node._buffer.all_frames_as_string()
    assert parents(second.heard['/tf']) == {('map', 'odom')}
    assert ('odom', 'base') in parents(first.heard['/tf'])
    assert not any(second.heard[topic] for topic in second.heard if topic.startswith('~'))

    names = {name for name, _ in first.peer.get_topic_names_and_types()} - GLOBAL
    assert {name.split('/')[1] for name in names} == {'robot1', 'robot2'}, names
    assert {'/robot1/tf', '/robot2/tf', '/robot1/tf_static', '/robot1/diagnostics'} <= names

    # The second one was well all the time, and maps its own room.
    second.calibrate()
    second.mount()
    second.explore(3)
    second.path(3)
    assert first.keyframes_taken() == 4 and second.keyframes_taken() == 3


def test_rviz_shows_topics_of_the_node_in_whatever_namespace_it_is():
    """RViz resolves a relative name in its own namespace, as every node does."""
    displays = yaml.safe_load((ROOT / 'config' / 'mapanything.rviz').read_text())[
        'Visualization Manager']['Displays']
    topics = [display['Topic']['Value'] for display in displays if 'Topic' in display]
    assert len(topics) == 5
    assert {topic.replace('mapanything/', '~/') for topic in topics} <= set(OUTPUTS)
