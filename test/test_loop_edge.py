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

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.estimation.similarity import scale_of
from mapanything_ros.core.places.loop_edge import LoopEdge


def rigid(turn, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    matrix[:3, 3] = shift
    return matrix


OLDER_FROM_NEWER = rigid([0.1, -0.4, 0.2], [0.5, 0.1, -0.3])


def edge(scale=2.5):
    return LoopEdge(3, 40, OLDER_FROM_NEWER, 0.01, 0.01, scale, 0.02)


def test_a_point_of_the_newer_view_is_found_in_the_older_one_in_its_unit():
    in_older = np.array([0.3, -0.2, 4.0, 1.0])
    in_newer = np.linalg.inv(OLDER_FROM_NEWER) @ in_older
    in_newer[:3] *= 2.5
    np.testing.assert_allclose(edge().similarity @ in_newer, in_older, atol=1e-12)
    assert scale_of(edge().similarity) == pytest.approx(1 / 2.5)


@pytest.mark.parametrize('stretch', [1.0, 3.0], ids=['rigid', 'stretched'])
def test_an_error_is_in_the_unit_of_the_older_view_whatever_the_scale_of_the_map(stretch):
    similar = rigid([0.3, 0.9, -1.0], [7, 2, 1]) @ np.diag([stretch] * 3 + [1.0])
    error = rigid([0.0, 0.02, 0.0], [0.0, 0.0, 0.05])
    newer = similar @ OLDER_FROM_NEWER @ error
    np.testing.assert_allclose(
        edge().error(similar, newer), [0, 0.02, 0, 0, 0, 0.05], atol=1e-12)
    assert not edge().fits(similar, newer)
    assert edge().fits(similar, similar @ OLDER_FROM_NEWER)
