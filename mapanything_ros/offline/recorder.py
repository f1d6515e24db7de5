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

"""Collects over DDS all that the node publishes, and calls its services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger

from mapanything_ros.core.datatypes import Array
from mapanything_ros.offline.node_process import DemoError
from mapanything_ros.offline.truth import image_array, stamp_ns

DIAGNOSTICS_NAME = 'mapanything: mapping'
POLL_S = 0.05
ASK_AGAIN_S = 5.0
# Deep enough that no keyframe of a bag is lost while this process is busy playing.
LOSSLESS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PARTS = {'image': Image, 'camera_info': CameraInfo, 'depth': Image, 'confidence': Image}


@dataclass(frozen=True, eq=False)
class PublishedKeyframe:
    """A keyframe as it came over DDS; (H,W,...) arrays of one size, depth metres or NaN."""

    stamp_ns: int
    frame_id: str
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    intrinsics: Array


class Recorder:
    """
    Listens to a mapping node by its name, through a ROS node that another thread spins.

    ``check`` is called while waiting; it raises when there is nothing to wait for any more.
    """

    def __init__(self, node: Node, check: Callable[[], None], name: str = 'mapanything') -> None:
        self._node = node
        self._check = check
        self._name = name
        self._lock = Lock()
        self._sets: dict[int, dict[str, Any]] = defaultdict(dict)
        self._status: tuple[float, DiagnosticStatus] | None = None
        self._map_points = 0
        for part, message_type in PARTS.items():
            node.create_subscription(
                message_type, f'/{name}/keyframe/{part}', self._keeper(part), LOSSLESS)
        node.create_subscription(PointCloud2, f'/{name}/map', self._keep_map, LATCHED)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._keep_status, 10)

    def _keeper(self, part: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            with self._lock:
                self._sets[stamp_ns(message)][part] = message
        return keep

    def _keep_map(self, message: PointCloud2) -> None:
        self._map_points = message.width * message.height

    def _keep_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == DIAGNOSTICS_NAME:
                self._status = time.monotonic(), status

    @property
    def map_points(self) -> int:
        """Return how many points the latest map had."""
        return self._map_points

    def stamps(self) -> set[int]:
        """Return the stamps of the keyframes whose messages have all arrived."""
        with self._lock:
            return {stamp for stamp, parts in self._sets.items() if len(parts) == len(PARTS)}

    def keyframes(self) -> list[PublishedKeyframe]:
        """Return the complete keyframes by rising stamp."""
        return [self._decode(stamp) for stamp in sorted(self.stamps())]

    def _decode(self, stamp: int) -> PublishedKeyframe:
        parts = self._sets[stamp]
        return PublishedKeyframe(
            stamp_ns=stamp,
            frame_id=parts['depth'].header.frame_id,
            rgb=image_array(parts['image']),
            depth_m=image_array(parts['depth']),
            confidence=image_array(parts['confidence']),
            intrinsics=np.reshape(parts['camera_info'].k, (3, 3)),
        )

    def diagnostics(self) -> dict[str, str]:
        """Return the latest values of the node's diagnostics, and its summary as ``message``."""
        if self._status is None:
            return {}
        status = self._status[1]
        return {'message': status.message, **{item.key: item.value for item in status.values}}

    def counts(self) -> tuple[int, int]:
        """Return how many keyframes the node has taken, and how many windows are over."""
        values = self.diagnostics()
        done = int(values.get('windows', 0)) + int(values.get('windows_failed', 0))
        return int(values.get('keyframes', 0)), done

    def wait_for_diagnostics(self, timeout_s: float) -> dict[str, str]:
        """Return diagnostics that were sent after this call."""
        start_s = time.monotonic()
        self._wait(
            lambda: self._status is not None and self._status[0] > start_s, timeout_s,
            f'/diagnostics did not report {DIAGNOSTICS_NAME!r}')
        return self.diagnostics()

    def wait_until_active(self, timeout_s: float) -> None:
        """Wait until the lifecycle node is active."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            answer = self._call(GetState, 'get_state', left_s)
            if answer.current_state.id == State.PRIMARY_STATE_ACTIVE:
                return
            if left_s < 1:
                raise DemoError(
                    f'the node is still {answer.current_state.label} after {timeout_s:g} s')
            time.sleep(POLL_S)

    def trigger(self, service: str, timeout_s: float) -> tuple[bool, str]:
        """Call one of the node's Trigger services; return whether it succeeded, and its text."""
        answer = self._call(Trigger, service, timeout_s)
        return answer.success, answer.message

    def _call(self, service_type: Any, service: str, timeout_s: float) -> Any:
        name = f'/{self._name}/{service}'
        client = self._node.create_client(service_type, name)
        try:
            self._wait(client.service_is_ready, timeout_s, f'there is no service {name}')
            futures: list[Any] = []
            asked_s = float('-inf')

            def answered() -> Any:
                nonlocal asked_s
                # An answer is lost where the node does not know this client yet: what is asked
                # here may be asked twice.
                if time.monotonic() - asked_s > ASK_AGAIN_S:
                    asked_s = time.monotonic()
                    futures.append(client.call_async(service_type.Request()))
                return next((future for future in futures if future.done()), None)

            return self._wait(answered, timeout_s, f'{name} did not answer').result()
        finally:
            self._node.destroy_client(client)

    def _wait(self, done: Callable[[], Any], timeout_s: float, problem: str) -> Any:
        """Return what ``done`` says when that is true."""
        deadline_s = time.monotonic() + timeout_s
        while not (value := done()):
            self._check()
            if time.monotonic() > deadline_s:
                raise DemoError(f'{problem} within {timeout_s:.0f} s')
            time.sleep(POLL_S)
        return value

    def wait_for_keyframes(self, stamps: set[int], timeout_s: float) -> None:
        """Wait until all messages of these keyframes have arrived."""
        self._wait(
            lambda: stamps <= self.stamps(), timeout_s,
            f'the messages of {len(stamps)} keyframes did not all arrive')
