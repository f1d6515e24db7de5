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
import math

import numpy as np
import pytest

from benchmarks.evaluate.truth_error import truth_error
from benchmarks.evaluate.worlds import world


@pytest.fixture(scope='module')
def place():
    return world('two_rooms', images=30)


def with_depth(place, factor):
    views = tuple(
        replace(view, depth_m=view.depth_m * np.float32(factor)) for view in place.views)
    return replace(place, views=views)


@pytest.mark.parametrize('factor', [1.0, 1.03, 0.97])
def test_depth_that_is_not_of_its_poses_is_told_by_how_much(place, factor):
    error = truth_error(with_depth(place, factor))
    assert error.points > 300
    assert error.share == pytest.approx(factor - 1, abs=0.005)
    assert f'{error.share:+.1%} off' in str(error)


def test_pictures_without_features_tell_nothing(place):
    views = tuple(replace(view, rgb=np.zeros_like(view.rgb)) for view in place.views)
    error = truth_error(replace(place, views=views))
    assert error.points == 0 and math.isnan(error.share)
