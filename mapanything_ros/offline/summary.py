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

"""The figures of a run: a dictionary for summary.json, and a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mapanything_ros.offline.assessment import Assessment


def summarize(
    assessment: Assessment, diagnostics: Mapping[str, str], *, seconds: float, waited_s: float,
    rate: float, depth_used: bool, images_played: int,
) -> dict[str, Any]:
    """Return all figures; those without truth are None, with a reason under ``missing``."""
    run = assessment.run
    ours = assessment.pose_errors()
    odometry = assessment.odometry_errors()
    distances = assessment.map_distances()
    summary: dict[str, Any] = {
        'backend': diagnostics.get('backend'),
        'source': run.source,
        'bag': str(run.bag),
        'odometry_used': run.odometry_used,
        'depth_used': depth_used,
        'scale': {
            'source': diagnostics.get('scale_source'),
            'value': _number(diagnostics.get('scale')),
            'residual': _number(diagnostics.get('scale_residual')),
        },
        'images_played': images_played,
        'images_received': _count(diagnostics.get('images')),
        'keyframes': len(assessment.keyframes),
        'keyframes_in_map': len(assessment.trajectory.stamps_ns),
        'windows': _count(diagnostics.get('windows')),
        'dropped': {
            'keyframes': _count(diagnostics.get('keyframes_dropped')),
            'windows': _count(diagnostics.get('windows_failed')),
        },
        'points': len(assessment.points),
        'seconds': round(seconds, 2),
        'rate': rate,
        'waited_s': round(waited_s, 2),
        'kept_fraction': assessment.kept_fraction,
        'depth_abs_rel': assessment.depth_abs_rel,
        'position_rmse_m': {
            'unaligned': ours.unaligned_m,
            'aligned': ours.aligned_m,
            'alignment': assessment.alignment,
            'frame': assessment.frame,
        },
        'rotation_rmse_deg': ours.rotation_deg,
        'odometry': {
            'position_rmse_m': {
                'unaligned': odometry.unaligned_m,
                'aligned': odometry.aligned_m,
                'alignment': 'SE3',
                'frame': 'odometry start',
            },
            'rotation_rmse_deg': odometry.rotation_deg,
        },
        'map_error_m': None if distances is None else {
            'median': float(np.median(distances[0])),
            'p90': float(np.percentile(distances[0], 90)),
            'truth': distances[1],
            'alignment': assessment.frame if run.metric else assessment.alignment,
        },
    }
    if not run.metric:
        summary['depth_abs_rel_scaled'] = assessment.depth_abs_rel_scaled
    summary['missing'] = dict(assessment.missing)
    summary['diagnostics'] = dict(diagnostics)
    return summary


def table(summary: Mapping[str, Any]) -> str:
    """Return a summary as aligned text, the odometry's own errors beside ours."""
    dropped = summary['dropped']
    rows = [
        ('backend', f'{summary["backend"]} (not MapAnything)'
         if summary['backend'] == 'colmap' else str(summary['backend'])),
        ('odometry input', _yes(summary['odometry_used'])),
        ('depth input', _yes(summary['depth_used'])),
        ('scale from', _scale(summary)),
        ('keyframes', f'{summary["keyframes"]} in {_show(summary["windows"])} windows; dropped: '
                      f'{_show(dropped["keyframes"])} keyframes, {_show(dropped["windows"])} '
                      'windows'),
        ('map', f'{summary["points"]} points in {summary["seconds"]:.0f} s '
                f'(bag at {summary["rate"]:g} times its speed, '
                f'held {summary["waited_s"]:.0f} s for the node)'),
        ('depth error', f'{_show(summary["depth_abs_rel"])} relative, on '
                        f'{_show(summary["kept_fraction"])} of the pixels'),
    ]
    if 'depth_abs_rel_scaled' in summary:
        rows.append(('', f'{_show(summary["depth_abs_rel_scaled"])} relative, after one scale '
                         'for the whole map'))
    error = summary['map_error_m']
    if error:
        rows.append(('map error', f'median {_show(error["median"])} m, 90 % below '
                                  f'{_show(error["p90"])} m (to {error["truth"]})'))
    ours, theirs = summary['position_rmse_m'], summary['odometry']['position_rmse_m']
    lines = [f'  {name:<16}{value}' for name, value in rows]
    lines.append(f'\n  {"root mean square error":<40}{"map":>10}{"odometry":>10}')
    for name, mine, other in (
        (f'position (m), from {ours["frame"]}', ours['unaligned'], theirs['unaligned']),
        (f'position (m), aligned ({ours["alignment"]})', ours['aligned'], theirs['aligned']),
        ('rotation (deg), aligned', summary['rotation_rmse_deg'],
         summary['odometry']['rotation_rmse_deg']),
    ):
        lines.append(f'  {name:<40}{_show(mine):>10}{_show(other):>10}')
    lines += [f'  not measured: {name}: {why}' for name, why in summary['missing'].items()]
    return '\n'.join(lines)


def _scale(summary: Mapping[str, Any]) -> str:
    scale = summary['scale']
    if scale['source'] == 'none':
        return 'nothing: lengths are not metres'
    # Without poses colmap's own lengths are in no unit, and the factor says nothing.
    sized = summary['backend'] != 'colmap' or summary['odometry_used']
    factor = f', factor {_show(scale["value"])}' if sized else ''
    return f'{scale["source"]}{factor}, residual {_show(scale["residual"])}'


def _number(text: str | None) -> float | None:
    """Return a finite number, None for what is not one: JSON knows no NaN."""
    try:
        value = float(text or 'nan')
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _count(text: str | None) -> int | None:
    value = _number(text)
    return None if value is None else int(value)


def _show(value: float | None) -> str:
    if value is None:
        return '-'
    return str(value) if isinstance(value, int) else f'{value:.3f}'


def _yes(value: bool) -> str:
    return 'yes' if value else 'no'
