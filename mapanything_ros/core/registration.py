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

"""A rigid transform from point pairs of which some are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mapanything_ros.core.datatypes import Array

ITERATIONS = 10


@dataclass(frozen=True, eq=False)
class Pairs:
    """
    Points (N,3) that should meet, ``weight`` (N,), and up to which distance (N,) they do.

    Weights are relative.
    """

    source: Array
    target: Array
    weight: Array
    reach_m: Array

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """Join pairs."""
        return cls(*(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ('source', 'target', 'weight', 'reach_m')))

    def distances(self, target_from_source: Array) -> Array:
        """Return the (N,) distances that a (4,4) transform leaves."""
        moved = self.source @ target_from_source[:3, :3].T + target_from_source[:3, 3]
        return np.linalg.norm(moved - self.target, axis=1)


@dataclass(frozen=True, eq=False)
class Registration:
    """``inliers`` is the share of the weight that meets; ``residual_m`` the rms of that part."""

    target_from_source: Array
    inliers: float
    residual_m: float


def register(pairs: Pairs, guesses: Sequence[Array]) -> Registration:
    """
    Find the rigid transform that makes most of the weight meet, starting from (4,4) guesses.

    The guess with the most inliers is refined by iteratively reweighted least squares with the
    Geman-McClure weights, which fall to nothing for pairs far apart. Deterministic.
    """
    best = max(guesses, key=lambda guess: _inliers(pairs, guess))
    for _ in range(ITERATIONS):
        relative = pairs.distances(best) / pairs.reach_m
        best = fit_rigid(
            pairs.source, pairs.target, pairs.weight / (1.0 + relative ** 2) ** 2)
    meets = pairs.distances(best) <= pairs.reach_m
    weight = pairs.weight[meets]
    squares = pairs.distances(best)[meets] ** 2
    residual_m = float(np.sqrt((weight @ squares) / weight.sum())) if meets.any() else np.inf
    return Registration(best, _inliers(pairs, best), residual_m)


def fit_rigid(source: Array, target: Array, weight: Array) -> Array:
    """Return the weighted least-squares rigid (4,4) target_from_source (Kabsch 1976)."""
    weight = weight / weight.sum()
    source_mean, target_mean = weight @ source, weight @ target
    covariance = (target - target_mean).T @ (weight[:, None] * (source - source_mean))
    u, _, vt = np.linalg.svd(covariance)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    fitted = np.eye(4)
    fitted[:3, :3] = u @ flip @ vt
    fitted[:3, 3] = target_mean - fitted[:3, :3] @ source_mean
    return fitted


def _inliers(pairs: Pairs, guess: Array) -> float:
    meets = pairs.distances(guess) <= pairs.reach_m
    return float(pairs.weight[meets].sum() / pairs.weight.sum())
