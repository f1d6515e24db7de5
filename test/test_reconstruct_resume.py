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

"""Runs that were cut off: what is saved, what is not, and that going on changes nothing."""

from collections.abc import Sequence
import os
from pathlib import Path
import signal

from helpers import ExactBackend, K
import pytest
from recordings import (
    messages_of,
    Runs,
    seen_on_path,
    summary_of,
    write_bag,
    write_calibration,
    write_photos,
)

from mapanything_ros.core.datatypes import Keyframe, WindowPrediction
from mapanything_ros.offline.keyframe_store import KeyframeStore
from mapanything_ros.offline.reconstruction import Reconstruction

COUNT = 12


class Interrupting(ExactBackend):
    """Does something in the middle of a window."""

    def __init__(self, at_window: int, action: object) -> None:
        super().__init__()
        self.at_window = at_window
        self.action = action

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        if len(self.windows) + 1 == self.at_window:
            self.action()
        return super().infer(keyframes)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def lose_power() -> None:
    raise SystemExit('as if somebody had pulled the plug')


@pytest.fixture
def run(monkeypatch) -> Runs:
    return Runs(monkeypatch)


@pytest.fixture
def whole(tmp_path, run):
    """Return photos, what they show, and the results of a run that nothing disturbed."""
    seen = write_photos(tmp_path / 'photos', COUNT)
    assert run(tmp_path / 'photos', tmp_path / 'whole', seen=seen) == 0
    return tmp_path / 'photos', seen, tmp_path / 'whole'


def check_same(a: Path, b: Path) -> None:
    assert {path.name for path in a.iterdir()} == {path.name for path in b.iterdir()}
    for name in ('map.ply', 'trajectory.tum', 'keyframes/index.json'):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_ctrl_c_saves_what_there_is_and_resume_goes_on(
        tmp_path, run, whole, capsys):
    photos, seen, expected = whole
    before = signal.getsignal(signal.SIGINT)
    run.backend = Interrupting(3, press_ctrl_c)
    output = tmp_path / 'out'
    assert run(photos, output, seen=seen) == 130
    said = capsys.readouterr()
    assert 'stopping after this window' in said.err and 'this is a part: interrupted' in said.err
    assert 'points of 7 keyframes' in said.out
    assert summary_of(output)['ended'] == 'interrupted'
    assert len(KeyframeStore.open(output / 'keyframes')) == 7
    assert signal.getsignal(signal.SIGINT) is before
    run.backend = ExactBackend()
    assert run(photos, output, '--resume', seen=seen) == 0
    check_same(output, expected)
    assert summary_of(output)['statistics']['windows_reused'] == 3
    ids = [[keyframe.id for keyframe in window] for window in run.backend.windows]
    # The one before the first that is new, for what the backend remembers of it, and the new.
    assert ids == [[4, 5, 6], [6, 7, 8], [8, 9, 10], [9, 10, 11]], ids


def test_a_run_that_was_killed_leaves_no_results_but_can_be_resumed(
        tmp_path, run, whole, capsys):
    photos, seen, expected = whole
    output = tmp_path / 'out'
    run.backend = Interrupting(3, lose_power)
    with pytest.raises(SystemExit):
        run(photos, output, seen=seen)
    assert not output.exists() and 'counts again with --resume' in capsys.readouterr().err
    assert run(photos, output, seen=seen) == 1
    assert 'was cut off: go on with --resume, or start again' in capsys.readouterr().err
    run.backend = ExactBackend()
    assert run(photos, output, '--resume', seen=seen) == 0
    check_same(output, expected)
    firsts = [window[0].id for window in run.backend.windows]
    assert firsts[:2] == [2, 4], 'of the two windows before, the one that shares a keyframe'


def test_a_gpu_that_is_lost_ends_the_run_which_can_be_resumed(tmp_path, run, gpu, capsys):
    """No window after it would work; those before it count."""
    seen = write_photos(tmp_path / 'photos', COUNT)

    def lose() -> None:
        gpu.lost = RuntimeError('CUDA error: unspecified launch failure\nCompile with')
        raise gpu.lost

    run.backend = Interrupting(3, lose)
    assert run(tmp_path / 'photos', tmp_path / 'out', '--device', 'cuda', seen=seen) == 1
    said = capsys.readouterr().err
    assert 'the GPU is lost to this process (CUDA error: unspecified launch failure)' in said
    assert 'counts again with --resume' in said and 'Traceback' not in said
    assert len(run.backend.windows) == 2
    assert len(list((tmp_path / '.out.part/.state/windows').iterdir())) == 2


