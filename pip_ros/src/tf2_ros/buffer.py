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

from geometry_msgs.msg import TransformStamped
from rclpy.time import Time
from tf2_py import BufferCore


class Buffer(BufferCore):
    """A BufferCore with the names that ROS 2 gives its lookups; nothing here waits."""

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time
    ) -> TransformStamped:
        """Return target_from_source at a time; raise a TransformException where there is none."""
        return self.lookup_transform_core(target_frame, source_frame, time)

    def can_transform(self, target_frame: str, source_frame: str, time: Time) -> bool:
        """Return whether a lookup would succeed."""
        return self.can_transform_core(target_frame, source_frame, time)[0]
