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

"""Similarities and noise as GTSAM has them."""

from __future__ import annotations

import gtsam
import numpy as np

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.estimation.similarity import scale_of

# The standard deviation of what is not told at all.
FREE = 1e2
# Of what is not to move.
FIXED = 1e-4
# The errors, in standard deviations, at which a pose is doubted, and at which one number is.
POSE_DOUBT, DOUBT = 5.0, 3.0


def to_gtsam(similarity: Array) -> gtsam.Similarity3:
    """Return a (4,4) similarity as GTSAM's, which stretches after it has moved."""
    scale = scale_of(similarity)
    return gtsam.Similarity3(
        gtsam.Rot3(similarity[:3, :3] / scale), similarity[:3, 3] / scale, scale)


def from_gtsam(value: gtsam.Similarity3) -> Array:
    """Return GTSAM's similarity as a (4,4) matrix."""
    similarity = np.eye(4)
    similarity[:3, :3] = value.scale() * value.rotation().matrix()
    similarity[:3, 3] = value.scale() * value.translation()
    return similarity


def adjoint(similarity: Array) -> Array:
    """Return (7,7): how a small motion before a similarity (4,4) looks behind it."""
    # GTSAM 4.3a1, the one for Python 3.10, does not give away its own.
    turn, place = similarity[:3, :3] / scale_of(similarity), similarity[:3, 3]
    adjoint = np.eye(7)
    adjoint[:3, :3] = turn
    adjoint[3:6, :3] = np.cross(place, turn.T).T
    adjoint[3:6, 3:6] = similarity[:3, :3]
    adjoint[3:6, 6] = -place
    return adjoint


def sigmas(turn: float, place: float, scale: float) -> gtsam.noiseModel.Diagonal:
    """Return noise of standard deviations by axis: radians, a length, logarithm of scale."""
    return gtsam.noiseModel.Diagonal.Sigmas(np.array([turn] * 3 + [place] * 3 + [scale]))


def doubting(noise: gtsam.noiseModel.Base, doubt: float) -> gtsam.noiseModel.Robust:
    """Return noise that counts less and less beyond so many standard deviations."""
    return gtsam.noiseModel.Robust.Create(
        gtsam.noiseModel.mEstimator.GemanMcClure.Create(doubt), noise)