def test_a_window_that_was_half_written_is_done_again(tmp_path, run, whole):
    photos, seen, expected = whole
    output = tmp_path / 'out'
    run.backend = Interrupting(3, lose_power)
    with pytest.raises(SystemExit):
        run(photos, output, seen=seen)
    newest = max((tmp_path / '.out.part/.state/windows').iterdir())
    newest.write_bytes(newest.read_bytes()[:5000])
    run.backend = ExactBackend()
    assert run(photos, output, '--resume', seen=seen) == 0
    check_same(output, expected)


def test_nothing_is_resumed_with_other_parameters_or_another_recording(
        tmp_path, run, whole, capsys):
    photos, seen, _ = whole
    output = tmp_path / 'out'
    run.backend = Interrupting(3, lose_power)
    with pytest.raises(SystemExit):
        run(photos, output, seen=seen)
    assert run(photos, output, '--resume', '--set', 'map.voxel_m=0.05', seen=seen) == 1
    assert 'parameters map.voxel_m): start again with --overwrite' in capsys.readouterr().err
    (photos / f'photo_{COUNT}.png').unlink()
    assert run(photos, output, '--resume', seen=seen) == 1
    assert 'recording' in capsys.readouterr().err
    run.backend = ExactBackend()
    assert run(photos, output, '--overwrite', seen=seen) == 0
    assert len(KeyframeStore.open(output / 'keyframes')) == COUNT - 1


@pytest.mark.parametrize('as_file', [False, True])
def test_nothing_is_resumed_with_another_calibration(tmp_path, run, whole, capsys, as_file):
    photos, seen, _ = whole

    def intrinsics(fx: float) -> list[str]:
        """Return the option; between two of them, no name tells a difference."""
        if not as_file:
            return ['--intrinsics', f'{fx},{K[1, 1]},{K[0, 2]},{K[1, 2]}']
        k = K.copy()
        k[0, 0] = fx
        write_calibration(tmp_path / 'camera.yaml', k)
        return ['--intrinsics', str(tmp_path / 'camera.yaml')]

    run.backend = Interrupting(3, lose_power)
    with pytest.raises(SystemExit):
        run(photos, tmp_path / 'out', *intrinsics(K[0, 0]), seen=seen)
    run.backend = ExactBackend()
    assert run(photos, tmp_path / 'out', '--resume', *intrinsics(K[0, 0] + 1e-9), seen=seen) == 1
    assert 'something is not as it was then (recording calibration)' in capsys.readouterr().err
    assert run(photos, tmp_path / 'out', '--resume', *intrinsics(K[0, 0]), seen=seen) == 0


def test_results_may_lie_in_the_bag(tmp_path, run):
    seen = seen_on_path(COUNT)
    bag = write_bag(tmp_path / 'bag', messages_of(seen))
    run.backend = Interrupting(3, press_ctrl_c)
    assert run(bag, bag / 'out', seen=seen) == 130
    run.backend = ExactBackend()
    assert run(bag, bag / 'out', '--resume', seen=seen) == 0
    assert summary_of(bag / 'out')['keyframes_in_map'] == COUNT


def test_ctrl_c_before_the_last_window_is_no_complete_map(
        tmp_path, run, whole, monkeypatch):
    photos, seen, expected = whole
    read = Reconstruction._read

    def then_press(*arguments: object) -> str:
        ended = read(*arguments)
        press_ctrl_c()
        return ended

    monkeypatch.setattr(Reconstruction, '_read', then_press)
    assert run(photos, tmp_path / 'out', seen=seen) == 130
    assert summary_of(tmp_path / 'out')['ended'] == 'interrupted'
    monkeypatch.setattr(Reconstruction, '_read', read)
    assert run(photos, tmp_path / 'out', '--resume', seen=seen) == 0
    check_same(tmp_path / 'out', expected)


def test_there_is_nothing_to_resume_where_nothing_was_begun_or_all_is_done(
        tmp_path, run, whole, capsys):
    photos, seen, complete = whole
    assert run(photos, tmp_path / 'out', '--resume', seen=seen) == 1
    assert 'nothing to resume for' in capsys.readouterr().err
    assert run(photos, complete, '--resume', seen=seen) == 1
    assert 'it is complete' in capsys.readouterr().err
    assert not list(tmp_path.glob('.*.part'))


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing(tmp_path, run, whole, capsys):
    photos, seen, _ = whole

    def press_twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    run.backend = Interrupting(3, press_twice)
    assert run(photos, tmp_path / 'out', seen=seen) == 130
    assert not (tmp_path / 'out').exists()
    assert 'counts again with --resume' in capsys.readouterr().err


def test_two_runs_do_not_write_to_the_same_place(tmp_path, run, whole, capsys):
    photos, seen, expected = whole
    output = tmp_path / 'out'
    codes = []
    run.backend = Interrupting(
        3, lambda: codes.append(run(photos, output, '--overwrite', seen=seen)))
    assert run(photos, output, seen=seen) == 0
    assert codes == [1] and 'another run is at work for' in capsys.readouterr().err
    check_same(output, expected)
