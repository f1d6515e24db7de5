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
# Medians of the squares of normal errors (chi-square): of three together, and of one. Odometry
# errs about one axis and along one direction above all, and is better thought too bad than too
# good.
THREE, ONE = 2.366, 0.455


class Noise:
    """
    Standard deviations of turns (radians) and places, alike in all directions.

    Every view of a window has an error of its own. Two windows that hold the same two keyframes
    tell how large these are; a window and odometry that hold the same two tell odometry's, which
    grows with the root of the motion: a random walk. All are medians, so that up to half of what
    is compared may be wrong.
    """

    def __init__(self) -> None:
        first = np.array([FIRST_RAD, FIRST_SHARE]) ** 2
        odometry = np.array([ODOMETRY_RAD, ODOMETRY_SHARE]) ** 2
        self._view_least, self._odometry_least = LEAST ** 2 * first, LEAST ** 2 * odometry
        self._views = deque([first] * FIRST_COUNT, MEMORY)
        self._odometry = deque([odometry] * FIRST_COUNT, MEMORY)
        self._estimate()

    def compare_windows(self, differences: Iterable[Array], depth: float) -> None:
        """Take how one window's motions between views differ from another's, (6,) each."""
        for turn, shift in _squares(differences, THREE):
            # Four views have erred.
            self._views.append(np.array([turn, shift / depth ** 2]) / 4.0)
        self._estimate()

    def compare_odometry(
        self, differences: Iterable[tuple[Array, float]], depth: float,
    ) -> None:
        """Take how odometry's motions differ from a window's, (6,), each with its size."""
        turn_rad, place = self.view(depth)
        for (turn, shift), size in (
                (_squares([difference], ONE)[0], size) for difference, size in differences):
            of_views = 2.0 * np.array([turn_rad, place]) ** 2
            self._odometry.append((np.array([turn, shift]) - of_views) / size)
        self._estimate()

    def view(self, depth: float) -> tuple[float, float]:
        """Return what a window errs in a view that sees things at a depth: turn and place."""
        turn, share = self._view
        return turn, share * depth

    def odometry(self, size: float) -> tuple[float, float]:
        """Return what odometry errs in a motion of a size: turn and place."""
        turn, place = self._of_odometry
        return turn * math.sqrt(size), place * math.sqrt(size)

    def _estimate(self) -> None:
        self._view, self._of_odometry = (
            np.sqrt(np.maximum(np.median(squares, axis=0), least)).tolist()
            for squares, least in (
                (self._views, self._view_least), (self._odometry, self._odometry_least)))


def _squares(differences: Iterable[Array], median: float) -> list[tuple[float, float]]:
    """Return the variances by axis that turns and shifts (6,) stand for in a median."""
    return [
        (float(d[:3] @ d[:3]) / median, float(d[3:6] @ d[3:6]) / median) for d in differences]
