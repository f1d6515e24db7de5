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

"""Depth as image_transport compresses it (compressed_depth_image_transport)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.errors import InputError

# Before the picture: what the numbers mean (an int32), and the float32 A and B of inverse depth.
HEADER_BYTES = 12
PNG_END = b'IEND'
# Damaged data must not ask for all the memory: no depth camera has more pixels.
MAX_PIXELS = 2**25


def decode_depth(form: str, data: Any) -> NDArray[Any]:
    """
    Return (H,W): uint16 as sent, or float32 metres, NaN where unknown, where floats were sent.

    ``form`` is a message's format: '16UC1; compressedDepth png', '32FC1; compressedDepth rvl', or,
    from older publishers, without the last word. Raises InputError for what cannot be decoded.
    """
    encoding, _, transport = (part.strip() for part in form.partition(';'))
    codec = transport.removeprefix('compressedDepth').strip() or 'png'
    if encoding not in ('16UC1', 'mono16', '32FC1') or codec not in ('png', 'rvl'):
        raise InputError(
            f'compressed depth of the format {form!r} is not understood; known are 16UC1 and '
            '32FC1, "; compressedDepth png" and "; compressedDepth rvl"')
    memory = np.frombuffer(data, np.uint8)
    picture = (_decode_png if codec == 'png' else _decode_rvl)(memory[HEADER_BYTES:])
    if picture is None or picture.dtype != np.uint16 or picture.ndim != 2:
        raise InputError(
            f'the compressed depth ({len(memory)} bytes, format {form!r}) cannot be decoded: it '
            'is cut off, or was not made by compressed_depth_image_transport')
    if encoding != '32FC1':
        return picture
    _, a, b = np.frombuffer(memory[:HEADER_BYTES].tobytes(), '<i4, <f4, <f4')[0]
    with np.errstate(divide='ignore'):
        return np.where(picture > 0, a / (picture.astype(np.float32) - b), np.float32(np.nan))


def _decode_png(data: NDArray[np.uint8]) -> NDArray[Any] | None:
    # OpenCV makes up the rest of a picture that is cut off.
    if PNG_END not in data[-12:].tobytes():
        return None
    try:
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def _decode_rvl(data: NDArray[np.uint8]) -> NDArray[np.uint16] | None:
    """
    Return the (H,W) picture of a run-length and variable-length code (Wilson 2017).

    Numbers are written in nibbles, three bits each and one that says that more follow: how many
    zeros, how many others, the differences of these from one to the next, and so on.
    """
    if len(data) < 8:
        return None
    width, height = (int(size) for size in data[:8].view('<u4'))
    words = data[8:len(data) - len(data) % 4].view('<u4')
    if not 0 < width * height <= MAX_PIXELS or not len(words):
        return None
    nibbles = (words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32) & 15).ravel().astype(int)
    starts = np.flatnonzero(np.concatenate([[True], nibbles[:-1] < 8]))
    places = np.arange(len(nibbles)) - np.repeat(starts, np.diff([*starts, len(nibbles)]))
    # No number has more than 32 bits; what is shifted farther is no code.
    numbers = np.add.reduceat((nibbles & 7) << 3 * np.minimum(places, 10), starts)
    picture = np.zeros(width * height, np.uint16)
    other, changes, at, read = np.zeros(width * height, bool), [numbers[:0]], 0, 0
    while at < len(picture):
        if read + 2 > len(numbers):
            return None
        zeros, others = numbers[read:read + 2].tolist()
        read += 2
        at += zeros
        if at + others > len(picture) or read + others > len(numbers):
            return None
        other[at:at + others] = True
        changes.append(numbers[read:read + others])
        at, read = at + others, read + others
    change = np.concatenate(changes)
    picture[other] = np.cumsum(change >> 1 ^ -(change & 1)) & 0xFFFF
    return picture.reshape(height, width)
