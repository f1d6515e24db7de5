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

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tf_transformations import quaternion_from_matrix, quaternion_matrix

unit = st.floats(-1, 1).filter(lambda value: abs(value) > 1e-3)
rotations = st.tuples(unit, unit, unit, unit).map(Rotation.from_quat)


@given(rotations)
def test_a_quaternion_turns_as_its_matrix_does(rotation):
    matrix = quaternion_matrix(rotation.as_quat())
    np.testing.assert_allclose(matrix[:3, :3], rotation.as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])
    np.testing.assert_array_equal(matrix[:3, 3], 0)


@given(rotations)
def test_a_matrix_gives_its_quaternion_back_wherever_it_moves_to(rotation):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = 100, -20, 3
    found = quaternion_from_matrix(matrix)
    assert found[3] >= 0
    assert abs(np.dot(found, rotation.as_quat())) == pytest.approx(1.0, abs=1e-9)
