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

"""Charts of how a reconstruction went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mapanything_ros.offline.report.words import comparable_scales

IN_MAP, LOST = '#2f7ed8', '#e0533d'
SOURCES = {
    'odometry': '#2f7ed8', 'depth': '#3aa876', 'model': '#8e6bc1', 'map': '#c98a1b',
    'none': '#9a9a9a'}
# Why a frame became a keyframe or not, as the selector counts.
FRAMES = {
    'parked': 'saw nothing new', 'blurred': 'too blurred', 'chosen': 'keyframe: each photo is',
    'first': 'keyframe: the first', 'translation': 'keyframe: moved',
    'rotation': 'keyframe: turned', 'parallax': 'keyframe: the picture moved',
    'time': 'keyframe: long since the last'}


@dataclass(frozen=True)
class Chart:
    """A plotly figure, and what it shows in words."""

    title: str
    words: str
    figure: dict[str, Any]


def charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Return the charts that a summary has figures for."""
    windows = summary['windows']
    return [chart for chart in (
        _images(summary), _times(windows, summary['seconds']), _fits(windows, summary),
        _scales(windows) if comparable_scales(summary) else None) if chart]


def _images(summary: Mapping[str, Any]) -> Chart:
    counts = summary['statistics']
    why = {
        FRAMES.get(name, name.replace('_', ' ')): count for name, count in (
            (key.removeprefix('frames_'), value) for key, value in counts.items()
            if key.startswith('frames_'))}
    keyframes, kept = counts['keyframes'], summary['keyframes_in_map']
    stages = {'images read': summary['images_read'], 'keyframes': keyframes,
              'keyframes in the map': kept}
    lost = keyframes - kept
    words = f'{kept} of {keyframes} keyframes are in the map' + (
        f'; {lost} are lost with their windows.' if lost else ': none was dropped.')
    names, values = [*stages, *why], [*stages.values(), *why.values()]
    colours = [IN_MAP] * len(stages) + ['#9a9a9a'] * len(why)
    return Chart('What became of the images', words, {
        'data': [{
            'type': 'bar', 'orientation': 'h', 'y': names, 'x': values,
            'text': values, 'textposition': 'auto', 'marker': {'color': colours},
            'hoverinfo': 'skip'}],
        'layout': {
            'yaxis': {'autorange': 'reversed', 'automargin': True},
            'xaxis': {'title': {'text': 'images'}}, 'showlegend': False}})


def _times(windows: Sequence[Mapping[str, Any]], seconds: float) -> Chart | None:
    if not windows:
        return None
    busy = sum(window['seconds'] for window in windows)
    lost = sum(bool(window['problem']) for window in windows)
    words = (
        f'{len(windows)} windows took {busy:.1f} s, {busy / len(windows):.2f} s each; the whole '
        f'run took {seconds:.1f} s. ' + (
            f'{lost} of them failed or were rejected.' if lost else 'None of them was lost.'))
    return Chart('Time of each window', words, {
        'data': [
            _bars('in the map', IN_MAP, windows, lost=False),
            _bars('lost', LOST, windows, lost=True)],
        'layout': {
            'barmode': 'stack', 'xaxis': {'title': {'text': 'window'}},
            'yaxis': {'title': {'text': 'seconds'}}, 'showlegend': bool(lost)}})


def _fits(windows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Chart | None:
    placed = [window for window in windows if not window['problem']]
    if len(placed) < 2:
        return None
    numbers = [i for i, window in enumerate(windows, start=1) if not window['problem']]
    unit = 'cm' if summary['metric'] else '1/100 map unit'
    return Chart(
        'How windows fit the map',
        'How far the pixels that a window shares with the map, or its cameras and odometry, are '
        'apart after it is joined (rms), and the share that fits.', {
            'data': [
                {'type': 'scatter', 'mode': 'lines+markers', 'name': f'residual ({unit})',
                 'x': numbers, 'y': [100 * (w['residual_m'] or 0) for w in placed],
                 'line': {'color': IN_MAP}},
                {'type': 'scatter', 'mode': 'lines', 'name': 'share that fits (%)',
                 'x': numbers, 'y': [100 * (w['inliers'] or 0) for w in placed], 'yaxis': 'y2',
                 'line': {'color': '#3aa876', 'dash': 'dot'}}],
            'layout': {
                'xaxis': {'title': {'text': 'window'}},
                'yaxis': {'title': {'text': f'residual ({unit})'}, 'rangemode': 'tozero'},
                'yaxis2': {
                    'overlaying': 'y', 'side': 'right', 'range': [0, 105],
                    'tickvals': [0, 25, 50, 75, 100],
                    'title': {'text': 'fits (%)'}, 'showgrid': False,
                    'automargin': True},
                'legend': {'orientation': 'h', 'y': 1.2}}})


def _scales(windows: Sequence[Mapping[str, Any]]) -> Chart | None:
    placed = [(i, window) for i, window in enumerate(windows, start=1) if window['scale_source']]
    if not any(window['scale_source'] != 'none' for _, window in placed):
        return None
    data = []
    for source in dict.fromkeys(window['scale_source'] for _, window in placed):
        mine = [(i, window) for i, window in placed if window['scale_source'] == source]
        data.append({
            'type': 'scatter', 'mode': 'markers', 'name': f'from {source}',
            'x': [i for i, _ in mine], 'y': [window['scale'] for _, window in mine],
            'error_y': {'array': [
                window['scale'] * (window['scale_residual'] or 0) for _, window in mine]},
            'marker': {'color': SOURCES.get(source, '#9a9a9a'), 'size': 7}})
    return Chart(
        'Scale of each window',
        "What the backend's own lengths were multiplied by to be metres, and the spread of what "
        'tells it (median absolute deviation). A steady line is a good sign.', {
            'data': data,
            'layout': {
                'xaxis': {'title': {'text': 'window'}},
                'yaxis': {'title': {'text': 'factor'}}, 'showlegend': True,
                'legend': {'orientation': 'h', 'y': 1.2}}})


def _bars(
    name: str, colour: str, windows: Sequence[Mapping[str, Any]], *, lost: bool,
) -> dict[str, Any]:
    mine = [
        (i, window) for i, window in enumerate(windows, start=1)
        if bool(window['problem']) == lost]
    return {
        'type': 'bar', 'name': name, 'marker': {'color': colour},
        'x': [i for i, _ in mine], 'y': [window['seconds'] for _, window in mine],
        'text': [escape(window['problem']) for _, window in mine], 'textposition': 'none',
        'hovertemplate': 'window %{x}: %{y:.2f} s<br>%{text}<extra></extra>'}
