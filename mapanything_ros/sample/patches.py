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

"""Describe surfaces as flat painted patches: boxes, cylinders and their placement."""
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mapanything_ros.sample.textures import Painter, Rng, TEXEL_M

_SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True)
class Patch:
    """
    A convex flat surface with a texture.

    The point at (s, t) is ``origin + s * edge_u + t * edge_v``, metres; `outline` is the convex
    polygon of (s, t) that exists. Seen from its front, `edge_u` points right and `edge_v` down.
    """

    origin: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    paint: Painter
    outline: tuple[tuple[float, float], ...] = _SQUARE

    @property
    def normal(self) -> np.ndarray:
        """Return the unit vector (3,) that points to the visible side."""
        normal = np.cross(self.edge_v, self.edge_u)
        return normal / np.linalg.norm(normal)

    def points(self, st: np.ndarray) -> np.ndarray:
        """Return where the parameters `st` (N, 2) are, as (N, 3)."""
        return self.origin + st[:, :1] * self.edge_u + st[:, 1:] * self.edge_v


def _patch(origin, edge_u, edge_v, paint: Painter, outline=_SQUARE) -> Patch:
    return Patch(np.asarray(origin, float), np.asarray(edge_u, float),
                 np.asarray(edge_v, float), paint, outline)


def moved(
    patches: list[Patch], x_m: float, y_m: float, z_m: float = 0.0, yaw_deg: float = 0.0,
) -> list[Patch]:
    """Return the patches turned about z by `yaw_deg` and then shifted."""
    c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    shift = np.array([x_m, y_m, z_m])
    return [replace(p, origin=turn @ p.origin + shift, edge_u=turn @ p.edge_u,
                    edge_v=turn @ p.edge_v) for p in patches]


def box(
    low: tuple[float, float, float], high: tuple[float, float, float],
    paint: Painter | Mapping[str, Painter], omit: tuple[str, ...] = ('bottom',),
) -> list[Patch]:
    """
    Return the faces of an axis-aligned box, seen from outside, without those in `omit`.

    The faces are 'front' (-y), 'back' (+y), 'left' (-x), 'right' (+x), 'top' and 'bottom'. `paint`
    is one painter for all or a mapping from faces to painters with 'side' for those it lacks.
    """
    (x0, y0, z0), (x1, y1, z1) = low, high
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    faces = {
        'front': ((x0, y0, z1), (dx, 0, 0), (0, 0, -dz)),
        'back': ((x1, y1, z1), (-dx, 0, 0), (0, 0, -dz)),
        'left': ((x0, y1, z1), (0, -dy, 0), (0, 0, -dz)),
        'right': ((x1, y0, z1), (0, dy, 0), (0, 0, -dz)),
        'top': ((x0, y1, z1), (dx, 0, 0), (0, -dy, 0)),
        'bottom': ((x0, y0, z0), (dx, 0, 0), (0, dy, 0)),
    }
    paints = paint if isinstance(paint, Mapping) else {'side': paint}
    return [_patch(*corner, paints.get(name, paints['side']))
            for name, corner in faces.items() if name not in omit]


def room_shell(
    size: tuple[float, float, float], paints: Mapping[str, Painter],
) -> list[Patch]:
    """
    Return floor, ceiling and walls, seen from inside, of a room from the origin to `size`.

    `paints` is keyed by 'floor', 'ceiling', and the walls 'x0', 'x1', 'y0', 'y1'.
    """
    x, y, z = size
    down = (0, 0, -z)
    return [
        _patch((0, y, 0), (x, 0, 0), (0, -y, 0), paints['floor']),
        _patch((0, 0, z), (x, 0, 0), (0, y, 0), paints['ceiling']),
        _patch((0, 0, z), (0, y, 0), down, paints['x0']),
        _patch((x, y, z), (0, -y, 0), down, paints['x1']),
        _patch((x, 0, z), (-x, 0, 0), down, paints['y0']),
        _patch((0, y, z), (x, 0, 0), down, paints['y1']),
    ]


class _Sleeve:
    """One continuous texture of which each segment of a cylinder takes a vertical strip."""

    def __init__(self, paint: Painter, segments: int) -> None:
        self._paint = paint
        self._segments = segments
        self._picture: np.ndarray | None = None

    def strip(self, index: int) -> Painter:
        def paint(rng: Rng, height: int, width: int) -> np.ndarray:
            if self._picture is None:
                self._picture = self._paint(rng, height, width * self._segments)
            return self._picture[:, index * width:(index + 1) * width]
        return paint


def cylinder(
    radius_low_m: float, radius_high_m: float, z_low_m: float, z_high_m: float, paint: Painter,
    segments: int = 16, lid: Painter | None = None,
) -> list[Patch]:
    """Return an upright (truncated) cone about the z axis; `lid` paints its top, if any."""
    widest = max(radius_low_m, radius_high_m)
    angles = 2 * np.pi * np.arange(segments + 1) / segments
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    z_low, z_high = np.array([0, 0, z_low_m]), np.array([0, 0, z_high_m])
    sleeve = _Sleeve(paint, segments)
    patches = []
    for i in range(segments):
        middle = (ring[i] + ring[i + 1]) / 2
        along = widest * (ring[i + 1] - ring[i])
        top, bottom = z_high + radius_high_m * middle, z_low + radius_low_m * middle
        high, low = radius_high_m / widest / 2, radius_low_m / widest / 2
        outline = ((.5 - high, 0.), (.5 + high, 0.), (.5 + low, 1.), (.5 - low, 1.))
        patches.append(Patch(top - along / 2, along, bottom - top, sleeve.strip(i), outline))
    if lid is not None:
        disc = tuple((0.5 + 0.5 * c, 0.5 - 0.5 * s) for c, s, _ in ring[:-1])
        size = 2 * radius_high_m
        patches.append(_patch((-radius_high_m, radius_high_m, z_high_m),
                              (size, 0, 0), (0, -size, 0), lid, disc))
    return patches


def size_px(patch: Patch) -> tuple[int, int]:
    """Return the (height, width) in texels of the patch's texture."""
    return (max(2, round(float(np.linalg.norm(patch.edge_v)) / TEXEL_M)),
            max(2, round(float(np.linalg.norm(patch.edge_u)) / TEXEL_M)))
