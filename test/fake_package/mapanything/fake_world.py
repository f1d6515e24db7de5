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

"""What the fake network can see, and how it errs; tests fill this in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
PATCH_PX = 14
# Mean difference of normalised patches: from resizing and JPEG, and between two views.
SAME = 0.06

# Distances along unit rays (H,W,3) from a point (3,), inf where nothing is hit.
Cast = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Sight:
    """A picture (H,W,3) uint8 with the camera that took it, and the scene around."""

    rgb: np.ndarray
    intrinsics: np.ndarray
    world_from_camera: np.ndarray
    cast: Cast

    def intrinsics_at(self, size: tuple[int, int], calibrated: bool) -> np.ndarray:
        """Return the intrinsics (3,3) after the package's resize and crop to (width, height)."""
        scaled, offset = _fit(self.rgb, size, calibrated)
        found = self.intrinsics.copy()
        for axis in range(2):
            factor = scaled[axis] / self.rgb.shape[1 - axis]
            found[axis, axis] *= factor
            found[axis, 2] = (found[axis, 2] + 0.5) * factor - 0.5 - offset[axis]
        return found

    def patches_at(self, size: tuple[int, int], calibrated: bool) -> np.ndarray:
        """Return the mean normalised colour of each patch (3,h,w) after resize and crop."""
        scaled, (left, top) = _fit(self.rgb, size, calibrated)
        shrinks = scaled[0] < self.rgb.shape[1]
        picture = cv2.resize(
            self.rgb, scaled, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        picture = picture[top:top + size[1], left:left + size[0]] / 255
        tiles = ((picture - MEAN) / STD).reshape(
            size[1] // PATCH_PX, PATCH_PX, size[0] // PATCH_PX, PATCH_PX, 3)
        return tiles.mean(axis=(1, 3)).transpose(2, 0, 1)


def _fit(
    rgb: np.ndarray, size: tuple[int, int], calibrated: bool,
) -> tuple[tuple[int, int], tuple[int, int]]:
    original = rgb.shape[1::-1]
    factor = max(size[0] / original[0], size[1] / original[1]) + 1e-8
    scaled = tuple(int(np.floor(length * factor)) for length in original)
    margins = [scaled[axis] - size[axis] for axis in range(2)]
    offset = tuple(int(np.round(m / 2)) if calibrated else m // 2 for m in margins)
    return scaled, offset


@dataclass
class World:
    """
    Sights, and settable faults.

    ``scale_error`` multiplies a world whose scale no input gives; ``noise`` is relative, of
    depth; ``ambiguous`` is a share of pixels; ``first_pose`` (4,4) is put in front of all poses;
    ``memory_px`` is how many pixels fit at once, ``batched_memory_px`` in batches of one view.
    ``encoded``, ``rays_encoded`` and ``depths_encoded`` count views; ``head_batches`` has the
    views of each run of the dense head.
    """

    sights: list[Sight] = field(default_factory=list)
    scale_error: float = 1.0
    noise: float = 0.0
    ambiguous: float = 0.0
    first_pose: np.ndarray = field(default_factory=lambda: np.eye(4))
    memory_px: float = float('inf')
    batched_memory_px: float = float('inf')
    window_px: int = 0
    encoded: int = 0
    rays_encoded: int = 0
    depths_encoded: int = 0
    head_batches: list[int] = field(default_factory=list)

    def add(
        self, rgb: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray, cast: Cast,
    ) -> None:
        self.sights.append(Sight(rgb, intrinsics, world_from_camera, cast))

    def reset(self) -> None:
        """Forget all sights and faults."""
        self.__dict__.update(World().__dict__)

    def recognise(self, patches: np.ndarray, calibrated: bool) -> Sight:
        """Return the sight that patches (3,h,w) show; raise LookupError where none is alike."""
        size = patches.shape[2] * PATCH_PX, patches.shape[1] * PATCH_PX
        errors = [
            float(np.abs(sight.patches_at(size, calibrated) - patches).mean())
            for sight in self.sights]
        best = int(np.argmin(errors)) if errors else -1
        if not errors or errors[best] > SAME:
            raise LookupError(
                f'none of {len(errors)} sights is what the network sees (error '
                f'{min(errors, default=np.inf):.3f})')
        alike = [
            sight for sight, error in zip(self.sights, errors, strict=True)
            if error < 1.2 * errors[best] and not np.allclose(
                sight.world_from_camera, self.sights[best].world_from_camera)]
        if alike:
            raise LookupError(f'{1 + len(alike)} sights look alike to the network')
        return self.sights[best]


WORLD = World()
