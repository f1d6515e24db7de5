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

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import tf_transformations as tf

unit = st.floats(-1, 1).filter(lambda value: abs(value) > 1e-3)
quaternions = st.tuples(unit, unit, unit, unit).map(lambda parts: tuple(tf.unit_vector(parts)))
positions = st.tuples(*[st.floats(-100, 100)] * 3)
X, Y, Z = np.eye(3)


def same_rotation(first, second) -> bool:
    return abs(np.dot(first, second)) == pytest.approx(1.0, abs=1e-9)


def test_axes_turn_the_right_way():
    quarter_turn_left = tf.quaternion_from_euler(0, 0, math.pi / 2)
    assert quarter_turn_left == pytest.approx((0, 0, math.sqrt(0.5), math.sqrt(0.5)))
    np.testing.assert_allclose(tf.quaternion_matrix(quarter_turn_left)[:3, :3] @ X, Y, atol=1e-12)
    roll = tf.rotation_matrix(math.pi / 2, X)
    np.testing.assert_allclose(roll[:3, :3] @ Y, Z, atol=1e-12)


def test_euler_angles_are_roll_pitch_yaw_about_fixed_axes():
    roll, pitch, yaw = 0.1, -0.2, 0.3
    expected = (
        tf.rotation_matrix(yaw, Z) @ tf.rotation_matrix(pitch, Y) @ tf.rotation_matrix(roll, X)
    )
    np.testing.assert_allclose(tf.euler_matrix(roll, pitch, yaw), expected, atol=1e-12)
    quat = tf.quaternion_from_euler(roll, pitch, yaw)
    assert tf.euler_from_quaternion(quat) == pytest.approx((roll, pitch, yaw))


@given(quaternions, positions)
def test_matrices_and_quaternions_are_two_forms_of_one_rotation(quat, position):
    matrix = tf.translation_matrix(position) @ tf.quaternion_matrix(quat)
    assert same_rotation(tf.quaternion_from_matrix(matrix), quat)
    np.testing.assert_allclose(tf.translation_from_matrix(matrix), position)
    np.testing.assert_allclose(
        tf.concatenate_matrices(matrix, tf.inverse_matrix(matrix)), np.eye(4), atol=1e-9
    )


@given(quaternions, quaternions)
def test_the_product_applies_the_second_rotation_first(first, second):
    product = tf.quaternion_matrix(tf.quaternion_multiply(first, second))
    expected = tf.quaternion_matrix(first) @ tf.quaternion_matrix(second)
    np.testing.assert_allclose(product, expected, atol=1e-9)
    undone = tf.quaternion_multiply(tf.quaternion_inverse(first), first)
    np.testing.assert_allclose(undone, (0, 0, 0, 1), atol=1e-9)


@pytest.mark.parametrize('fraction', [0.0, 0.25, 0.5, 1.0])
def test_slerp_turns_at_constant_speed_along_the_shorter_arc(fraction):
    start = tf.quaternion_about_axis(math.radians(10), Z)
    end = -np.array(tf.quaternion_about_axis(math.radians(90), Z))
    expected = tf.quaternion_about_axis(math.radians(10 + 80 * fraction), Z)
    assert same_rotation(tf.quaternion_slerp(start, end, fraction), expected)


def test_a_matrix_comes_apart_into_what_it_was_made_of():
    made = tf.compose_matrix((2, 3, 4), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (7, 8, 9))
    scale, shear, angles, translation, _ = tf.decompose_matrix(made)
    np.testing.assert_allclose(scale, (2, 3, 4))
    np.testing.assert_allclose(shear, (0.1, 0.2, 0.3))
    np.testing.assert_allclose(angles, (0.4, 0.5, 0.6))
    np.testing.assert_allclose(translation, (7, 8, 9))
    assert tf.is_same_transform(made, 5 * made)
    assert not tf.is_same_transform(made, tf.identity_matrix())


def test_a_rotation_about_a_point_leaves_the_point():
    turn = tf.rotation_matrix(1.2, Z, point=(3, 4, 0))
    np.testing.assert_allclose(turn @ (3, 4, 5, 1), (3, 4, 5, 1))
    angle, axis, _ = tf.rotation_from_matrix(turn)
    assert angle * axis[2] == pytest.approx(1.2)


def test_scaling_about_an_origin_is_found_again():
    scaling = tf.scale_matrix(2.5, (1, 2, 3))
    np.testing.assert_allclose(scaling @ (2, 2, 3, 1), (3.5, 2, 3, 1))
    factor, origin, _ = tf.scale_from_matrix(scaling)
    assert factor == pytest.approx(2.5)
    np.testing.assert_allclose(origin[:3], (1, 2, 3), atol=1e-9)


def test_random_rotations_are_rotations():
    for _ in range(20):
        rotation = tf.random_rotation_matrix()[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_vectors_are_measured_along_an_axis():
    vectors = np.array([[3.0, 0.0], [4.0, 2.0]])
    np.testing.assert_allclose(tf.vector_norm(vectors, axis=0), [5, 2])
    np.testing.assert_allclose(tf.unit_vector(vectors, axis=0), [[0.6, 0], [0.8, 1]])
    assert tf.vector_norm([3, 4]) == 5.0
