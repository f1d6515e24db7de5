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

"""Says on /diagnostics how the node does, and, when nothing comes out, why."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

NAME = 'mapanything: mapping'
# Silence and problems are shown for this long.
RECENT_S = 5.0


class Diagnostics:
    """Publishes one status; levels and texts are judged here, numbers come from the caller."""

    def __init__(self, node: Node, hardware_id: str) -> None:
        self._node = node
        self._hardware_id = hardware_id
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def destroy(self) -> None:
        """Give the topic back."""
        self._node.destroy_publisher(self._publisher)

    def publish(self, level: str, message: str, values: Mapping[str, object]) -> None:
        """Publish a status; ``level`` is 'ok', 'warn' or 'error'."""
        levels = {
            'ok': DiagnosticStatus.OK, 'warn': DiagnosticStatus.WARN,
            'error': DiagnosticStatus.ERROR}
        status = DiagnosticStatus(
            level=levels[level], name=NAME, message=message, hardware_id=self._hardware_id,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


def judge(
    *, clock_ns: int, state: str, topic: str, publishers: int, image_age_s: float, problem: str,
    problem_age_s: float, windows: int, metric: bool,
) -> tuple[str, str]:
    """Return the level and one sentence: what is going on or, first of all, what is missing."""
    if state != 'active':
        return 'ok', state
    if clock_ns == 0:
        return 'warn', (
            'use_sim_time is true but nothing arrives on /clock: play the bag with --clock')
    if image_age_s > RECENT_S:
        why = 'nobody publishes it: start the camera or remap the topic' if not publishers else (
            f'{publishers} publish it: check that they send, and that their QoS fits')
        return 'warn', f'no image on {topic} for {RECENT_S:.0f} s; {why}'
    if problem_age_s < RECENT_S:
        return 'warn', problem
    if not windows:
        return 'ok', 'collecting keyframes'
    if not metric:
        return 'warn', (
            'mapping, but lengths are not metres: use odometry (pose_source tf) or depth '
            '(use_depth)')
    return 'ok', 'mapping'
