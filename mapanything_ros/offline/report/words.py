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

"""What a reconstruction's figures mean, in plain words; nothing here is HTML."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from mapanything_ros.offline.report.results import Results

BACKENDS = {
    'mapanything': 'Made by MapAnything',
    'colmap': 'Made by classical multi-view stereo (COLMAP), not by MapAnything'}
INPUTS = {
    'bag': 'Bag', 'video': 'Video', 'image_topic': 'Images from',
    'camera_info_topic': 'Calibration from', 'depth_topic': 'Depth from',
    'intrinsics': 'Intrinsics', 'odometry': 'Odometry in TF frame'}
NOT_USED = {
    'depth_topic': 'not used', 'odometry': 'not used', 'intrinsics': 'estimated, none given',
    'camera_info_topic': 'not used'}
EVIDENCE = {
    'odometry': 'odometry: the distances between keyframes',
    'depth': 'depth images',
    'model': "the network's own sense of size",
    'map': 'windows placed before'}
REFERENCES = {
    'points': 'the distance of two points that was given (--scale-reference)',
    'tag': 'a tag of known size that the camera saw (--scale-reference)'}

Rows = list[tuple[str, str]]


def backend(summary: Mapping[str, Any]) -> str:
    """Return what made the geometry, by its plain name, and on what."""
    name = summary['backend']
    return f'{BACKENDS.get(name, f"Made by {name}")}, on {summary["device"]}'


def headline(results: Results) -> str:
    """Return what came out, in one sentence."""
    summary = results.summary
    low, high = results.extent()
    size = ' \N{MULTIPLICATION SIGN} '.join(f'{side:.1f}' for side in high - low)
    unit = results.unit
    return (
        f'{len(results.cloud):,} points, {size} {unit}, from {len(results.keyframes):,} '
        f'keyframes along {results.path_length():.1f} {unit} of path, in '
        f'{duration(summary["seconds"])}.')


def facts(results: Results) -> Rows:
    """Return what was read and used."""
    summary, inputs = results.summary, results.summary['inputs']
    rows = [(name.title(), str(summary[name])) for name in ('backend', 'device', 'source')]
    rows += [
        (INPUTS[name], NOT_USED.get(name, 'none') if value in (None, 'none') else str(value))
        for name, value in inputs.items() if name in INPUTS]
    windows = summary['windows']
    lost = sum(bool(window['problem']) for window in windows)
    return [
        *rows, ('Images', f'{summary["images_read"]:,} read'),
        ('Keyframes', f'{summary["statistics"]["keyframes"]:,}, of which '
         f'{summary["keyframes_in_map"]:,} are in the map'),
        ('Windows', f'{len(windows):,}' + (f', of which {lost:,} were lost' if lost else '')),
        ('Run', f'{summary["ended"]}, {duration(summary["seconds"])}'),
        *(('Finishing', note) for note in summary['notes'])]


def scale(summary: Mapping[str, Any]) -> list[str]:
    """Return where metres come from, and how well that is known."""
    if not summary['metric']:
        return ['Nothing tells the size of things: lengths are not metres, and shapes alone are '
                'right. Odometry, depth images, the network or a known size (--scale-reference) '
                'give metres.']
    known = summary['scale']
    if known['source'] in REFERENCES:
        spread = '' if known['residual'] is None else (
            f' What its views tell spreads by {known["residual"]:.1%}.')
        return [f'Metres come from {REFERENCES[known["source"]]}: all lengths were multiplied by '
                f'{known["factor"]:.4g}.{spread}']
    windows = [w for w in summary['windows'] if not w['problem']]
    sources = {s: sum(w['scale_source'] == s for w in windows)
               for s in dict.fromkeys(w['scale_source'] for w in windows)}
    told = '; '.join(
        f'{EVIDENCE.get(source, source)} ({count} of {len(windows)} windows)'
        for source, count in sources.items())
    sentences = [f'Metres come from {told}.']
    factors = [w['scale'] for w in windows if w['scale']]
    if len(factors) > 1 and comparable_scales(summary):
        middle = median(factors)
        spread = max(abs(factor / middle - 1) for factor in factors)
        sentences.append(
            f'The windows were scaled by {middle:.4g} in the median, and none was farther from '
            f'that than {spread:.1%}.')
    residuals = [w['scale_residual'] for w in windows if w['scale_residual'] is not None]
    sentences.append(
        f'The evidence within a window spreads by {median(residuals):.1%} (median absolute '
        'deviation).' if residuals else
        'There is no second evidence in the windows to check that with.')
    return sentences


def comparable_scales(summary: Mapping[str, Any]) -> bool:
    """
    Say whether windows that agree are multiplied by the same factor to be metres.

    Classical structure from motion without poses knows no size: each window is in its own unit.
    """
    return summary['backend'] != 'colmap' or summary['parameters'].get('pose_source') == 'tf'


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """Return what a person should know before trusting the map."""
    said = []
    if summary['backend'] == 'colmap':
        said.append('Classical stereo leaves surfaces without texture empty; the network, '
                    'MapAnything, was not used.')
    if summary['ended'] == 'interrupted':
        said.append('The run was interrupted: this is a part of the map. --resume goes on.')
    elif summary['ended'] != 'complete':
        said.append(f'The source could not be read to its end: {summary["ended"]}')
    if not summary['metric']:
        said.append('Lengths are not metres: nothing told the scale.')
    for warning in summary['warnings']:
        times = f' ({warning["times"]} times; this is the first)' if warning['times'] > 1 else ''
        said.append(f'{_sentence(warning["text"])}{times}')
    return said


def parameters(summary: Mapping[str, Any]) -> Rows:
    """Return the parameters that differ from their defaults."""
    return [(name, str(value)) for name, value in sorted(summary['parameters'].items())]


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    whole = round(seconds)
    if whole < 60:
        return f'{seconds:.1f} s'
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ('' if text.endswith(('.', '!', '?')) else '.')
