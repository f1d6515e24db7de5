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

"""The report in a real browser: it draws what it says, asks nobody, and complains of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import shutil

import cv2
import numpy as np
import pytest
from recordings import messages_of, Runs, seen_on_path, write_bag

from mapanything_ros.offline.report.report import REPORT, write_page
from mapanything_ros.offline.report.results import Results

playwright = pytest.importorskip(
    'playwright.sync_api', reason='playwright is not installed: pip install playwright')
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
# WebGL without a GPU.
SOFTWARE = ('--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader')
READY = 'document.body.dataset.ready === "true"'
TIMEOUT_MS = 180_000
# The only complaint that is let pass is a browser's hint about its own speed, without a GPU.
HINTS = ('willReadFrequently', 'GPU stall due to ReadPixels')


@pytest.fixture(scope='module')
def browser() -> Iterator[playwright.Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip('no browser is installed: apt-get install chromium')
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(
            executable_path=path, args=[*SOFTWARE, '--no-sandbox'])
        yield started
        started.close()


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Give the results, with report, of a bag of the room."""
    folder = tmp_path_factory.mktemp('browser')
    all_seen = seen_on_path(8)
    write_bag(folder / 'bag', messages_of(all_seen))
    with pytest.MonkeyPatch.context() as patch:
        assert Runs(patch)(folder / 'bag', folder / 'map', seen=all_seen) == 0
    write_page(folder / 'map', 'room <b>&')
    return folder / 'map'


class Visit:
    """A page that was opened; ``asked`` and ``said`` are its requests and its console's words."""

    def __init__(self, browser: playwright.Browser, path: Path, **options: object) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page = browser.new_page(**options)
        self.page.on('request', lambda request: self.asked.append(request.url))
        self.page.on('console', lambda message: self.said.append(message.text))
        self.page.on('pageerror', lambda error: self.said.append(str(error)))
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.goto(path.as_uri())
        self.page.wait_for_function(READY)

    def colours_of_map(self, path: Path) -> np.ndarray:
        """Return the picture of the 3D view, (H,W,3), as the browser shows it."""
        self.page.locator('#map').screenshot(path=path)
        return cv2.imread(str(path))


@pytest.mark.parametrize('options', [
    {'viewport': {'width': 1280, 'height': 900}, 'color_scheme': 'light'},
    {'viewport': {'width': 390, 'height': 844}, 'color_scheme': 'dark', 'has_touch': True}],
    ids=['desk', 'phone'])
def test_the_report_draws_what_it_says_and_asks_for_nothing(
    browser, folder, tmp_path, options,
):
    visit = Visit(browser, folder / REPORT, **options)
    page = visit.page
    outside = [url for url in visit.asked if not url.startswith(('data:', 'blob:'))]
    assert outside == [(folder / REPORT).as_uri()]
    assert [text for text in visit.said if not any(hint in text for hint in HINTS)] == []
    assert page.locator('h1').text_content() == 'room <b>&'

    results = Results.open(folder)
    drawn = page.evaluate('document.getElementById("map")._fullData[0].x.length')
    assert drawn == len(results.cloud)
    assert f'all {drawn:,} points' in page.locator('main').text_content()
    assert page.locator('#map canvas').count() >= 1
    assert page.locator('.chart .main-svg').count() >= 3 * 2
    widths = page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
    assert widths[0] <= widths[1]  # nothing to scroll sideways
    broken = page.evaluate('Array.from(document.images).filter(i => !i.naturalWidth).length')
    assert broken == 0

    picture = visit.colours_of_map(tmp_path / 'map.png').reshape(-1, 3).astype(int)
    # The room is colourful, the page is not.
    colourful = np.ptp(picture, axis=1) > 60
    assert colourful.mean() > 0.05
    bright = np.median(picture[~colourful].sum(axis=1)) / 3
    assert bright > 200 if options['color_scheme'] == 'light' else bright < 60
    page.close()


def test_the_slider_cuts_the_map_at_its_own_scale(browser, folder, tmp_path):
    visit = Visit(browser, folder / REPORT, viewport={'width': 900, 'height': 800})
    scene = '(() => { const s = document.getElementById("map").layout.scene; ' \
        'return [s.zaxis.range, s.aspectratio.z]; })()'
    (low, high), tall = visit.page.evaluate(scene)
    before = visit.colours_of_map(tmp_path / 'before.png')
    visit.page.locator('#cut').fill(str(low + (high - low) / 2))
    visit.page.wait_for_timeout(500)
    (now_low, now_high), now_tall = visit.page.evaluate(scene)
    assert now_low == low
    assert now_high == pytest.approx(low + (high - low) / 2, abs=0.02 * (high - low))
    assert now_tall / tall == pytest.approx((now_high - low) / (high - low))
    assert f'{now_high:.2f}' in visit.page.locator('output').text_content()
    assert (visit.colours_of_map(tmp_path / 'after.png') != before).any()
    visit.page.close()
