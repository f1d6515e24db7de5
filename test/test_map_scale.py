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

import math

import numpy as np
import pytest

from mapanything_ros.core.map_scale import fuse, MapScale, Measured
from mapanything_ros.core.scale import Evidence


def evidence(factor, sigma, source='map'):
    return Evidence(source, factor, sigma, sigma)


def test_nothing_known_is_nothing():
    assert fuse(None, math.inf, None) is None


def test_one_source_alone_is_taken():
    alone = fuse(None, math.inf, evidence(1.3, 0.02, 'odometry'))
    assert (alone.factor, alone.sigma, alone.conflict) == (1.3, 0.02, False)
    chained = fuse(evidence(0.7, 0.03), 0.04, None)
    assert chained.factor == 0.7
    assert chained.sigma == pytest.approx(0.05)


def test_on_a_map_of_unknown_scale_the_anchor_alone_counts():
    found = fuse(evidence(2.0, 0.01), math.inf, evidence(1.1, 0.02, 'depth'))
    assert (found.factor, found.sigma, found.conflict) == (1.1, 0.02, False)
    assert fuse(evidence(2.0, 0.01), math.inf, None).factor == 2.0


def test_two_sources_are_weighted_by_their_variances():
    found = fuse(evidence(1.0, 0.01), 0.0, evidence(1.04, 0.02, 'odometry'))
    assert math.log(found.factor) == pytest.approx(math.log(1.04) * 0.2)
    assert 1 / found.sigma ** 2 == pytest.approx(1 / 0.01 ** 2 + 1 / 0.02 ** 2)


def test_an_anchor_that_contradicts_is_refused_and_said():
    found = fuse(evidence(1.0, 0.01), 0.01, evidence(3.0, 0.02, 'odometry'))
    assert found.conflict
    assert found.factor == 1.0


def test_the_scale_settles_where_the_anchors_are_right_on_average():
    """Chain 300 windows whose joins err by 0.3 % and whose anchors err by 3 % each."""
    random = np.random.default_rng(1)
    errors, plain, sigma, scale = [], [], math.inf, 1.0
    for step in range(300):
        anchor = evidence(math.exp(random.normal(0, 0.03)), 0.03, 'odometry')
        chain = evidence(scale * math.exp(random.normal(0, 0.003)), 0.003) if step else None
        found = fuse(chain, sigma, anchor)
        assert not found.conflict
        scale, sigma = found.factor, found.sigma
        errors.append(abs(math.log(scale)))
        plain.append(abs(math.log(anchor.factor)))
    settled = float(np.mean(errors[50:]))
    assert settled < 0.012
    assert settled < 0.5 * float(np.mean(plain[50:]))
    assert sigma == pytest.approx(math.sqrt(0.003 * 0.03), rel=0.1)


# Windows


def window(scale, chain=None, anchor=None, odometry=None, metric=True):
    """Take a window in as Alignment does; return how the map's scale has it, None if outvoted."""
    measured = Measured(chain, anchor, odometry)
    fused = scale.fuse(measured)
    if fused.conflict and scale.outvoted(measured):
        return None
    scale.remember(measured, fused, metric)
    return fused


def test_one_window_is_outvoted_by_two_that_agree():
    scale = MapScale()
    window(scale, None, evidence(1.0, 0.1, 'model'))
    assert window(scale, evidence(2.7, 0.003), evidence(1.0, 0.1, 'model')).factor == 2.7
    assert window(scale, evidence(2.6, 0.003), evidence(1.0, 0.1, 'model')) is None


def test_two_that_contradict_each_other_outvote_nobody():
    scale = MapScale()
    window(scale, None, evidence(1.0, 0.1, 'model'))
    assert window(scale, evidence(1.0, 0.003), evidence(3.0, 0.1, 'model')).conflict
    assert window(scale, evidence(1.0, 0.003), evidence(0.3, 0.1, 'model')).conflict


def test_a_map_that_many_windows_made_outlasts_as_many_that_slip():
    scale = MapScale()
    window(scale, None, evidence(1.0, 0.01, 'odometry'))
    for _ in range(4):
        window(scale, evidence(1.0, 0.003), evidence(1.0, 0.01, 'odometry'))
    for _ in range(5):
        assert window(scale, evidence(1.0, 0.003), evidence(1.4, 0.01, 'odometry')).factor == 1.0
    assert window(scale, evidence(1.0, 0.003), evidence(1.4, 0.01, 'odometry')) is None


def test_odometry_tells_a_map_s_scale_where_windows_share_nothing():
    """The odometry's metres are 0.9 of the map's; each window's own are 10 % off by chance."""
    random = np.random.default_rng(4)
    scale, factor = MapScale(), 1.0
    assert scale.bridged(evidence(1.0, 0.01, 'odometry')) is None
    for number in range(20):
        own = evidence(factor * math.exp(random.normal(0, 0.1)), 0.1, 'model')
        chain = evidence(factor, 0.003) if number else None
        odometry = evidence(factor / 0.9 * math.exp(random.normal(0, 0.02)), 0.02, 'odometry')
        factor = window(scale, chain, own, odometry).factor
    found = scale.bridged(evidence(1.3 / 0.9, 0.02, 'odometry'))
    assert found.source == 'map'
    # As the first windows were, not as this one by itself would be.
    assert found.factor == pytest.approx(1.3, rel=0.02)
    assert 0.02 < found.sigma < 0.03


def test_odometry_s_metres_follow_when_the_map_s_change():
    scale = MapScale()
    window(scale, None, evidence(1.2, 0.1, 'model'), evidence(1.0, 0.01, 'odometry'))
    assert scale.bridged(evidence(1.0, 0.0, 'odometry')).factor == pytest.approx(1.2)
    found = window(
        scale, evidence(1.2, 0.003), evidence(1.0, 0.001, 'depth'),
        evidence(1.0, 0.01, 'odometry'))
    assert found.factor == pytest.approx(1.0, abs=1e-3)
    assert scale.bridged(evidence(1.0, 0.0, 'odometry')).factor == pytest.approx(1.0, abs=1e-3)


def test_a_map_that_is_not_in_metres_has_no_odometry_either():
    scale = MapScale()
    window(scale, evidence(1.0, 0.01), None, evidence(2.0, 0.01, 'odometry'), metric=False)
    assert not scale.metric
    assert scale.bridged(evidence(1.0, 0.01, 'odometry')) is None
