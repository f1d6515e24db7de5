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

"""Read ROS 2 bags without ROS: topics, serialised messages, and messages decoded on demand."""
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import get_typestore, Stores

from mapanything_ros.core.errors import InputError

# Of the format of metadata: the newest that Humble's rosbag2 can read, too.
VERSION: Literal[8] = 8
_FOREVER = QosTime(9223372036, 854775807)
# Who subscribes late gets the last message.
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False)


class BagError(InputError):
    """A bag is missing, damaged or empty, or does not hold the topic that is needed."""


class BagMessage(NamedTuple):
    """
    A recorded message, not decoded.

    `log_time_ns` is when it was recorded. `cdr` are the serialised bytes, which an rclpy publisher
    of `msgtype`, for example 'sensor_msgs/msg/Image', publishes as they are.
    """

    topic: str
    log_time_ns: int
    cdr: bytes
    msgtype: str


class Bag:
    """
    A ROS 2 bag, open inside a ``with`` block.

    `path` is the bag's folder or a single .mcap or .db3 file. `topics` maps names to types and
    `counts` to numbers of messages, `start_ns` is the time of the first message and `duration_ns`
    the time from it to the last. Opening a missing, damaged or empty bag raises BagError.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.start_ns = 0
        self.duration_ns = 0
        self._reader: AnyReader | None = None

    def __enter__(self) -> 'Bag':
        if not self.path.exists():
            raise BagError(f'There is no bag at {self.path}: give its folder or its .mcap file.')
        if self.path.is_dir() and not (self.path / 'metadata.yaml').exists():
            raise BagError(f'{self.path} has no metadata.yaml: give the folder of a bag, or run '
                           f'"ros2 bag reindex {self.path}" if its recording was cut off.')
        if self.path.is_file() and self.path.suffix not in ('.mcap', '.db3'):
            raise BagError(f'{self.path} is no ROS 2 bag: give a folder, .mcap or .db3 file.')
        with self._readable():
            reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            reader.open()
        if not reader.message_count:
            reader.close()
            raise BagError(f'{self.path} holds no messages: record it again.')
        self._reader = reader
        self.topics = {c.topic: c.msgtype for c in sorted(reader.connections,
                                                          key=lambda c: c.topic)}
        self.counts = Counter()
        for connection in reader.connections:
            self.counts[connection.topic] += connection.msgcount
        self.start_ns = reader.start_time
        self.duration_ns = reader.end_time - 1 - reader.start_time
        return self

    def __exit__(self, *_: object) -> None:
        self._opened().close()
        self._reader = None

    def find_topic(
        self, msgtype: str, name: str | None = None, *, containing: str = '', without: str = '',
        hint: str = 'name the topic',
    ) -> str:
        """
        Return the topic `name`, or without one the only topic of type `msgtype`.

        Only names that have `containing` in them, and not `without`, count. Of several, topics of
        ground truth stand back, and then color or rgb in the name is preferred. When that leaves
        none or more than one, or `name` has another type, BagError lists what there is and ends
        with `hint`, which tells how to choose.
        """
        if name is not None:
            if self.topics.get(name) != msgtype:
                raise BagError(f'{self.path} has no topic {name} of type {msgtype}, but '
                               f'{self._listing(self.topics)}: {hint}.')
            return name
        found = [topic for topic, kind in self.topics.items() if kind == msgtype
                 and containing in topic and not (without and without in topic)]
        for preferred in (lambda topic: 'ground_truth' not in topic,
                          lambda topic: 'color' in topic or 'rgb' in topic):
            found = [topic for topic in found if preferred(topic)] or found
        if not found:
            raise BagError(f'{self.path} has no topic of type {msgtype} that fits, but '
                           f'{self._listing(self.topics)}: {hint}.')
        if len(found) > 1:
            raise BagError(f'{self.path} has several topics of type {msgtype}, '
                           f'{self._listing(found)}: {hint}.')
        return found[0]

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """
        Yield the messages of `topics` (default: all) in order of recording.

        A topic that the bag lacks, or damaged data on the way, raises BagError.
        """
        wanted = self.topics if topics is None else topics
        if missing := sorted(set(wanted) - set(self.topics)):
            raise BagError(f'{self.path} has no {", ".join(missing)}, but '
                           f'{self._listing(self.topics)}: choose among these.')
        reader = self._opened()
        chosen = [c for c in reader.connections if c.topic in wanted]
        return self._read(reader, chosen)

    def decode(self, message: BagMessage) -> Any:
        """Return the message with the fields of its type; arrays are numpy arrays."""
        reader = self._opened()
        with self._readable():
            return reader.deserialize(message.cdr, message.msgtype)

    def _read(self, reader: AnyReader, connections: list) -> Iterator[BagMessage]:
        # An empty choice would mean every topic to rosbags.
        records = reader.messages(connections) if connections else iter(())
        while True:
            with self._readable():
                record = next(records, None)
            if record is None:
                return
            connection, log_time_ns, cdr = record
            yield BagMessage(connection.topic, log_time_ns, bytes(cdr), connection.msgtype)

    def _opened(self) -> AnyReader:
        if self._reader is None:
            raise BagError(f'{self.path} is not open: use it inside a "with" block.')
        return self._reader

    def _listing(self, topics: Collection[str]) -> str:
        return ', '.join(f'{topic} [{self.topics[topic]}]' for topic in topics)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        # Damaged data surfaces from the storage readers as almost any exception.
        except Exception as error:
            raise BagError(f'{self.path} cannot be read, it may be damaged or cut off (of an '
                           '.mcap file, "mcap recover" saves what is whole): '
                           f'{type(error).__name__}: {error}') from error
