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

from dataclasses import replace

import numpy as np
import pytest
import torch

from mapanything_ros.core.datatypes import Prediction
from mapanything_ros.core.map.depth_merge import CONTRADICTION, merged

HEIGHT, WIDTH = 3, 4
K = np.array([[4.0, 0, 1.5], [0, 4, 1.0], [0, 0, 1]])


def view(depth_m, confidence=0.5, mask=True, number=7):
    """Give what a window says about a keyframe; numbers stand for whole images."""
    def image(value, dtype):
        return torch.from_numpy(np.array(np.broadcast_to(value, (HEIGHT, WIDTH)), dtype))

    return Prediction(
        number, torch.full((HEIGHT, WIDTH, 3), 90, dtype=torch.uint8), image(depth_m, np.float32),
        image(confidence, np.float32), image(mask, bool), K, np.eye(4))


def left(columns):
    """Give a mask of the image's first columns."""
    return np.arange(WIDTH) < columns


def test_depths_that_agree_are_averaged_by_confidence():
    both = merged(view(2.0, 0.75), view(2.1, 0.25))
    assert both.mask.all()
    torch.testing.assert_close(both.depth_m, torch.full((HEIGHT, WIDTH), 2.025))
    assert (both.confidence == 0.75).all()


def test_what_one_alone_keeps_is_kept_as_it_is():
    """Whatever the other has there, which means nothing."""
    both = merged(view(2.0, 0.75, left(2)), view(np.where(left(1), 2.0, np.nan), 0.25, left(1)))
    np.testing.assert_array_equal(both.mask[0], left(2))
    assert both.depth_m[0].tolist() == [2.0, 2.0, 0.0, 0.0]
    assert both.confidence[0].tolist() == [0.75, 0.75, 0.0, 0.0]
    alone = merged(view(np.inf, np.nan, False), view(3.0, 0.0))
    assert (alone.depth_m == 3.0).all() and alone.mask.all()


def test_depths_that_contradict_each_other_are_dropped():
    off = 1 + CONTRADICTION
    both = merged(view(2.0, 1.0), view(np.where(left(3), 2.0, 2.0 * off * off), 0.5))
    np.testing.assert_array_equal(both.mask[0], left(3))
    assert both.confidence[0, 3] == 0.0
    assert merged(view(2.0), view(2.0 * (1 + 0.9 * CONTRADICTION))).mask.all()


@pytest.mark.parametrize('confidence', [0.0, 1.0])
def test_pixels_of_no_confidence_count_where_there_is_nothing_better(confidence):
    depth_m = merged(view(2.0, 0.0), view(2.1, confidence)).depth_m
    assert (depth_m - (2.1 if confidence else 2.05)).abs().max() < 1e-3


def test_the_order_changes_neither_depth_nor_mask():
    rng = np.random.default_rng(0)
    one, other = (view(
        2 + 0.2 * rng.random((HEIGHT, WIDTH)), rng.random((HEIGHT, WIDTH)),
        rng.random((HEIGHT, WIDTH)) < 0.7) for _ in range(2))
    there, back = merged(one, other), merged(other, one)
    for name in ('depth_m', 'mask', 'confidence'):
        assert torch.equal(getattr(there, name), getattr(back, name))


def test_all_else_is_of_the_later_window_and_so_is_another_size():
    later = replace(view(2.0), world_from_camera=np.diag([1.0, 1.0, 1.0, 1.0]) + 1.0)
    assert merged(view(2.0), later).world_from_camera is later.world_from_camera
    small = replace(
        later, depth_m=later.depth_m[1:], confidence=later.confidence[1:], mask=later.mask[1:],
        rgb=later.rgb[1:])
    assert merged(later, small) is small


def test_a_window_that_contradicts_another_as_a_whole_changes_nothing():
    before = view(2.0, 0.75, left(3))
    both = merged(before, view(3.0, 1.0))
    for name in ('depth_m', 'mask', 'confidence'):
        assert torch.equal(getattr(both, name), getattr(before, name))


def test_averaging_two_windows_halves_the_variance():
    """With noise of 1 % in each, and a truth that is exact; nothing is dropped."""
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(200):
        one, other = (view(3.0 * (1 + 0.01 * rng.standard_normal((HEIGHT, WIDTH))))
                      for _ in range(2))
        both = merged(one, other)
        assert both.mask.all()
        errors.append(both.depth_m.numpy() / 3.0 - 1)
    assert np.std(errors) == pytest.approx(0.01 / 2 ** 0.5, rel=0.05)
