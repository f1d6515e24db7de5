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

"""How much windows and odometry err, learned from how they contradict each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
import math

import numpy as np
from scipy.special import chdtri

from mapanything_ros.core.datatypes import Array

# What a window errs in the turn and place of a view before two windows were compared: radians, and
# a share of the depth. It counts as so many comparisons.
FIRST_RAD, FIRST_SHARE, FIRST_COUNT = math.radians(0.3), 0.005, 9
# What odometry errs after moving what is seen by one metre: like wheels without a gyroscope.
ODOMETRY_RAD, ODOMETRY_SHARE = 0.02, 0.03
# Comparisons that are averaged over.
MEMORY = 200
# Nothing is believed to err less than this share of what is assumed first: windows may err alike,
# which comparing them does not show, and loops must be able to mend that.
LEAST = 0.3


class Noise:
    """
    Standard deviations of turns (radians) and places, alike in all directions.

    Every view of a window has an error of its own. Two windows that hold the same two keyframes
    tell how large these are; a window and odometry that hold the same two tell odometry's, which
    grows with the root of the motion: a random walk. All are medians, so that up to half of what
    is compared may be wrong.
    """

    def __init__(self) -> None:
        self._views = _Learned(FIRST_RAD, FIRST_SHARE)
        self._odometry = _Learned(ODOMETRY_RAD, ODOMETRY_SHARE)

    def compare_windows(self, differences: Iterable[Array], depth: float) -> None:
        """Take how one window's motions between views differ from another's, (6,) each."""
        # Four views have erred.
        self._views.learn(_variances(each, 3) / (4.0, 4.0 * depth ** 2) for each in differences)

    def compare_odometry(
        self, differences: Iterable[tuple[Array, float]], depth: float,
    ) -> None:
        """Take how odometry's motions differ from a window's, (6,), each with its size."""
        of_views = 2.0 * np.square(self.view(depth))
        # It errs about one axis and along one direction above all, and is better thought too bad
        # than too good.
        self._odometry.learn(
            (_variances(each, 1) - of_views) / size for each, size in differences)

    def view(self, depth: float) -> Array:
        """Return what a window errs in a view of things at a depth: turn and place, (2,)."""
        return self._views.sigmas * (1.0, depth)

    def learned(self) -> bool:
        """Say whether what windows err is more than an assumption."""
        return len(self._views.squares) >= 3 * FIRST_COUNT

    def odometry(self, size: float) -> Array:
        """Return what odometry errs in a motion of a size: turn and place, (2,)."""
        return self._odometry.sigmas * math.sqrt(size)


class _Learned:
    """Two standard deviations: medians of the last comparisons."""

    def __init__(self, *first: float) -> None:
        self.sigmas: Array = np.array(first)
        self._least = np.square(LEAST * self.sigmas)
        self.squares = deque([np.square(first)] * FIRST_COUNT, MEMORY)

    def learn(self, squares: Iterable[Array]) -> None:
        """Take more squares, (2,) each."""
        self.squares.extend(squares)
        self.sigmas = np.sqrt(np.maximum(np.median(self.squares, axis=0), self._least))


def _variances(difference: Array, axes: int) -> Array:
    """Return the variances by axis that a turn and shift (6,) stand for in a median (chi2)."""
    squares = np.square(difference[:6]).reshape(2, 3).sum(axis=1)
    return np.asarray(squares / chdtri(axes, 0.5))
