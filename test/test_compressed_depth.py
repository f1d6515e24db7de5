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

"""Compressed depth decodes to what was put in, and what is damaged is refused."""

import cv2
import numpy as np
import pytest

from mapanything_ros.core.errors import InputError
from mapanything_ros.core.frames.compressed_depth import decode_depth

# What compressed_depth_image_transport sets by default, and how it makes A and B of that.
DEPTH_MAX_M, QUANTIZATION = 10.0, 100.0
A = QUANTIZATION * (QUANTIZATION + 1)
B = 1 - A / DEPTH_MAX_M


def header(a: float = 0.0, b: float = 0.0) -> bytes:
    return np.array([0], '<i4').tobytes() + np.array([a, b], '<f4').tobytes()


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode('.png', picture)[1].tobytes()


def number(value: int) -> list[int]:
    """Return the nibbles of a number: three bits each, the lowest first, and one for more."""
    nibbles = []
    while value > 7:
        nibbles.append(value & 7 | 8)
        value >>= 3
    return [*nibbles, value]


def rvl(picture: np.ndarray) -> bytes:
    """Return the code of Wilson's paper (Fast lossless depth image compression, 2017)."""
    values, nibbles, previous, at = picture.ravel().tolist(), [], 0, 0
    while at < len(values):
        start = at
        while at < len(values) and values[at] == 0:
            at += 1
        nibbles += number(at - start)
        end = at
        while end < len(values) and values[end]:
            end += 1
        nibbles += number(end - at)
        for value in values[at:end]:
            change = value - previous
            nibbles += number(2 * change if change >= 0 else -2 * change - 1)
            previous = value
        at = end
    nibbles += [0] * (-len(nibbles) % 8)
    digits = ''.join(f'{nibble:x}' for nibble in nibbles)
    words = np.frombuffer(bytes.fromhex(digits), '>u4')
    return np.array([*picture.shape[::-1], *words], '<u4').tobytes()


@pytest.fixture(scope='module')
def depth_mm() -> np.ndarray:
    """Give noisy walls with holes, and the largest and smallest number."""
    random = np.random.default_rng(0)
    depth = (1500 + random.normal(0, 9, (90, 130)).cumsum(axis=1)).astype(np.uint16)
    depth[random.random(depth.shape) < 0.1] = 0
    depth[20:40, 30:70] = 4000
    depth[-1, -2:] = 65535, 1
    return depth


@pytest.mark.parametrize(('form', 'encode'), [
    ('16UC1; compressedDepth png', png), ('16UC1; compressedDepth', png), ('16UC1', png),
    ('16UC1; compressedDepth rvl', rvl), ('mono16; compressedDepth rvl', rvl)])
def test_millimetres_come_out_to_the_bit(depth_mm, form, encode):
    found = decode_depth(form, header() + encode(depth_mm))
    assert found.dtype == np.uint16
    assert np.array_equal(found, depth_mm)


@pytest.mark.parametrize('encode', [png, rvl])
def test_metres_come_out_as_exact_as_the_publisher_rounds_them(encode):
    """It rounds inverse depth: 0.1 mm at 1 m, 1 cm at 10 m."""
    depth_m = np.linspace(0.3, 9.9, 80 * 60).reshape(60, 80)
    depth_m[10, 10:20] = np.nan
    inverse = np.where(np.isnan(depth_m), 0, A / depth_m + B).astype(np.uint16)
    form = f'32FC1; compressedDepth {encode.__name__}'
    found = decode_depth(form, header(A, B) + encode(inverse))
    assert found.dtype == np.float32
    assert np.array_equal(np.isnan(found), np.isnan(depth_m))
    known = ~np.isnan(depth_m)
    assert (np.abs(found - depth_m)[known] <= 1.05 * depth_m[known] ** 2 / A + 1e-5).all()


def test_nothing_but_holes():
    assert not decode_depth(
        '16UC1; compressedDepth rvl', header() + rvl(np.zeros((480, 640), np.uint16))).any()


@pytest.mark.parametrize('form', [
    'jpeg', '8UC1; compressedDepth png', '16UC1; compressedDepth zstd', '16UC1; jpeg compressed'])
def test_formats_that_are_not_understood(form):
    with pytest.raises(InputError, match='known are 16UC1 and 32FC1'):
        decode_depth(form, header())


@pytest.mark.parametrize(('codec', 'encode'), [('png', png), ('rvl', rvl)])
@pytest.mark.parametrize('share', [0, 0.001, 0.01, 0.5, 0.999])
def test_what_is_cut_off_is_refused(depth_mm, codec, encode, share):
    whole = header() + encode(depth_mm)
    part = whole[:int(len(whole) * share)]
    with pytest.raises(InputError, match=f'{len(part)} bytes.*cut off'):
        decode_depth(f'16UC1; compressedDepth {codec}', part)


@pytest.mark.parametrize('data', [
    png(np.zeros((4, 4, 3), np.uint8)), png(np.zeros((4, 4), np.uint8)),
    np.array([2**16, 2**16, 0, 0], '<u4').tobytes(), np.array([0, 4, 0, 0], '<u4').tobytes(),
    np.array([4, 4, *[0xFFFFFFFF] * 9], '<u4').tobytes(), np.array([8, 8], '<u4').tobytes()])
@pytest.mark.parametrize('codec', ['png', 'rvl'])
def test_what_is_no_depth_is_refused(codec, data):
    with pytest.raises(InputError, match='cannot be decoded'):
        decode_depth(f'16UC1; compressedDepth {codec}', header() + data)
