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

import numpy as np
import pytest

from benchmarks.evaluate import long_drive
from benchmarks.evaluate.long_drive import laps, LongDrive


@pytest.fixture(autouse=True)
def short_laps(monkeypatch):
    monkeypatch.setattr(long_drive, 'LAP_M', 20.0)


def test_laps_are_as_long_as_they_say_and_come_back_to_where_they_were():
    place = laps(0.06)
    assert len(place) == 121
    assert place.length_m == pytest.approx(60.0, rel=2e-3)
    np.testing.assert_allclose(
        place.world_from_camera[40], place.world_from_camera[0], atol=1e-9)
    ahead = np.diff(place.world_from_camera[:, :3, 3], axis=0) / long_drive.STEP_M
    assert ((ahead * place.world_from_camera[:-1, :3, 2]).sum(axis=1) > 0.99).all()


@pytest.mark.parametrize('loops', [False, True])
def test_every_keyframe_is_mapped_and_each_mark_says_what_it_costs(loops):
    drive = LongDrive(0.06, loops)
    first, last = drive.drive((60, 121))
    assert (first.keyframe, last.keyframe) == (60, 121)
    assert 0 < first.seconds_a_window <= first.longest_s
    assert first.resident_mib > 10
    counts = drive.reconstructor.statistics()
    assert counts['keyframes'] == 121 and counts['segments'] == 1
    # Windows of 6 begin at every third keyframe; one that is lost comes again.
    assert len(drive.reconstructor.trajectory()) >= 120 - 3
    assert last.position_m < 0.03 * 60
    # Each fifth keyframe of the second lap and the third, less those of a lost window.
    assert counts.get('loop_closed', 0) == pytest.approx(16 if loops else 0, abs=1)
