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
import torch

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
        alike = (torch.from_numpy(features) @ torch.from_numpy(self._words).T).numpy()
        return ((self._words ** 2).sum(axis=1) - 2 * alike).argmin(axis=1)


class PlaceRecognition:
    """Up to ``capacity`` places, each with an id and a descriptor."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ids: list[int] = []
        self._descriptors = torch.empty(0, 1)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, place_id: int) -> bool:
        return place_id in self._ids

    def add(self, place_id: int, descriptor: NDArray[np.float32]) -> None:
        """Remember a place; raise ValueError where there are too many."""
        row = len(self._ids)
        if row == self._capacity:
            raise ValueError(f'no room for more than {self._capacity} places')
        self._ids.append(place_id)
        if row == len(self._descriptors):
            grown = torch.empty(min(max(2 * row, 64), self._capacity), len(descriptor))
            grown[:row] = self._descriptors
            self._descriptors = grown
        self._descriptors[row] = torch.from_numpy(descriptor)

    def forget(self, place_id: int) -> None:
        """Forget a place; the last one takes its row. Raise ValueError where there is none."""
        row = self._ids.index(place_id)
        self._descriptors[row] = self._descriptors[len(self._ids) - 1]
        self._ids[row] = self._ids[-1]
        self._ids.pop()

    def similar(
        self, descriptor: NDArray[np.float32], among: Sequence[int], count: int, apart: int,
    ) -> list[int]:
        """
        Return the ids of the ``count`` most similar places, best first, out of those ``among``.

        Of places less than ``apart`` ids from each other only the best is given. What all places
        have in common does not count.
        """
        rows = np.flatnonzero(np.isin(self._ids, among))
        if not len(rows):
            return []
        common = self._descriptors[:len(self._ids)].mean(dim=0)
        places = self._descriptors[torch.from_numpy(rows)] - common
        likeness = places @ (torch.from_numpy(descriptor) - common)
        likeness /= places.norm(dim=1).clamp(min=1e-9)
        ids = np.array(self._ids)[rows]
        found: list[int] = []
        for number in ids[np.lexsort((ids, -likeness.numpy()))].tolist():
            if all(abs(number - other) >= apart for other in found):
                found.append(number)
                if len(found) == count:
                    break
        return found
