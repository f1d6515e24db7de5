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

"""Compare a finished map and its path with the truth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import sys
from typing import Any

from mapanything_ros.core.errors import InputError, MapAnythingRosError
from mapanything_ros.core.map.export import whole
from mapanything_ros.core.measures.evaluation import Trajectory
from mapanything_ros.offline.comparison import compare, error_table
from mapanything_ros.offline.keyframe_store import KeyframeStore
from mapanything_ros.offline.report.report import REPORT, write_page
from mapanything_ros.offline.report.results import EVALUATION, read_cloud, read_json
from mapanything_ros.offline.surface import read_surface, Surface, SURFACES
from mapanything_ros.offline.true_path import BagPath, is_bag, matched, read_true_path
from mapanything_ros.offline.true_surface import surface_of_bag
from mapanything_ros.offline.truth import TRUE_SURFACE_FILE
from mapanything_ros.offline.tum import read_tum

PATHS = ('.tum', '.txt')
WIDTHS = (32, 14, 16, 17, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate; return 0 if there are figures, 1 with a sentence if not."""
    options = _parse(arguments)
    try:
        _evaluate(options)
    except (MapAnythingRosError, OSError) as error:
        print(f'evaluate: {error}', file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='evaluate', description=__doc__)
    add = parser.add_argument
    add('result', type=Path, metavar='RESULT',
        help='a folder that reconstruct or demo has written')
    add('--truth', type=Path, nargs='+', required=True, metavar='PATH',
        help='the true path of the camera (a TUM file .tum or .txt, or a bag), the true surface '
        f'(a mesh or a cloud: {", ".join(SURFACES)}), or both')
    add('--topic', default='', metavar='T',
        help="of a bag: the true poses, PoseStamped (the camera's) or Odometry; default: found "
        'by type')
    add('--frame', default='', metavar='F',
        help='of a bag: the true poses are those of the camera in this frame of /tf')
    add('--camera-frame', default='', metavar='F',
        help="the camera's frame in /tf; default: that of the keyframes")
    add('--max-gap', type=float, default=0.5, metavar='S',
        help='seconds between true poses up to which they are interpolated (default: '
        '%(default)s)')
    options = parser.parse_args(arguments)
    if not options.max_gap >= 0:
        parser.error('--max-gap must be 0 or more')
    return options


def _evaluate(options: argparse.Namespace) -> None:
    path = _path(options.result)
    points = read_cloud(options.result / 'map.ply').xyz.astype(float)
    truth, surface, said = _truth(options, path)
    evaluation = {'truth': said, **compare(path, points, truth, surface)}
    with whole(options.result / EVALUATION) as part:
        part.write_text(json.dumps(evaluation, indent=1, allow_nan=False) + '\n')
    print(_text(evaluation))
    if (options.result / REPORT).exists():
        write_page(options.result)


def _path(result: Path) -> Trajectory:
    path = result / 'trajectory.tum'
    if not path.is_file():
        raise InputError(
            f'{result} holds no trajectory.tum: give a folder that reconstruct has written')
    return read_tum(path)


def _truth(
    options: argparse.Namespace, path: Trajectory,
) -> tuple[Trajectory | None, Surface | str, str]:
    """Return the true path at the stamps of ours, the surface or why not, and what they are."""
    paths, surfaces = _sorted(options.truth)
    if not paths:
        surface = read_surface(surfaces[0])
        return None, surface, surface.name
    where = BagPath(
        options.topic, options.frame, _camera_frame(options, paths[0]), options.max_gap)
    known, source = read_true_path(paths[0], where, path.stamps_ns)
    truth, said = matched(known, path.stamps_ns, options.max_gap), f'poses from {source}'
    try:
        surface = _surface(options, paths[0], surfaces, known)
    except InputError as error:
        if surfaces:
            raise
        return truth, str(error), said
    return truth, surface, f'{said}; {surface.name}'


def _surface(
    options: argparse.Namespace, path: Path, surfaces: Sequence[Path], truth: Trajectory,
) -> Surface:
    """Return the surface that is named, or else what is known of it with the true path."""
    if surfaces:
        return read_surface(surfaces[0])
    if not is_bag(path):
        raise InputError('there is no true surface')
    beside = path / TRUE_SURFACE_FILE
    if beside.is_file():  # as in our sample
        return read_surface(beside)
    return surface_of_bag(path, truth, rectified=_rectified(options.result))


def _rectified(result: Path) -> bool:
    """Say whether the images were rectified already when they were recorded."""
    summary = read_json(result / 'summary.json')
    return bool(summary.get('parameters', {}).get('rectified', False))


def _sorted(truth: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    paths: list[Path] = []
    surfaces: list[Path] = []
    for path in truth:
        if not path.exists():
            raise InputError(f'there is no truth at {path}')
        if is_bag(path) or path.suffix.lower() in PATHS:
            paths.append(path)
        elif path.suffix.lower() in SURFACES:
            surfaces.append(path)
        else:
            raise InputError(
                f'{path} is no truth that is known: a path is a bag or {", ".join(PATHS)}, a '
                f'surface {", ".join(SURFACES)}')
    for many, name in ((paths, 'paths'), (surfaces, 'surfaces')):
        if len(many) > 1:
            raise InputError(f'there are several true {name} ({many[0]}, {many[1]}): give one')
    return paths, surfaces


def _camera_frame(options: argparse.Namespace, path: Path) -> str:
    """Return the camera's frame where a bag may need it: '' where it is not known."""
    if options.camera_frame or not is_bag(path):
        return str(options.camera_frame)
    store = options.result / 'keyframes'
    first = next(iter(KeyframeStore.open(store)), None) if store.is_dir() else None
    return first.frame_id if first else ''


def _text(evaluation: dict[str, Any]) -> str:
    lines = [
        f'truth: {evaluation["truth"]}',
        f'poses compared: {evaluation["poses"]}, without truth: '
        f'{evaluation["poses_without_truth"]}']
    if evaluation['distance_m'] is not None:
        lines[-1] += f'; true path between them: {evaluation["distance_m"]:.2f} m'
    if evaluation['scale'] is not None:
        lines.append(f'lengths of the truth over those of the map: {evaluation["scale"]:.4f}')
    lines += ['', 'root mean square errors of poses, distances of the map to the true surface']
    lines += [
        ''.join(cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, WIDTHS, strict=True)))
        for row in error_table(evaluation)]
    lines += [f'not measured: {name}: {why}' for name, why in evaluation['missing'].items()]
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
