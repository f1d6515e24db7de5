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

"""The map and the path as a figure that a person can turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.pictures import PATH_COLOUR
from mapanything_ros.offline.report.results import Results
from mapanything_ros.offline.report.thinning import thinned, within

# What the browser of a phone still turns smoothly.
POINTS = 80_000
CAMERAS = 40
# A numeric colour a point costs a byte; a colour name would cost twenty.
COLOURS = 256
# By number: Pillow before 9.1, so Ubuntu 22.04's, has no Image.Dither.
NO_DITHER = 0
# How far around the box that holds all but strays the view reaches, as a share of its size.
MARGIN = 0.25
# What is this much higher than the cameras, as a share of the map's height, is taken for ceiling.
HEADROOM = 0.12


@dataclass(frozen=True, eq=False)
class MapView:
    """
    A plotly figure of ``drawn`` of the map's points; ``strays`` far off are left out.

    What is above ``cut`` is hidden at first; ``low`` and ``high`` are the ends of what can be
    shown, in the map's z.
    """

    figure: dict[str, Any]
    drawn: int
    strays: int
    low: float
    cut: float
    high: float


def map_view(results: Results) -> MapView:
    """Return the view of a map."""
    centres = results.cameras[:, :3, 3]
    low, high = results.extent()
    margin = MARGIN * (high - low).max()
    near = within(results.cloud, low - margin, high + margin)
    cloud, _ = thinned(near, POINTS, results.spacing)
    low = np.minimum(cloud.xyz.min(axis=0), centres.min(axis=0)).astype(float)
    high = np.maximum(cloud.xyz.max(axis=0), centres.max(axis=0)).astype(float)
    cut = min(float(centres[:, 2].max() + HEADROOM * (high[2] - low[2])), float(high[2]))
    size = np.maximum(high - low, 1e-3 * (high - low).max())
    ratio = size / np.cbrt(size.prod())
    axes = {
        f'{name}axis': {'title': {'text': f'{name} ({results.unit})'}, 'range': [a, b]}
        for name, a, b in zip('xyz', low.tolist(), high.tolist(), strict=True)}
    figure = {
        'data': [_points(cloud), _path(results), *_cameras(results, 0.03 * float(size.max()))],
        'layout': {
            'scene': {
                **axes, 'aspectmode': 'manual',
                'aspectratio': dict(zip('xyz', ratio.tolist(), strict=True)),
                'camera': {'eye': _eye(results.cameras, ratio), 'up': {'x': 0, 'y': 0, 'z': 1}},
                'dragmode': 'orbit'},
            'margin': {'l': 0, 'r': 0, 't': 0, 'b': 0},
            # Seen from behind and above, the map leaves the upper corners free.
            'legend': {'x': 0, 'y': 1, 'yanchor': 'top', 'bgcolor': 'rgba(0,0,0,0)'}}}
    return MapView(
        figure, len(cloud), len(results.cloud) - len(near), float(low[2]), cut, float(high[2]))


def _points(cloud: PointCloud) -> dict[str, Any]:
    row: Any = Image.fromarray(cloud.rgb[None])
    pixels = row.quantize(COLOURS, dither=NO_DITHER)
    table = pixels.getpalette() or []
    last = len(table) // 3 - 1
    scale = [
        [i / max(last, 1), f'rgb({table[3 * i]},{table[3 * i + 1]},{table[3 * i + 2]})']
        for i in range(last + 1)]
    return {
        'type': 'scatter3d', 'mode': 'markers', 'name': 'map', 'hoverinfo': 'skip',
        'showlegend': False,
        **dict(zip('xyz', cloud.xyz.T.copy(), strict=True)),
        'marker': {
            'size': 2.2, 'color': np.asarray(pixels)[0], 'cmin': 0, 'cmax': max(last, 1),
            'colorscale': scale if last else [scale[0], [1, scale[0][1]]],
            'line': {'width': 0}}}


def _path(results: Results) -> dict[str, Any]:
    places = results.cameras[:, :3, 3]
    names = [f'keyframe {i}' for i in range(1, len(places) + 1)]
    if results.summary['source'] != 'photos':  # which have no clock
        seconds = (results.stamps_ns - results.stamps_ns[0]) * 1e-9
        names = [f'{name}, {at:.1f} s' for name, at in zip(names, seconds, strict=True)]
    return {
        'type': 'scatter3d', 'mode': 'lines+markers', 'name': 'camera path',
        **dict(zip('xyz', places.T.astype(np.float32), strict=True)),
        'text': names,
        'hovertemplate': '%{text}<br>%{x:.2f}, %{y:.2f}, %{z:.2f}<extra></extra>',
        'line': {'color': PATH_COLOUR, 'width': 5},
        'marker': {'color': PATH_COLOUR, 'size': 2.5}}


def _cameras(results: Results, size: float) -> list[dict[str, Any]]:
    """Return frusta of keyframes along the path, and a mark where it starts."""
    chosen = np.unique(
        np.linspace(0, len(results.cameras) - 1, CAMERAS).round().astype(int))
    corners = size * np.array(
        [[0, 0, 0], [-0.5, -0.375, 0.7], [0.5, -0.375, 0.7], [0.5, 0.375, 0.7],
         [-0.5, 0.375, 0.7]])
    strokes = corners[[0, 1, 2, 0, 3, 4, 0, 2, 3, 0, 4, 1]]
    gap = np.full((1, 3), np.nan)
    lines = np.concatenate([
        part for pose in results.cameras[chosen]
        for part in (strokes @ pose[:3, :3].T + pose[:3, 3], gap)]).astype(np.float32)
    start = results.cameras[0, :3, 3].tolist()
    return [
        {'type': 'scatter3d', 'mode': 'lines', 'name': 'keyframes', 'hoverinfo': 'skip',
         **dict(zip('xyz', lines.T, strict=True)),
         'line': {'color': PATH_COLOUR, 'width': 2}},
        {'type': 'scatter3d', 'mode': 'markers', 'name': 'start', 'hoverinfo': 'name',
         **{axis: [value] for axis, value in zip('xyz', start, strict=True)},
         'marker': {'color': 'white', 'size': 7, 'line': {'color': PATH_COLOUR, 'width': 3}}}]


def _eye(cameras: Array, ratio: Array) -> dict[str, float]:
    """Return a place behind the cameras, and above: what they saw faces this way."""
    ahead = cameras[:, :2, 2].mean(axis=0)
    turned = np.linalg.norm(ahead) > 0.1
    azimuth = (np.arctan2(ahead[1], ahead[0]) if turned else np.pi / 3) + 0.5
    elevation = np.radians(42)
    back = np.array([
        -np.cos(azimuth) * np.cos(elevation), -np.sin(azimuth) * np.cos(elevation),
        np.sin(elevation)])
    eye = 0.87 * np.linalg.norm(ratio) * back
    return dict(zip('xyz', eye.tolist(), strict=True))
