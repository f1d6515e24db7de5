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

"""Whether a PLY file is whole: Open3D fills up what is missing with whatever is in memory."""

from __future__ import annotations

from pathlib import Path

from mapanything_ros.core.errors import InputError

HEADER_BYTES = 1 << 16
BYTES = {
    'char': 1, 'uchar': 1, 'int8': 1, 'uint8': 1, 'short': 2, 'ushort': 2, 'int16': 2,
    'uint16': 2, 'int': 4, 'uint': 4, 'int32': 4, 'uint32': 4, 'float': 4, 'float32': 4,
    'double': 8, 'float64': 8}
# A face has three corners at least.
CORNERS = 3


def check_whole(path: Path) -> None:
    """Raise InputError where a PLY file is shorter than its header says."""
    with path.open('rb') as file:
        header, end, _ = file.read(HEADER_BYTES).partition(b'end_header')
        file.seek(len(header) + len(end))
        file.readline()
        try:
            lines, least = _needed(header.decode('ascii', 'replace'))
        except (ValueError, IndexError):
            raise InputError(f'{path} has a header that is none of PLY') from None
        if b'format ascii' in header:
            short = sum(1 for line in file if line.strip()) < lines
        else:
            short = path.stat().st_size - file.tell() < least
    if short:
        raise InputError(f'{path} is cut off: it is shorter than its header says; copy it again')


def _needed(header: str) -> tuple[int, int]:
    """Return the number of lines, and the least number of bytes, that a header promises."""
    lines, least, count = 0, 0, 0
    for words in map(str.split, header.splitlines()):
        if words[:1] == ['element']:
            count = int(words[2])
            lines += count
        elif words[:2] == ['property', 'list']:
            least += count * (BYTES.get(words[2], 0) + CORNERS * BYTES.get(words[3], 0))
        elif words[:1] == ['property']:
            least += count * BYTES.get(words[1], 0)
    return lines, least
