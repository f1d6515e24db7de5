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

"""What a backend said comes back from the disk to the bit, and nothing else does."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
import scenes
import torch

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.backends.colmap.backend import ColmapBackend
from mapanything_ros.core.config import ColmapConfig
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, WindowPrediction
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.offline.window_cache import CachedBackend

CPU = torch.device('cpu')
TENSORS = ('rgb', 'depth_m', 'confidence', 'mask', 'descriptor')


class RandomBackend(Backend):
    name = 'random'

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        self.calls += 1
        random = np.random.default_rng(self.calls)
        return WindowPrediction(tuple(Prediction(
            keyframe.id, torch.from_numpy(random.integers(0, 256, (3, 4, 3), np.uint8)),
            torch.from_numpy(random.random((3, 4), np.float32)),
            torch.from_numpy(random.random((3, 4), np.float32)),
            torch.from_numpy(random.random((3, 4)) < 0.5), random.random((3, 3)),
            random.random((4, 4)),
            torch.from_numpy(random.random(5, np.float32)) if keyframe.id % 2 else None)
            for keyframe in keyframes), Scale('depth', 1.0 / 3.0))

    def statistics(self) -> dict[str, object]:
        return {'calls': self.calls}


def keyframes(*ids: int) -> list[Keyframe]:
    return [Keyframe(n, 10 * n, 'camera', np.zeros((3, 4, 3), np.uint8)) for n in ids]


def test_a_window_is_asked_for_once_and_comes_back_to_the_bit(tmp_path):
    first = CachedBackend(RandomBackend(), tmp_path, CPU).infer(keyframes(3, 4, 5))
    backend = RandomBackend()
    again = CachedBackend(backend, tmp_path, CPU)
    known = again.infer(keyframes(3, 4, 5))
    assert backend.calls == 0 and again.statistics() == {'calls': 0, 'windows_reused': 1}
    assert known.scale.source == 'depth' and known.scale.factor == 1.0 / 3.0
    assert np.isnan(known.scale.residual)
    for view, expected in zip(known.views, first.views, strict=True):
        assert view.keyframe_id == expected.keyframe_id
        for name in TENSORS:
            value, wanted = getattr(view, name), getattr(expected, name)
            assert (value is None) == (wanted is None)
            assert value is None or value.dtype == wanted.dtype and torch.equal(value, wanted)
        np.testing.assert_array_equal(view.intrinsics, expected.intrinsics)
        np.testing.assert_array_equal(view.world_from_camera, expected.world_from_camera)


@pytest.mark.parametrize('ids', [(3, 4), (3, 4, 5, 6), (4, 5), (2, 3, 4, 5)])
def test_other_windows_are_asked_for(tmp_path, ids):
    backend = RandomBackend()
    cached = CachedBackend(backend, tmp_path, CPU)
    cached.infer(keyframes(3, 4, 5))
    assert [view.keyframe_id for view in cached.infer(keyframes(*ids)).views] == list(ids)
    assert backend.calls == 2


def test_a_failure_is_not_kept(tmp_path, monkeypatch):
    def fail(keyframes):
        raise ReconstructionError('too dark')

    backend = RandomBackend()
    cached = CachedBackend(backend, tmp_path, CPU)
    monkeypatch.setattr(backend, 'infer', fail)
    with pytest.raises(ReconstructionError, match='too dark'):
        cached.infer(keyframes(1, 2))
    monkeypatch.undo()
    cached.infer(keyframes(1, 2))
    assert backend.calls == 1 and cached.statistics()['windows_reused'] == 0


class RecordingBackend(RandomBackend):
    """Notes what it was asked for; fails where keyframe 9 comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, ...]] = []

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        self.asked.append(tuple(keyframe.id for keyframe in keyframes))
        if keyframes[-1].id == 9:
            raise ReconstructionError('nothing to see')
        return super().infer(keyframes)


def test_a_backend_that_goes_on_has_seen_what_shares_keyframes_with_its_window(tmp_path):
    windows = [(0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7), (6, 7, 8, 9), (8, 9, 10, 11)]
    before = CachedBackend(RecordingBackend(), tmp_path, CPU)
    for ids in windows:
        with suppress(ReconstructionError):
            before.infer(keyframes(*ids))
    backend = RecordingBackend()
    after = CachedBackend(backend, tmp_path, CPU)
    for ids in [*windows, (20, 21), (10, 11, 12, 13)]:
        with suppress(ReconstructionError):
            after.infer(keyframes(*ids))
    # The one that failed is tried again, on top of the one before it; a place apart needs none.
    assert backend.asked == [windows[2], windows[3], (20, 21), (10, 11, 12, 13)]
    again = RecordingBackend()
    goes_on = CachedBackend(again, tmp_path, CPU)
    for ids in (windows[0], windows[4], (10, 11, 14)):
        goes_on.infer(keyframes(*ids))
    assert again.asked == [windows[4], (10, 11, 14)]


def test_a_backend_that_keeps_its_sweeps_goes_on_to_the_bit(tmp_path):
    frames = [scenes.keyframe(k, scenes.look('sideways', k)) for k in range(6)]
    first, second = frames[:4], frames[2:]
    config = ColmapConfig(width_px=96, planes=32)
    plain = ColmapBackend(config, CPU)
    plain.infer(first)
    expected = plain.infer(second)
    CachedBackend(ColmapBackend(config, CPU), tmp_path, CPU).infer(first)
    resumed = CachedBackend(ColmapBackend(config, CPU), tmp_path, CPU)
    resumed.infer(first)
    found = resumed.infer(second)
    for view, wanted in zip(found.views, expected.views, strict=True):
        assert torch.equal(view.mask, wanted.mask)
        assert torch.equal(view.depth_m[view.mask], wanted.depth_m[view.mask])
