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

"""The real node with a backend that does nothing, so that only the front end costs time."""

from collections.abc import Sequence
import sys

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe, WindowPrediction
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.ros import node


class NullBackend(Backend):
    """Refuses every window at once."""

    name = 'null'

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """Raise ReconstructionError."""
        raise ReconstructionError('this backend is for benchmarks and reconstructs nothing')

    def statistics(self) -> dict[str, object]:
        """Return nothing."""
        return {}


def create_null_backend(config: Config) -> NullBackend:
    """Stand in for create_backend."""
    return NullBackend()


if __name__ == '__main__':
    node.create_backend = create_null_backend
    node.DIAGNOSTICS_S = 0.2
    sys.exit(node.main())
