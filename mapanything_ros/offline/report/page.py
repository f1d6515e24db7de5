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

"""The report as one HTML page that needs nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
import re
from typing import Any

from mapanything_ros.offline.comparison import error_table
from mapanything_ros.offline.report import words
from mapanything_ros.offline.report.charts import Chart, charts
from mapanything_ros.offline.report.map_view import map_view, MapView
from mapanything_ros.offline.report.results import Results
from mapanything_ros.offline.report.strip import Strip, strip

# The browser itself is told to ask nobody for anything.
POLICY = ("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
          'img-src data: blob:; font-src data:')


def page(results: Results, title: str) -> str:
    """Return the page; all text is escaped."""
    view, summary = map_view(results), results.summary
    said = words.warnings(summary)
    sections = [
        _section('Good to know', _list(said), 'warnings') if said else '',
        _map(results, view),
        _section('Keyframes', _strip(strip(results), len(results.keyframes), results.unit)),
        _section('What was used', _rows(words.facts(results)), 'half'),
        _section('Scale', _paragraphs(words.scale(summary)), 'half'),
        _section('Errors against the truth', _errors(results)) if results.evaluation else '',
        *(_section(chart.title, _chart(chart), 'half') for chart in charts(summary)),
        _section('Parameters', _parameters(results)),
    ]
    name = escape(title)
    return ''.join((
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        '<meta name="color-scheme" content="light dark">\n',
        f'<title>{name}: map</title>\n<link rel="icon" href="data:,">\n',
        f'<style>\n{_resource("page.css")}</style>\n</head>\n<body>\n',
        f'<header>\n<h1>{name}</h1>\n<p>{escape(words.headline(results))}</p>\n',
        f'<p class="backend">{escape(words.backend(summary))}</p>\n</header>\n',
        '<main>\n', *sections, '</main>\n',
        f'<footer>mapanything_ros {escape(str(summary["version"]))}</footer>\n',
        f'<script>{_plotly()}</script>\n<script>\n{_resource("page.js")}</script>\n',
        '</body>\n</html>\n'))


def _map(results: Results, view: MapView) -> str:
    total = len(results.cloud)
    shown = (
        f'{view.drawn:,} of {total:,} points, picked evenly over the map' if view.drawn < total
        else f'all {total:,} points')
    strays = (
        f'; {view.strays:,} far from everything else are left out' if view.strays else '')
    step = (view.high - view.low) / 200
    return _section('Map', (
        '<div id="map" class="figure map"></div>\n'
        f'<script type="application/json" data-for="map">{_json(view.figure)}</script>\n'
        '<p class="control"><label for="cut">Show up to</label>'
        f'<input id="cut" type="range" min="{view.low + step:.4f}" max="{view.high:.4f}" '
        f'step="{step:.4f}" value="{view.cut:.4f}"><output for="cut" data-unit="'
        f'{escape(results.unit)}"></output></p>\n'
        f'<p class="note">Drag to turn, scroll or pinch to zoom. Drawn: {shown}{strays}. '
        'What is above the cameras, such as a ceiling, is hidden at first: the slider shows '
        'it.</p>\n'))


def _chart(chart: Chart) -> str:
    name = ''.join(c if c.isalnum() else '-' for c in chart.title.lower())
    return (
        f'<div id="{name}" class="figure chart"></div>\n'
        f'<script type="application/json" data-for="{name}">{_json(chart.figure)}</script>\n'
        f'<p class="note">{escape(chart.words)}</p>\n')


def _strip(made: Strip, total: int, unit: str) -> str:
    pictures = ''.join(
        f'<li><img src="{one.picture}" width="{one.width}" height="{one.height}" '
        f'alt="picture {escape(one.label)}"><img src="{one.depth}" width="{one.width}" '
        f'height="{one.height}" alt="depth {escape(one.label)}"><span>{escape(one.label)}</span>'
        f'<span class="note">depth on {one.kept:.0%}</span></li>\n'
        for one in made.thumbnails)
    chosen = len(made.thumbnails)
    which = f'{chosen} of {total:,}, evenly over the path' if chosen < total else f'All {total}'
    return (
        f'<ul class="strip" tabindex="0" aria-label="keyframes">\n{pictures}</ul>\n'
        f'<p class="note">{which}. Depth from {made.near:.1f} {escape(unit)} '
        f'<img class="scale" src="{made.scale}" width="128" height="8" alt="blue to red"> to '
        f'{made.far:.1f} {escape(unit)}; grey went into no map.</p>\n')


def _errors(results: Results) -> str:
    assert results.evaluation is not None
    head, *rows = error_table(results.evaluation)
    notes = [
        f'Truth: {results.evaluation["truth"]}.',
        *(f'Not measured: {name}: {why}.'
          for name, why in results.evaluation['missing'].items())]
    return _table(head, rows) + _paragraphs(notes, 'note')


def _parameters(results: Results) -> str:
    rows = words.parameters(results.summary)
    note = 'All others have their defaults.' if rows else 'All have their defaults.'
    return (_rows(rows) if rows else '') + _paragraphs([note], 'note')


def _section(title: str, content: str, kind: str = '') -> str:
    start = f'<section class="{kind}">' if kind else '<section>'
    return f'{start}\n<h2>{escape(title)}</h2>\n{content}</section>\n'


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    lines = ''.join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n'
        for name, value in rows)
    return f'<div class="table"><table>\n{lines}</table></div>\n'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = ''.join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + ''.join(f'<td>{escape(cell)}</td>' for cell in row[1:]) + '</tr>\n' for row in rows)
    return (
        f'<div class="table"><table class="numbers">\n<thead><tr>{first}</tr></thead>\n<tbody>\n'
        f'{lines}</tbody>\n</table></div>\n')


def _list(texts: Iterable[str]) -> str:
    return '<ul>\n' + ''.join(f'<li>{escape(text)}</li>\n' for text in texts) + '</ul>\n'


def _paragraphs(texts: Iterable[str], kind: str = '') -> str:
    start = f'<p class="{kind}">' if kind else '<p>'
    return ''.join(f'{start}{escape(text)}</p>\n' for text in texts)


def _json(figure: dict[str, Any]) -> str:
    """Return JSON that is safe inside of a script element; arrays are packed."""
    from plotly.graph_objects import Figure

    # Figure checks every name and value.
    return str(Figure(figure).to_json()).replace('<', '\\u003c')


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # Its literals hold control characters, which HTML forbids.
    return re.sub(
        '[\x00-\x08\x0e-\x1f\x7f-\x9f]', lambda found: f'\\x{ord(found[0]):02x}',
        get_plotlyjs())


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text()
