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

"""
A folder of 2,000 photos through `reconstruct`: peak memory up to photo 200 and up to the last.

The photos are real files; the backend answers with the geometry of the endless corridor of the map
bench, as nothing else but time depends on it. The map is bounded and reaches its bound before the
first mark. It all runs in a process of its own, whose resident memory is looked at in each window;
the last figure is the highest of the whole run, with the writing of the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from benchmarks.map import BOUNDED_POINTS, keyframe, resident_mib, VOXEL_M
from mapanything_ros.cli import reconstruct
from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe, Scale, WindowPrediction

MARKS = (200, 2000)
PHOTO_SIZE = (1280, 960)
DIFFERENT_PHOTOS = 20

Figures = dict[str, Any]


def run(output: Path) -> None:
    """Measure, print and write the figures as JSON."""
    done = subprocess.run(
        [sys.executable, '-c', 'from benchmarks.reconstruct import measure; measure()'],
        check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    early, late = (mark['peak_mib'] for mark in figures['marks'])
    print(f'reconstruct, {MARKS[1]} photos of {PHOTO_SIZE[0]}x{PHOTO_SIZE[1]}')
    print(f'  peak memory up to photo {MARKS[0]}: {early:.0f} MiB, up to photo {MARKS[1]}: '
          f'{late:.0f} MiB, {late / early:.2f}x')
    print(f'  of the whole run with its results ({figures["results_mib"]:.0f} MiB on disk): '
          f'{figures["peak_mib"]:.0f} MiB; {figures["seconds"]:.0f} s')
    output.write_text(json.dumps(figures, indent=1) + '\n')
    print(f'wrote {output}')


class CorridorBackend(Backend):
    """Answers each window with the geometry of the corridor, and looks at the memory."""

    name = 'corridor'

    def __init__(self) -> None:
        self.peaks_mib = dict.fromkeys(MARKS, 0.0)

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """Return views of the corridor where the keyframes are."""
        now_mib = resident_mib()
        for mark in MARKS:
            if keyframes[-1].id < mark:
                self.peaks_mib[mark] = max(self.peaks_mib[mark], now_mib)
        made = [keyframe(frame.id) for frame in keyframes]
        first_from_world = np.linalg.inv(made[0][1])
        return WindowPrediction(tuple(
            replace(view, world_from_camera=first_from_world @ pose) for view, pose in made),
            Scale('model'))

    def statistics(self) -> dict[str, object]:
        """Return nothing: there is nothing to say."""
        return {}


def measure() -> None:
    """Reconstruct a folder of photos; print the figures as JSON."""
    backend = CorridorBackend()
    with tempfile.TemporaryDirectory() as folder:
        photos, output = Path(folder) / 'photos', Path(folder) / 'results'
        write_photos(photos, max(MARKS))
        start_s = time.monotonic()

        def create(config: Config) -> CorridorBackend:
            return backend

        with patch.object(reconstruct, 'create_backend', create):
            code = reconstruct.main([
                str(photos), '--output', str(output), '--device', 'cpu',
                '--set', f'map.max_points={BOUNDED_POINTS}', '--set', f'map.voxel_m={VOXEL_M}',
                '--no-report'])
        assert code == 0
        seconds = time.monotonic() - start_s
        size = sum(path.stat().st_size for path in output.rglob('*'))
    print(json.dumps({
        'photos': max(MARKS), 'photo_size': PHOTO_SIZE, 'max_points': BOUNDED_POINTS,
        'marks': [
            {'photos': mark, 'peak_mib': peak} for mark, peak in backend.peaks_mib.items()],
        'peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        'results_mib': size / 2**20, 'seconds': seconds}))


def write_photos(folder: Path, count: int) -> None:
    """Write JPEGs; many of them are the same file under another name."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f'{number}.jpg'
        if number < DIFFERENT_PHOTOS:
            coarse = rng.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(coarse).resize(PHOTO_SIZE).save(path)
        else:
            os.link(folder / f'{number % DIFFERENT_PHOTOS}.jpg', path)
