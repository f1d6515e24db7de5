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

"""The report of a map of the room, whose geometry is known."""

from __future__ import annotations

from html.parser import HTMLParser
import json
from pathlib import Path
import re
import shutil
import sys

import cv2
import numpy as np
import pytest
import recordings
from recordings import messages_of, Runs, seen_on_path, write_bag

from mapanything_ros.cli import evaluate
from mapanything_ros.core.errors import ExportError, InputError
from mapanything_ros.core.map.export import write_tum
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.report import report, words
from mapanything_ros.offline.report.charts import charts
from mapanything_ros.offline.report.map_view import map_view
from mapanything_ros.offline.report.recording import write_recording
from mapanything_ros.offline.report.report import PICTURES, REPORT, write_page, write_report
from mapanything_ros.offline.report.results import Results
from mapanything_ros.offline.report.thinning import thinned

MARKUP = '<script>alert("x")</script>&$a_$'
VOID = {'meta', 'link', 'img', 'input', 'br'}


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    """Give what reconstruct writes of a bag of the room."""
    folder = tmp_path_factory.mktemp('report')
    all_seen = seen_on_path(8)
    write_bag(folder / 'bag', messages_of(all_seen))
    with pytest.MonkeyPatch.context() as patch:
        assert Runs(patch)(folder / 'bag', folder / 'map', seen=all_seen) == 0
    return folder / 'map'


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """Give a copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / 'copy'))


def change_summary(folder: Path, **changes: object) -> dict:
    path = folder / 'summary.json'
    summary = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(summary))
    return summary


class Page(HTMLParser):
    """Holds a page's elements and text; an element that is not closed in order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ''
        self.figures: dict[str, dict] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        attributes = self.elements[-1][1] if self.elements else {}
        if 'data-for' in attributes and self.open[-1] == 'script':
            self.figures[str(attributes['data-for'])] = json.loads(data)
        elif not self.open or self.open[-1] not in ('script', 'style'):
            self.text += data


def test_the_page_refers_to_nothing_outside_of_it(folder):
    write_page(folder)
    text = (folder / REPORT).read_text()
    assert not re.search('[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]', text)  # HTML forbids them
    page = Page(text)
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items()
        if name in ('src', 'href', 'srcset', 'action', 'poster', 'data')]
    assert len(addresses) > 16
    assert all(str(address).startswith('data:') for address in addresses)
    policy = next(a['content'] for _, a in page.elements if 'http-equiv' in a)
    assert str(policy).startswith("default-src 'none'")
    ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(ids) == len(set(ids)) and set(page.figures) <= set(ids)


def test_text_from_outside_stays_text(folder):
    before = len(Page(_written(folder, 'name')).elements)
    index = json.loads((folder / 'keyframes' / 'index.json').read_text())
    for entry in index:
        entry['name'] = MARKUP
    (folder / 'keyframes' / 'index.json').write_text(json.dumps(index))
    summary = json.loads((folder / 'summary.json').read_text())
    windows = [{**window, 'problem': MARKUP} for window in summary['windows']]
    change_summary(
        folder, warnings=[{'kind': 'x', 'text': MARKUP, 'times': 2}], ended=MARKUP,
        inputs={'bag': MARKUP}, parameters={MARKUP: MARKUP}, windows=windows)
    write_report(folder, MARKUP)
    page = Page((folder / REPORT).read_text())
    assert page.text.count('alert("x")') > 6
    scripts = [a for tag, a in page.elements if tag == 'script']
    assert len([a for a in scripts if 'data-for' not in a]) == 2
    assert before / 2 < len(page.elements) < before * 2


def _written(folder: Path, title: str) -> str:
    write_page(folder, title)
    return (folder / REPORT).read_text()


def test_the_view_shows_the_map_and_the_path_where_they_are(folder):
    results = Results.open(folder)
    view = map_view(results)
    cloud, path, *_ = view.figure['data']
    drawn = np.stack([cloud[axis] for axis in 'xyz'], axis=1)
    assert view.drawn == len(drawn) == len(results.cloud) and view.strays == 0
    np.testing.assert_array_equal(drawn, results.cloud.xyz)
    np.testing.assert_allclose(
        np.stack([path[axis] for axis in 'xyz'], axis=1), results.cameras[:, :3, 3], atol=1e-6)
    assert path['text'][1] == f'keyframe 2, {np.diff(results.stamps_ns)[0] * 1e-9:.1f} s'
    scale = [colour for _, colour in cloud['marker']['colorscale']]
    shown = np.array([
        [int(part) for part in scale[i][4:-1].split(',')] for i in cloud['marker']['color']])
    assert np.abs(shown - results.cloud.rgb.astype(int)).mean() < 8
    scene = view.figure['layout']['scene']
    sizes = [np.ptp(scene[f'{axis}axis']['range']) for axis in 'xyz']
    ratios = [scene['aspectratio'][axis] for axis in 'xyz']
    np.testing.assert_allclose(np.divide(sizes, sizes[0]), np.divide(ratios, ratios[0]))


