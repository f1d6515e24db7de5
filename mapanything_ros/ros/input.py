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

"""A subscription that fits whatever reliability the sensor offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

DEPTH = 5


def topic_of(node: Node, name: str, otherwise: str) -> str:
    """Return the topic that a name is remapped to; ``otherwise`` where it is not remapped."""
    topic = node.resolve_topic_name(name)
    return otherwise if topic == node.resolve_topic_name(name, only_expand=True) else topic


def transport_topic(node: Node, base: str, transport: str) -> str:
    """Return where a transport of a topic is: below it, remapped as it is (image_transport)."""
    return topic_of(
        node, f'{base}/{transport}', f'{node.resolve_topic_name(base)}/{transport}')


def info_topic(node: Node, base: str) -> str:
    """Return where the camera_info of images is: beside them, as image_transport has it."""
    folder = node.resolve_topic_name(base).rpartition('/')[0]
    return topic_of(node, f'{base}/camera_info', f'{folder}/camera_info')


class Input:
    """
    Subscribes reliably, and best-effort once a publisher shows that it offers no more.

    Best effort from the start would fit every publisher but lose most images of a megabyte and
    more: Fast DDS splits them, and without repair one lost piece loses the image.
    """

    def __init__(
        self, node: Node, kind: type, topic: str, callback: Callable[[Any], None]
    ) -> None:
        self._node = node
        self._kind = kind
        self._name = topic
        self._callback = callback
        self._refused = False
        self._subscription = self._subscribe(ReliabilityPolicy.RELIABLE)

    @property
    def topic(self) -> str:
        """Return the topic's full name, after remapping."""
        return str(self._subscription.topic_name)

    def adapt(self) -> None:
        """Subscribe again where a publisher has refused; to be called now and then."""
        if self._refused:
            self._refused = False
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribe(ReliabilityPolicy.BEST_EFFORT)
            self._node.get_logger().info(f'{self.topic} is best effort; so is the subscription')

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, reliability: ReliabilityPolicy) -> Any:
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        quality = QoSProfile(depth=DEPTH, reliability=reliability)
        return self._node.create_subscription(
            self._kind, self._name, self._callback, quality, event_callbacks=events)

    def _on_incompatible(self, event: Any) -> None:
        # A subscription must not go while the executor is at its event.
        self._refused = True
