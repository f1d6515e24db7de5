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

"""A report that a person would look at, and pictures of the same."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.export import whole
from mapanything_ros.offline.pictures import (
    ColouredMap,
    draw_keyframes,
    draw_top,
    draw_view,
    KeyframePicture,
)
from mapanything_ros.offline.report.page import page
from mapanything_ros.offline.report.results import Results
from mapanything_ros.offline.report.thinning import thinned

REPORT = 'report.html'
PICTURES = ('map_top.png', 'map_view.png', 'keyframes.png')
# More would not be seen in a picture.
POINTS = 400_000
STRIP = 6


def check_report() -> None:
    """Raise ExportError where what the report is made with is missing."""
    if find_spec('plotly') is None:
        raise ExportError('the report needs plotly: pip install plotly, or use --no-report')


def write_report(folder: Path, title: str = '') -> None:
    """
    Write report.html and the pictures of a folder of results, into it.

    The title is the folder's name where none is given. Raises InputError where the folder is no
    whole result of `reconstruct`, and ExportError where a file cannot be written.
    """
    write_page(folder, title)
    _write_pictures(Results.open(folder), title or folder.resolve().name)


def write_page(folder: Path, title: str = '') -> None:
    """Write report.html alone, as write_report does."""
    check_report()
    text = page(Results.open(folder), title or folder.resolve().name)
    with whole(folder / REPORT) as part:
        part.write_text(text)


def _write_pictures(results: Results, title: str) -> None:
    title = _plain(title)
    cloud, spacing = thinned(results.cloud, POINTS, results.spacing)
    world = ColouredMap(
        cloud.xyz.astype(float), cloud.rgb, spacing, results.cameras, results.unit)
    label = f'{title}: {len(results.cloud)} points, backend {results.summary["backend"]}'
    drawings = (
        lambda path: draw_top(path, world, f'{label}, from above'),
        lambda path: draw_view(path, world, f'{label}, opened towards the viewer'),
        lambda path: draw_keyframes(path, _strip(results), f'{title}: keyframes', results.unit))
    for name, draw in zip(PICTURES, drawings, strict=True):
        with whole(results.folder / name) as part:
            draw(part)


def _strip(results: Results) -> list[KeyframePicture]:
    ids = results.keyframes.ids()
    chosen = np.unique(np.linspace(0, len(ids) - 1, STRIP).round().astype(int))
    keyframes = (results.keyframes[ids[i]] for i in chosen)
    return [
        KeyframePicture(_plain(results.label(one)), one.rgb, one.depth_m, one.confidence)
        for one in keyframes]


def _plain(text: str) -> str:
    """Keep matplotlib from taking a dollar for the beginning of a formula."""
    return text.replace('$', r'\$')
