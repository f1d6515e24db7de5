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

"""Finds the keyframes that look like a new one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Words of the visual vocabulary; a place's descriptor has 128 numbers a word.
WORDS = 32
# Lloyd's iterations, and the features that they use.
ITERATIONS = 15
TRAINING_FEATURES = 20_000


class Vocabulary:
    """
    Describes pictures by how their features differ from typical ones (VLAD, Jegou et al. 2010).

    Learned from features (N,128), unit rows; the same features give the same words.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        if len(features) < WORDS:
            raise ValueError(f'a vocabulary of {WORDS} words needs as many features')
        rng = np.random.default_rng(0)
        if len(features) > TRAINING_FEATURES:
            features = features[rng.permutation(len(features))[:TRAINING_FEATURES]]
        self._words = features[rng.permutation(len(features))[:WORDS]]
        for _ in range(ITERATIONS):
            nearest = self._nearest(features)
            for word in range(WORDS):
                members = features[nearest == word]
                if len(members):
                    self._words[word] = members.mean(axis=0)

    def describe(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the descriptor of a picture with features (N,128), unit rows."""
        nearest = self._nearest(features)
        total = np.zeros_like(self._words)
        np.add.at(total, nearest, features - self._words[nearest])
        # Each word alike: a wall full of one pattern must not drown the rest.
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
        return total.ravel() / max(float(np.linalg.norm(total)), 1e-9)

    def _nearest(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        distance = (self._words ** 2).sum(axis=1) - 2 * features @ self._words.T
        return distance.argmin(axis=1)


class PlaceRecognition:
    """The newest ``capacity`` places, each with an id that rises and a descriptor."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ids = np.empty(0, np.int64)
        self._descriptors = np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def clear(self) -> None:
        """Forget all places."""
        self._ids = np.empty(0, np.int64)

    def add(self, place_id: int, descriptor: NDArray[np.float32]) -> None:
        """Remember a place; the oldest goes where there are too many."""
        count = len(self._ids)
        if count == 0:
            self._descriptors = np.empty((16, len(descriptor)), np.float32)
        elif count == self._capacity:
            self._descriptors[:count - 1] = self._descriptors[1:count]
            self._ids = self._ids[1:]
            count -= 1
        elif count == len(self._descriptors):
            spare = np.empty_like(self._descriptors)
            self._descriptors = np.concatenate([self._descriptors, spare])[:self._capacity]
        self._descriptors[count] = descriptor
        self._ids = np.append(self._ids, place_id)

    def similar(
        self, descriptor: NDArray[np.float32], among: Sequence[int] | NDArray[np.int64],
        count: int, apart: int,
    ) -> list[int]:
        """
        Return the ids of the ``count`` most similar places, best first, out of those ``among``.

        Of places less than ``apart`` ids from each other only the best is given. What all places
        have in common does not count.
        """
        wanted = np.isin(self._ids, among)
        ids = self._ids[wanted]
        places = self._descriptors[:len(self._ids)]
        common = places.mean(axis=0) if len(places) else 0.0
        centred = places[wanted] - common
        likeness = centred @ (descriptor - common)
        likeness /= np.maximum(np.linalg.norm(centred, axis=1), 1e-9)
        found: list[int] = []
        for index in np.lexsort((ids, -likeness)):
            if len(found) == count:
                break
            if all(abs(int(ids[index]) - other) >= apart for other in found):
                found.append(int(ids[index]))
        return found
