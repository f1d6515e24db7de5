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

"""A map and its path against the truth: the figures, and a table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import (
    align,
    anchor,
    Similarity,
    Trajectory,
    trajectory_error,
)
from mapanything_ros.offline.surface import Surface

T = TypeVar('T')
# How the map is put on the truth, from least to most freedom.
ALIGNMENTS = {
    'unaligned': 'first keyframe on its true pose', 'SE3': 'aligned (SE3)',
    'Sim3': 'aligned (Sim3)'}
AS_IT_IS = 'as it is'


def compare(
    path: Trajectory, points: Array, truth: Trajectory | None, surface: Surface | str,
) -> dict[str, Any]:
    """
    Return the figures of a path ``map_from_camera`` and a map (N,3), for JSON.

    Errors of position and rotation are root mean squares over the poses whose stamps ``truth``
    has; those of the map are the median and the 90th percentile of its points' distances to the
    surface. 'unaligned' puts the first of these poses on the truth, or without true poses takes
    the map as it is, 'SE3' and 'Sim3' are the best such transforms of the positions. What
    cannot be said is None, its reason under ``missing``; a ``surface`` that is a text is why there
    is none.
    """
    missing: dict[str, str] = {}

    def attempt(name: str, compute: Callable[[], T]) -> T | None:
        try:
            return compute()
        except InputError as error:
            missing[name] = str(error)
            return None

    moves: dict[str, Similarity | None]
    if truth is None:
        moves = {'unaligned': Similarity.rigid(np.eye(4)), 'SE3': None, 'Sim3': None}
        missing['position_rmse_m'] = 'there are no true poses, which the alignments need as well'
    else:
        moves = {
            'unaligned': anchor(truth, path),
            'SE3': attempt('SE3', lambda: align(truth, path, with_scale=False)),
            'Sim3': attempt('Sim3', lambda: align(truth, path, with_scale=True))}
    errors = {
        name: trajectory_error(truth, path, move) if truth and move else None
        for name, move in moves.items()}
    if isinstance(surface, str):
        missing['map_error_m'] = surface
    best = moves['Sim3']
    return {
        'frame': AS_IT_IS if truth is None else ALIGNMENTS['unaligned'],
        'poses': len(truth.stamps_ns) if truth else 0,
        'poses_without_truth': len(path.stamps_ns) - (len(truth.stamps_ns) if truth else 0),
        'distance_m': _length(truth) if truth else None,
        'position_rmse_m': {n: e.position_rmse_m if e else None for n, e in errors.items()},
        'rotation_rmse_deg': {n: e.rotation_rmse_deg if e else None for n, e in errors.items()},
        'map_error_m': {
            name: _map_error(points, move, surface)
            if move and isinstance(surface, Surface) else None for name, move in moves.items()},
        'scale': best.scale if best else None,
        'missing': missing,
    }


def error_table(evaluation: Mapping[str, Any]) -> list[Sequence[str]]:
    """Return the head and the rows of a table of the figures; a dash is not measured."""
    maps = evaluation['map_error_m']
    rows: list[Sequence[str]] = [
        ('', 'position (m)', 'rotation (deg)', 'map, median (m)', 'map, 90 % below (m)')]
    for name, words in ALIGNMENTS.items():
        error = maps[name] or {'median': None, 'p90': None}
        rows.append((
            evaluation['frame'] if name == 'unaligned' else words,
            _show(evaluation['position_rmse_m'][name]),
            _show(evaluation['rotation_rmse_deg'][name]), _show(error['median']),
            _show(error['p90'])))
    return rows


def _map_error(points: Array, move: Similarity, surface: Surface) -> dict[str, float]:
    distances = surface.distances(move.points(points))
    return {'median': float(np.median(distances)), 'p90': float(np.percentile(distances, 90))}


def _length(path: Trajectory) -> float:
    return float(np.linalg.norm(np.diff(path.positions, axis=0), axis=1).sum())


def _show(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
