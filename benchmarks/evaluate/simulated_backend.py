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

"""A backend that knows the truth and errs in the ways, and by the amounts, that it is told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
import torch

from benchmarks.evaluate.worlds import World
from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.datatypes import Array, Keyframe, Prediction, Scale, WindowPrediction

# Its pictures are half as large: it sees every second pixel of every second row.
STRIDE = 2
FAR_M = 10.0
HOLES = 0.02
# Relative difference of neighbouring depths that makes an edge.
EDGE = 0.1
# What an outlier does to a window: 0 mirrors it, other numbers stretch it.
OUTLIERS = (0.0, 3.0, 1 / 3)
GARBAGE_DEG = 60.0
GARBAGE_M = 1.0
LATTICE = (4, 5)
MIRROR: Array = np.diag([-1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Faults:
    """
    What a simulated backend gets wrong; without arguments nothing.

    ``scale`` deviation of the logarithm of a window's scale, each anew, and ``scale_drift`` that
    of its random walk from one keyframe to the next; ``rotation_deg`` and ``translation`` (a share
    of the window's rms extent) deviation of each view's pose; ``depth_noise`` relative, each pixel
    anew, ``depth_bias``, smooth over the image and the same whenever the keyframe is seen, and
    ``window_bias``, as smooth and new in each window; ``outlier_windows`` share of windows that
    are mirrored or 3 times too large or small; ``garbage_views`` share of views whose pose means
    nothing.
    """

    scale: float = 0.0
    scale_drift: float = 0.0
    rotation_deg: float = 0.0
    translation: float = 0.0
    depth_noise: float = 0.0
    depth_bias: float = 0.0
    window_bias: float = 0.0
    outlier_windows: float = 0.0
    garbage_views: float = 0.0


class _Draw(IntEnum):
    """What a random number is for, so that each has a stream of its own."""

    WINDOW = 1
    VIEW = 2
    BIAS = 3
    DRIFT = 4
    WINDOW_BIAS = 5


class SimulatedBackend(Backend):
    """
    Sees a world exactly but for its faults, at 1/2 of the images' size.

    Which faults a window has depends on the seed and its keyframes' ids alone. Strict: a
    keyframe that is not an image of this world, or a window out of order, raises ValueError.
    ``truth`` maps the ids that it has seen to indices in the world.
    """

    name = 'simulated'

    def __init__(self, world: World, faults: Faults, seed: int) -> None:
        self._world = world
        self._faults = faults
        self._seed = seed
        self._index = {int(stamp): index for index, stamp in enumerate(world.stamps_ns)}
        self._intrinsics = world.intrinsics.copy()
        # Pixel (u, v) of the half-sized picture is pixel (2u, 2v): its centre stays a centre.
        self._intrinsics[:2] /= STRIDE
        self._counts: Counter[str] = Counter()
        self.truth: dict[int, int] = {}

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        """Reconstruct a window, in the camera frame of its first view."""
        self._check(keyframes)
        ids = [keyframe.id for keyframe in keyframes]
        rng = np.random.default_rng([self._seed, _Draw.WINDOW, *ids])
        walk = np.random.default_rng([self._seed, _Draw.DRIFT]).standard_normal(ids[0]).sum()
        factor = float(np.exp(
            self._faults.scale * rng.standard_normal() + self._faults.scale_drift * walk))
        mirror = False
        if rng.random() < self._faults.outlier_windows:
            stretch = OUTLIERS[int(rng.integers(len(OUTLIERS)))]
            mirror, factor = stretch == 0, factor * (stretch or 1)
            self._counts['outliers'] += 1
        self._counts['windows'] += 1
        true = self._world.world_from_camera[[self._index[k.stamp_ns] for k in keyframes]]
        extent_m = float(np.sqrt(true[:, :3, 3].var(axis=0).sum()))
        draws = [np.random.default_rng([self._seed, _Draw.VIEW, number, *ids]) for number in ids]
        garbage = [draw.random() < self._faults.garbage_views for draw in draws]
        self._counts['garbage_views'] += sum(garbage)
        poses = np.stack([
            self._pose(pose, extent_m, bad, draw)
            for pose, bad, draw in zip(true, garbage, draws, strict=True)])
        poses = np.linalg.inv(poses[0]) @ poses
        poses[:, :3, 3] *= factor
        if mirror:
            poses = MIRROR @ poses @ MIRROR
        views = tuple(
            self._view(keyframe, pose, factor, bad, draw, ids)
            for keyframe, pose, bad, draw in zip(keyframes, poses, garbage, draws, strict=True))
        return WindowPrediction(views, Scale('model'))

    def statistics(self) -> dict[str, object]:
        """Return how many windows it made, and of them the outliers."""
        return dict(self._counts)

    def true_depth_m(self, keyframe_id: int) -> NDArray[np.float32]:
        """Return the true depth (h,w) of a keyframe that it has seen, at its own size."""
        return self._world.views[self.truth[keyframe_id]].depth_m[::STRIDE, ::STRIDE]

    def _check(self, keyframes: Sequence[Keyframe]) -> None:
        ids = [keyframe.id for keyframe in keyframes]
        if not ids or ids != sorted(set(ids)):
            raise ValueError(f'a window has keyframes by rising id, got {ids}')
        for keyframe in keyframes:
            index = self._index.get(keyframe.stamp_ns)
            if index is None or keyframe.rgb is not self._world.views[index].rgb:
                raise ValueError(f'keyframe {keyframe.id} is no image of {self._world.name}')
            if self.truth.setdefault(keyframe.id, index) != index:
                raise ValueError(f'keyframe {keyframe.id} was another image before')

    def _pose(self, pose: Array, extent_m: float, bad: bool, draw: np.random.Generator) -> Array:
        """Return a view's pose with its noise."""
        turn, shift = draw.standard_normal(3), draw.standard_normal(3)
        turn_deg, shift_m = self._faults.rotation_deg, self._faults.translation * extent_m
        if bad:
            turn_deg, shift_m = GARBAGE_DEG, GARBAGE_M
        noisy = pose.copy()
        noisy[:3, :3] @= Rotation.from_rotvec(turn_deg * turn, degrees=True).as_matrix()
        noisy[:3, 3] += shift_m * shift
        return noisy

    def _view(
        self, keyframe: Keyframe, pose: Array, factor: float, bad: bool, draw: np.random.Generator,
        window: Sequence[int],
    ) -> Prediction:
        true_m = self.true_depth_m(keyframe.id)
        error = self._faults.depth_noise * draw.standard_normal(true_m.shape)
        for share, what in (
                (self._faults.depth_bias, (_Draw.BIAS, keyframe.id)),
                (self._faults.window_bias, (_Draw.WINDOW_BIAS, keyframe.id, *window))):
            if share:
                error += share * self._bias(what, true_m.shape)
        size = self._faults.depth_noise + self._faults.depth_bias + self._faults.window_bias
        # It has an idea of its errors, no more.
        confidence = draw.uniform(0.5, 1.0, true_m.shape) / (1 + np.abs(error) / max(size, 1e-9))
        mask = (true_m > 0) & (true_m <= FAR_M) & ~_edges(true_m)
        mask &= draw.random(true_m.shape) >= HOLES
        return Prediction(
            keyframe_id=keyframe.id,
            rgb=torch.from_numpy(np.ascontiguousarray(keyframe.rgb[::STRIDE, ::STRIDE])),
            depth_m=torch.from_numpy((factor * true_m * (1 + error)).astype(np.float32)),
            confidence=torch.from_numpy((confidence * (0.5 if bad else 1.0)).astype(np.float32)),
            mask=torch.from_numpy(mask),
            intrinsics=self._intrinsics.copy(),
            world_from_camera=pose)

    def _bias(self, what: Sequence[int], shape: tuple[int, ...]) -> Array:
        """Return a smooth error (h,w) of about unit deviation, its own for each ``what``."""
        lattice = np.random.default_rng([self._seed, *what]).standard_normal(LATTICE)
        return cv2.resize(lattice, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _edges(depth_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say where the depths in a pixel's 3x3 neighbourhood differ by more than 10 %."""
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(depth_m, kernel) - cv2.erode(depth_m, kernel) > EDGE * depth_m
