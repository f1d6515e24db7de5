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

"""What the node would send on /tf during a drive, in both of its modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

from geometry_msgs.msg import TransformStamped
from rclpy.logging import get_logger
from tf2_msgs.msg import TFMessage

from benchmarks.evaluate.tf_faults import faults_of
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Array, Keyframe, Submap
from mapanything_ros.ros.reporter import Reporter
from mapanything_ros.ros.tf_output import TfOutput
from mapanything_ros.ros.transforms import to_header, to_transform
from mapanything_ros.ros.tree_buffer import TreeBuffer

MODES = ('map_to_odom', 'map_to_camera')


class TfRecord:
    """
    Stands for a robot's /tf with the node's own part in it, made by the node's own code.

    In map_to_odom the robot sends odom->camera at each image; in map_to_camera, which is all there
    is without odometry, it sends nothing.
    """

    def __init__(self, config: Config) -> None:
        modes = MODES if config.has_odometry else MODES[1:]
        self._heard: dict[str, list[TransformStamped]] = {mode: [] for mode in modes}
        self._outputs = {mode: self._output(config, mode) for mode in modes}
        self._odom_frame = config.tf.odom_frame

    def image(self, stamp_ns: int, frame_id: str, odom_from_camera: Array) -> None:
        """Take note of an image, which is also when map->odom is sent again."""
        if self._odom_frame:
            self._heard['map_to_odom'].append(to_transform(
                odom_from_camera, to_header(stamp_ns, self._odom_frame), frame_id))
        for output in self._outputs.values():
            output.tick(stamp_ns)

    def window(
        self, submap: Submap, keyframes: Sequence[Keyframe], map_from_odom: Array | None,
    ) -> None:
        """Send what a window's outputs are, as the mapper does."""
        for output in self._outputs.values():
            output.correct(map_from_odom)
            output.send_keyframes(submap, keyframes)

    def faults(self) -> list[str]:
        """Return all that a listener would stumble over."""
        return [
            f'{mode}: {fault}' for mode, heard in self._heard.items()
            if heard for fault in faults_of(heard, [])]

    def _output(self, config: Config, mode: str) -> TfOutput:
        def publish(message: TFMessage) -> None:
            self._heard[mode].extend(message.transforms)

        publisher = SimpleNamespace(publish=publish)
        node = SimpleNamespace(create_publisher=lambda *_, **__: publisher)
        tf = replace(config.tf, mode=mode, base_frame='camera', tolerance_s=0.0)
        output = TfOutput(
            node, replace(config, tf=tf), TreeBuffer(), Reporter(get_logger('evaluate')))
        output.active = True
        return output
