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

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from mapanything_ros.offline.bag import Bag, BagError

TYPES = get_typestore(Stores.ROS2_JAZZY)
IMAGE = 'sensor_msgs/msg/Image'
STRING = 'std_msgs/msg/String'
START_NS = 1_700_000_000_123_456_789


def image(stamp_ns: int, value: int) -> bytes:
    types = TYPES.types
    sec, nanosec = divmod(stamp_ns, 10 ** 9)
    stamp = types['builtin_interfaces/msg/Time'](sec=sec, nanosec=nanosec)
    return bytes(TYPES.serialize_cdr(types[IMAGE](
        header=types['std_msgs/msg/Header'](stamp=stamp, frame_id='camera'), height=1, width=2,
        encoding='mono8', is_bigendian=0, step=2,
        data=np.array([value, value + 1], np.uint8)), IMAGE))


def write_bag(
    path: Path, topics: dict[str, str], count: int = 3,
    storage: StoragePlugin = StoragePlugin.MCAP,
) -> Path:
    """Write `count` messages on each topic, 10 ms and one nanosecond apart."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=TYPES)
                       for topic, kind in topics.items()}
        for i in range(count):
            stamp_ns = START_NS + i * 10_000_001
            for topic, kind in topics.items():
                data = image(stamp_ns, i) if kind == IMAGE else TYPES.serialize_cdr(
                    TYPES.types[STRING](data=f'{i}'), STRING)
                writer.write(connections[topic], stamp_ns, data)
    return path


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize('as_file', [False, True])
def test_a_bag_gives_back_the_very_bytes_and_times_that_went_in(tmp_path, storage, as_file):
    path = write_bag(tmp_path / 'bag', {'/a': IMAGE, '/b': STRING}, storage=storage)
    if as_file:
        path = next(file for file in path.iterdir() if file.suffix in ('.mcap', '.db3'))
    with Bag(path) as bag:
        assert bag.topics == {'/a': IMAGE, '/b': STRING}
        assert bag.start_ns == START_NS
        assert bag.duration_ns == 2 * 10_000_001
        messages = list(bag.messages(['/a']))
        assert [m.log_time_ns for m in messages] == [START_NS + i * 10_000_001 for i in range(3)]
        assert [m.cdr for m in messages] == [
            image(START_NS + i * 10_000_001, i) for i in range(3)]
        assert {(m.topic, m.msgtype) for m in messages} == {('/a', IMAGE)}
        assert len(list(bag.messages())) == 6
        assert list(bag.messages([])) == []


def test_a_message_is_decoded_on_demand_with_its_exact_stamp(tmp_path):
    with Bag(write_bag(tmp_path / 'bag', {'/a': IMAGE})) as bag:
        last = bag.decode(list(bag.messages())[-1])
    assert last.header.stamp.sec * 10 ** 9 + last.header.stamp.nanosec == START_NS + 20_000_002
    assert last.data.tolist() == [2, 3]


def test_a_single_topic_of_a_type_is_found(tmp_path):
    with Bag(write_bag(tmp_path / 'bag', {'/front': IMAGE, '/chat': STRING})) as bag:
        assert bag.find_topic(IMAGE) == '/front'
        assert bag.find_topic(STRING, '/chat') == '/chat'


def test_truth_stands_back_and_colour_is_preferred(tmp_path):
    topics = dict.fromkeys(['/ground_truth/color', '/cam/color/image', '/cam/infra/image'], IMAGE)
    with Bag(write_bag(tmp_path / 'bag', topics)) as bag:
        assert bag.find_topic(IMAGE) == '/cam/color/image'
        assert bag.find_topic(IMAGE, '/cam/infra/image') == '/cam/infra/image'
        assert bag.find_topic(IMAGE, containing='infra') == '/cam/infra/image'


def test_colour_and_depth_of_one_type_are_told_apart_by_name(tmp_path):
    names = ['/c/color/raw', '/c/aligned_depth_to_color/raw', '/c/depth/raw']
    topics = dict.fromkeys(names, IMAGE)
    with Bag(write_bag(tmp_path / 'bag', topics)) as bag:
        assert bag.find_topic(IMAGE, without='depth') == '/c/color/raw'
        assert bag.find_topic(IMAGE, containing='depth') == '/c/aligned_depth_to_color/raw'


def test_an_unclear_choice_lists_the_candidates_and_the_hint(tmp_path):
    with Bag(write_bag(tmp_path / 'bag', {'/left': IMAGE, '/right': IMAGE})) as bag:
        with pytest.raises(BagError, match=r'several.*/left.*/right.*pass --image-topic'):
            bag.find_topic(IMAGE, hint='pass --image-topic')
        with pytest.raises(BagError, match=r'/rear.*/left.*/right'):
            bag.find_topic(IMAGE, '/rear')
        with pytest.raises(BagError, match=r'/left.*String'):
            bag.find_topic(STRING, '/left')
        with pytest.raises(BagError, match=r'no topic of type std_msgs/msg/String'):
            bag.find_topic(STRING)
        with pytest.raises(BagError, match=r'/rear, but /left'):
            bag.messages(['/rear'])


def test_a_missing_bag_is_one_clear_error(tmp_path):
    with pytest.raises(BagError, match='no bag at'), Bag(tmp_path / 'nowhere'):
        pass


def test_a_folder_or_file_that_is_no_bag_is_one_clear_error(tmp_path):
    with pytest.raises(BagError, match=r'no metadata\.yaml'), Bag(tmp_path):
        pass
    (tmp_path / 'notes.txt').write_text('hello')
    with pytest.raises(BagError, match='is no ROS 2 bag'), Bag(tmp_path / 'notes.txt'):
        pass


def test_an_empty_bag_is_one_clear_error(tmp_path):
    with pytest.raises(BagError, match='holds no messages'), \
            Bag(write_bag(tmp_path / 'bag', {'/a': IMAGE}, count=0)):
        pass


@pytest.mark.parametrize('suffix', ['.mcap', '.db3'])
@pytest.mark.parametrize('content', [b'', b'not a bag at all' * 100])
def test_a_file_of_other_content_is_one_clear_error(tmp_path, suffix, content):
    (tmp_path / f'bag{suffix}').write_bytes(content)
    with pytest.raises(BagError, match='damaged'), Bag(tmp_path / f'bag{suffix}'):
        pass


@pytest.mark.parametrize('content', ['', 'rosbag2_bagfile_information: 3', ': [', '- {'])
def test_damaged_metadata_is_one_clear_error(tmp_path, content):
    (write_bag(tmp_path / 'bag', {'/a': IMAGE}) / 'metadata.yaml').write_text(content)
    with pytest.raises(BagError, match='damaged'), Bag(tmp_path / 'bag'):
        pass


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
def test_a_recording_that_was_cut_off_is_one_clear_error(tmp_path, share):
    path = write_bag(tmp_path / 'bag', {'/a': IMAGE}, count=50) / 'bag.mcap'
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(BagError, match='damaged'), Bag(path) as bag:
        list(bag.messages())


def test_a_bag_that_is_not_open_says_so(tmp_path):
    bag = Bag(write_bag(tmp_path / 'bag', {'/a': IMAGE}))
    with bag:
        message = next(bag.messages())
    with pytest.raises(BagError, match=r'^[^:]* is not open'):
        bag.decode(message)
