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

from mapanything_ros.core.places.place_recognition import PlaceRecognition, Vocabulary, WORDS


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def place(angle_deg):
    """Give a descriptor that turns with the angle, and has a large part that all places share."""
    angle = np.radians(angle_deg)
    return np.array([np.cos(angle), np.sin(angle), 20.0], np.float32)


@pytest.fixture
def circle():
    recognition = PlaceRecognition(100)
    for number in range(36):
        recognition.add(number, place(10 * number))
    return recognition


def test_the_most_similar_places_come_best_first_and_apart(circle):
    assert circle.similar(place(101), range(36), count=3, apart=1) == [10, 11, 9]
    assert circle.similar(place(101), range(36), count=3, apart=4) == [10, 14, 6]


def test_only_places_that_are_asked_for_are_given(circle):
    assert circle.similar(place(100), range(20, 30), count=2, apart=3) == [20, 23]
    assert circle.similar(place(100), [], count=2, apart=3) == []
    assert circle.similar(place(100), [99], count=2, apart=3) == []


def test_an_empty_memory_knows_no_place():
    assert PlaceRecognition(10).similar(place(0), range(10), count=3, apart=1) == []


def test_what_is_forgotten_makes_room_and_is_not_found_again():
    recognition = PlaceRecognition(8)
    for number in range(21):
        if number >= 8:
            # Not in the order in which they came.
            recognition.forget((number - 8) ^ 1)
        recognition.add(number, place(10 * number))
        assert len(recognition) == min(number + 1, 8)
    everything = recognition.similar(place(0), range(21), count=21, apart=1)
    assert sorted(everything) == [12, *range(14, 21)]
    assert recognition.similar(place(152), range(21), count=1, apart=1) == [15]


def test_there_is_no_room_for_more_than_that_and_nothing_to_forget_twice():
    recognition = PlaceRecognition(1)
    recognition.add(3, place(0))
    with pytest.raises(ValueError, match='no room for more than 1 places'):
        recognition.add(4, place(10))
    recognition.forget(3)
    with pytest.raises(ValueError, match='3'):
        recognition.forget(3)


def pictures(seed, kinds, count=60):
    """Give features of pictures that show these kinds of things, with noise."""
    rng = np.random.default_rng(seed)
    things = unit(np.abs(np.random.default_rng(0).standard_normal((20, 128))))
    chosen = things[rng.choice(kinds, count)]
    return unit(chosen + 0.02 * np.abs(rng.standard_normal((count, 128))))


def test_pictures_of_the_same_things_are_described_alike():
    vocabulary = Vocabulary(pictures(1, range(20), 2000))
    one, again, other = (
        vocabulary.describe(pictures(seed, kinds))
        for seed, kinds in ((2, range(6)), (3, range(6)), (4, range(10, 16))))
    assert one.shape == (WORDS * 128,)
    for descriptor in (one, again, other):
        assert np.linalg.norm(descriptor) == pytest.approx(1.0, abs=1e-5)
    assert one @ again > one @ other + 0.1


def test_the_same_features_give_the_same_vocabulary():
    features = pictures(1, range(20), 500)
    picture = pictures(2, range(5))
    np.testing.assert_array_equal(
        Vocabulary(features).describe(picture), Vocabulary(features.copy()).describe(picture))


def test_a_vocabulary_needs_a_feature_a_word():
    with pytest.raises(ValueError, match=f'a vocabulary of {WORDS} words needs as many features'):
        Vocabulary(pictures(1, range(20), WORDS - 1))
