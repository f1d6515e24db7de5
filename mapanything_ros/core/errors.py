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

"""One exception per failure; the texts say what to do, and the node only decides how to log."""


class MapAnythingRosError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(MapAnythingRosError):
    """A parameter has a value that cannot work."""


class InputError(MapAnythingRosError):
    """A message or file holds data that cannot be used; the next good one can be."""


class MissingLibraryError(MapAnythingRosError):
    """A library that not every machine has is missing; the text says how to install it."""


class BackendUnavailableError(MapAnythingRosError):
    """A backend cannot run here: a library, device or file is missing."""


class GpuLostError(MapAnythingRosError):
    """The GPU answers this process no more; only a new process can use it again."""


class ReconstructionError(MapAnythingRosError):
    """A backend could not reconstruct this window; another window may work."""


class WindowTooLargeError(ReconstructionError):
    """A window needs more memory than there is; ``fits`` (2 or more) may work, 0: none would."""

    def __init__(self, text: str, fits: int) -> None:
        super().__init__(text)
        self.fits = fits


class AlignmentError(MapAnythingRosError):
    """A window cannot be placed in the map."""


class ExportError(MapAnythingRosError):
    """A result could not be written."""


def first_line(error: BaseException) -> str:
    """Return what an error says in its first line, or its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