def test_frusta_look_the_way_that_the_cameras_look(folder):
    results = Results.open(folder)
    frusta = map_view(results).figure['data'][2]
    strokes = np.stack([frusta[axis] for axis in 'xyz'], axis=1).reshape(-1, 13, 3)
    ahead = strokes[:, 1:12].mean(axis=1) - strokes[:, 0]
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    assert ((ahead * results.cameras[:, :3, 2]).sum(axis=1) > 0.9).all()


def test_a_large_map_is_thinned_evenly_whatever_its_density():
    rng = np.random.default_rng(0)
    dense = rng.uniform([0, 0, 0], [1, 1, 0], (90_000, 3))
    sparse = rng.uniform([1, 0, 0], [2, 1, 0], (30_000, 3))
    cloud = PointCloud(
        np.concatenate([dense, sparse]).astype(np.float32),
        rng.integers(0, 256, (120_000, 3)).astype(np.uint8))
    few, edge = thinned(cloud, 2000, 0.001)
    assert 1500 < len(few) <= 2000
    assert edge == pytest.approx((2 / len(few)) ** 0.5, rel=0.1)
    assert (few.xyz[:, 0] < 1).mean() == pytest.approx(0.5, abs=0.05)
    known = {(*xyz.tolist(), *rgb.tolist()) for xyz, rgb in zip(cloud.xyz, cloud.rgb, strict=True)}
    assert {(*xyz.tolist(), *rgb.tolist())
            for xyz, rgb in zip(few.xyz, few.rgb, strict=True)} <= known
    assert thinned(few, 2000, 0.3) == (few, 0.3)


def test_strays_do_not_shrink_the_map_and_are_counted(folder, monkeypatch):
    results = Results.open(folder)
    xyz = results.cloud.xyz.copy()
    xyz[:5] += 1000
    object.__setattr__(results, 'cloud', PointCloud(xyz, results.cloud.rgb))
    monkeypatch.setattr('mapanything_ros.offline.report.map_view.POINTS', 500)
    view = map_view(results)
    assert view.strays == 5 and 300 < view.drawn <= 500
    assert view.high < 10


def test_the_charts_count_what_the_summary_counts(folder):
    summary = json.loads((folder / 'summary.json').read_text())
    windows = summary['windows']
    lost = {**windows[0], 'problem': 'rejected: it does not fit', 'scale_source': '',
            'seconds': 0.5}
    summary |= {'windows': [*windows, lost], 'keyframes_in_map': 6}
    images, times, *_ = charts(summary)
    assert images.figure['data'][0]['x'][:3] == [
        8, summary['statistics']['keyframes'], 6]
    assert 'lost with their windows' in images.words
    kept, dropped = times.figure['data']
    assert kept['y'] == [window['seconds'] for window in windows]
    assert (dropped['x'], dropped['y']) == ([len(windows) + 1], [0.5])
    assert '1 of them failed or were rejected' in times.words


def test_what_should_be_known_is_said_in_words(folder):
    summary = change_summary(
        folder, backend='colmap', metric=False, ended='the bag breaks off',
        warnings=[{'kind': 'image', 'text': 'an image is left out', 'times': 3}])
    said = ' '.join(words.warnings(summary))
    for phrase in ('MapAnything, was not used', 'not metres', 'the bag breaks off',
                   'An image is left out. (3 times; this is the first)'):
        assert phrase in said
    assert 'lengths are not metres' in words.scale(summary)[0]
    assert Results.open(folder).unit == 'map units'
    assert 'not by MapAnything' in words.backend(summary)
    assert words.backend({**summary, 'backend': 'mapanything'}) == (
        'Made by MapAnything, on cpu')


def test_the_scale_and_its_evidence_are_told(folder):
    summary = json.loads((folder / 'summary.json').read_text())
    window = {**summary['windows'][0], 'problem': '', 'scale_residual': 0.02}
    summary |= {
        'metric': True, 'scale': {'source': 'odometry', 'factor': 2.0, 'residual': 0.02},
        'windows': [
            {**window, 'scale_source': 'odometry', 'scale': 2.0},
            {**window, 'scale_source': 'map', 'scale': 2.2},
            {**window, 'scale_source': 'odometry', 'scale': 1.9}]}
    source, spread, residual = words.scale(summary)
    assert 'odometry: the distances between keyframes (2 of 3 windows)' in source
    assert 'windows placed before (1 of 3 windows)' in source
    assert '2 in the median' in spread and '10.0%' in spread
    assert '2.0%' in residual
    # Windows of structure from motion alone have each its own unit.
    lone = {**summary, 'backend': 'colmap', 'parameters': {}}
    assert words.scale(lone) == [source, residual]
    assert 'Scale of each window' not in [chart.title for chart in charts(lone)]
    with_poses = {**lone, 'parameters': {'pose_source': 'tf'}}
    assert words.scale(with_poses) == [source, spread, residual]
    assert 'Scale of each window' in [chart.title for chart in charts(with_poses)]
    known = {'source': 'tag', 'factor': 1.25, 'residual': 0.01}
    assert '1.25. What its views tell spreads by 1.0%' in words.scale(
        {**summary, 'scale': known})[0]


