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

"""The real node as a process of its own, in a ROS domain that nobody else uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
import os
from pathlib import Path
import random
import signal
import socket
import subprocess
import sys
from types import TracebackType

from mapanything_ros.core.errors import MapAnythingRosError

# Domains above 101 use ports that Linux gives to anybody.
DOMAINS = range(1, 101)
# A domain is taken by binding this port plus its number: what ROS's domain_coordinator does, so
# that tests of any ROS package on this machine keep off too.
FIRST_LOCK_PORT = 32768
STOP_TIMEOUT_S = 20.0
TAIL_LINES = 15
# Fast DDS gives a process 512 KiB of shared memory for all that it sends. A raw image fills
# that, and overwrites what best effort readers have not taken yet: half of all messages get lost.
SHARED_MEMORY = """<?xml version="1.0" encoding="UTF-8" ?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors>
    <transport_descriptor>
      <transport_id>shm</transport_id>
      <type>SHM</type>
      <segment_size>67108864</segment_size>
      <maxMessageSize>16777216</maxMessageSize>
    </transport_descriptor>
    <transport_descriptor>
      <transport_id>udp</transport_id>
      <type>UDPv4</type>
    </transport_descriptor>
  </transport_descriptors>
  <participant profile_name="large_messages" is_default_profile="true">
    <rtps>
      <userTransports>
        <transport_id>shm</transport_id>
        <transport_id>udp</transport_id>
      </userTransports>
      <useBuiltinTransports>false</useBuiltinTransports>
    </rtps>
  </participant>
</profiles>
"""


class DemoError(MapAnythingRosError):
    """The demo cannot go on."""


@contextmanager
def private_domain() -> Iterator[int]:
    """Give a random ROS domain on this machine alone, and keep others off it meanwhile."""
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        lock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            lock.bind(('', FIRST_LOCK_PORT + domain))
        except OSError:
            lock.close()
            continue
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        if os.environ.get('ROS_DISTRO') == 'humble':  # which does not know the line above
            os.environ['ROS_LOCALHOST_ONLY'] = '1'
        with lock:
            yield domain
        return
    raise DemoError('every ROS domain is taken on this machine')


def use_large_shared_memory(profile: Path) -> None:
    """Let this process and its children send large messages, unless Fast DDS is set up already."""
    names = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    if not any(name in os.environ for name in names):
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.write_text(SHARED_MEMORY)
        os.environ.update(dict.fromkeys(names, str(profile.resolve())))


def ros_arguments(
    parameters: Mapping[str, object], remappings: Mapping[str, str],
) -> list[str]:
    """Return the command line of a node's parameters and remappings."""
    arguments = ['--ros-args']
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        # YAML reads '' as text; nothing at all would be null.
        arguments += ['-p', f'{name}:={text or chr(39) * 2}']
    for source, target in remappings.items():
        arguments += ['-r', f'{source}:={target}']
    return arguments


class NodeProcess:
    """Runs ``python -m module`` with arguments, its output in a log file, until left."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, '-m', module, *arguments]
        self._log = log

    def __enter__(self) -> NodeProcess:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open('wb') as log:
            # A session of its own: Ctrl-C reaches the demo, which then stops the node in order.
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise DemoError with the end of the log if the node has died."""
        code = self._process.poll()
        if code is not None:
            raise DemoError(
                f'the node ended with exit code {code}; the end of {self._log}:\n{self.tail()}')

    def tail(self) -> str:
        """Return the last lines of the log."""
        lines = self._log.read_text(errors='replace').splitlines()
        return '\n'.join(f'    {line}' for line in lines[-TAIL_LINES:])
