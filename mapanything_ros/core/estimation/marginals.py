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

"""How far keyframes of a solved graph may be off, each and together."""

from __future__ import annotations

from collections.abc import Sequence

import gtsam
import numpy as np
from scipy.linalg import cho_factor, cho_solve

from mapanything_ros.core.datatypes import Array


class Marginals:
    """
    Covariances of ``keyframes``, whose keys are the first of a graph, in their order.

    Those of GTSAM refuse what is nearly free beside what is nearly certain: here the information
    is scaled to a unit diagonal first. Columns of its inverse are computed when asked for.
    """

    def __init__(
        self, graph: gtsam.NonlinearFactorGraph, values: gtsam.Values, keyframes: Sequence[int],
    ) -> None:
        information = graph.linearize(values).hessian()[0]
        self._size: Array = np.sqrt(np.diag(information))
        self._factor = cho_factor(
            information / np.outer(self._size, self._size), check_finite=False)
        self._rows = {
            number: slice(7 * place, 7 * place + 7) for place, number in enumerate(keyframes)}
        self._columns: dict[int, Array] = {}

    def joint(self, *numbers: int) -> Array:
        """Return the covariance (7N,7N) of keyframes together, in their order."""
        return np.block([
            [self._column(number)[self._rows[row]] for number in numbers] for row in numbers])

    def _column(self, number: int) -> Array:
        """Return the covariance (M,7) of everything with a keyframe."""
        if number not in self._columns:
            rows = self._rows[number]
            column = np.zeros((len(self._size), 7))
            column[rows] = np.diag(1.0 / self._size[rows])
            self._columns[number] = cho_solve(
                self._factor, column, check_finite=False) / self._size[:, None]
        return self._columns[number]
