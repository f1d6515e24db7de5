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

"""Keeps the process's signal handlers while a library is imported that installs its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import ctypes
import signal

# struct sigaction has 152 bytes with glibc on 64 bits; more does no harm.
SIGACTION_BYTES = 512


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """
    Restore all signal handlers at the end, also those that Python does not know of.

    rclpy and faulthandler install theirs in C: `signal.getsignal` cannot see them, and
    `signal.signal` works in the main thread only. sigaction does both.
    """
    libc = ctypes.CDLL(None)
    saved = {}
    for number in signal.valid_signals():
        action = ctypes.create_string_buffer(SIGACTION_BYTES)
        if libc.sigaction(int(number), None, action) == 0:
            saved[int(number)] = action
    try:
        yield
    finally:
        for saved_number, action in saved.items():
            libc.sigaction(saved_number, action, None)