def test_errors_against_the_truth_are_shown_where_evaluate_has_run(folder, tmp_path):
    write_page(folder)
    assert 'Errors against the truth' not in Page((folder / REPORT).read_text()).text
    write_tum(tmp_path / 'truth.tum', ((seen.stamp_ns, seen.world_from_camera)
                                       for seen in seen_on_path(8)))
    assert evaluate.main([str(folder), '--truth', str(tmp_path / 'truth.tum')]) == 0
    text = Page((folder / REPORT).read_text()).text
    assert 'Errors against the truth' in text and 'poses from truth.tum' in text
    found = json.loads((folder / 'evaluation.json').read_text())
    assert found['position_rmse_m']['unaligned'] < 1e-3
    assert f'{found["rotation_rmse_deg"]["SE3"]:.3f}' in text
    assert 'there is no true surface' in text


def test_reconstruct_writes_the_report_unless_it_is_told_not_to(made, tmp_path, monkeypatch):
    assert not (made / REPORT).exists()
    all_seen = seen_on_path(8)
    write_bag(tmp_path / 'bag', messages_of(all_seen))
    monkeypatch.setattr(recordings, 'SMALL', [o for o in recordings.SMALL if o != '--no-report'])
    pytest.importorskip('rerun', reason='rerun-sdk is not installed: pip install rerun-sdk')
    assert Runs(monkeypatch)(
        tmp_path / 'bag', tmp_path / 'map', '--formats', 'rrd', seen=all_seen) == 0
    assert '<h1>map</h1>' in (tmp_path / 'map' / REPORT).read_text()
    assert {path.name for path in (tmp_path / 'map').iterdir()} >= {*PICTURES, 'map.rrd'}


def test_pictures_are_written_and_no_part_of_them_is_left_behind(folder):
    write_report(folder)
    for name in PICTURES:
        picture = cv2.imread(str(folder / name))
        assert picture is not None and picture.std() > 10, name
    assert not [path for path in folder.iterdir() if path.name.startswith('.')]


def test_keyframes_are_named_by_their_files_or_by_time(folder):
    results = Results.open(folder)
    first, second, *_ = results.keyframes
    assert results.label(first) == '0.0 s'
    assert results.label(second) == f'{(second.stamp_ns - first.stamp_ns) * 1e-9:.1f} s'


def test_a_recording_for_rerun_holds_map_cameras_and_pictures(folder, tmp_path):
    pytest.importorskip('rerun', reason='rerun-sdk is not installed: pip install rerun-sdk')
    chunks = pytest.importorskip('rerun.chunk', reason='this rerun-sdk cannot read recordings')
    results = Results.open(folder)
    write_recording(tmp_path / 'map.rrd', results.keyframes, results.cloud, results.spacing)
    found: dict[str, list] = {}
    for chunk in chunks.RrdReader(str(tmp_path / 'map.rrd')).stream().to_chunks():
        found.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    points = np.array(found['/map/points'][0].column('Points3D:positions')[0].as_py())
    np.testing.assert_allclose(points, results.cloud.xyz, atol=1e-6)
    cameras = found['/map/camera']
    stamps = np.concatenate([batch.column('stamp').to_numpy() for batch in cameras])
    np.testing.assert_array_equal(np.sort(stamps.astype(np.int64)), results.stamps_ns)
    places = np.array([
        row[0] for batch in cameras
        for row in batch.column('Transform3D:translation').to_pylist()])
    np.testing.assert_allclose(
        places[np.argsort(stamps)], results.cameras[:, :3, 3], atol=1e-6)
    for name in ('rgb', 'depth'):
        rows = sum(batch.num_rows for batch in found[f'/map/camera/image/{name}'])
        assert rows == len(results.keyframes)


def test_without_rerun_one_sentence_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    results = Results.open(folder)
    with pytest.raises(ExportError, match='pip install rerun-sdk'):
        write_recording(tmp_path / 'map.rrd', results.keyframes, results.cloud, 0.02)
    assert not (tmp_path / 'map.rrd').exists()


def test_without_plotly_one_sentence_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(report, 'find_spec', lambda name: None)
    with pytest.raises(ExportError, match='pip install plotly'):
        write_report(folder)


@pytest.mark.parametrize(('damage', 'sentence'), [
    (lambda folder: (folder / 'summary.json').unlink(), 'give a folder that reconstruct'),
    (lambda folder: (folder / 'summary.json').write_text('{"backend": 1}'), 'it lacks device'),
    (lambda folder: (folder / 'summary.json').write_text('[]'), 'no JSON object'),
    (lambda folder: (folder / 'map.ply').unlink(), 'there is no map at'),
    (lambda folder: (folder / 'map.ply').write_text('ply'), 'holds no points'),
    (lambda folder: shutil.rmtree(folder / 'keyframes'), 'holds no keyframes'),
    (lambda folder: (folder / 'keyframes' / 'index.json').write_text('[]'), 'nothing to show')])
def test_a_folder_that_is_no_result_is_refused(folder, damage, sentence):
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        write_report(folder)
    assert not (folder / REPORT).exists()
