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

class TransformException(Exception):
    """Any reason why a transform cannot be given."""


class ConnectivityException(TransformException):
    """The two frames are in different trees."""


class LookupException(TransformException):
    """A frame is unknown, or the tree has a loop."""


class ExtrapolationException(TransformException):
    """The time asked for is outside of what the buffer holds."""


class InvalidArgumentException(TransformException):
    """A frame's name is empty or begins with a slash."""
