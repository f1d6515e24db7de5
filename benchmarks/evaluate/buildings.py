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
Rendered buildings: a corridor that closes a ring, and two rooms with a door between them.

They are painted and lit at a scale of 1 to 4: the paint's finest detail, made for a room seen at
640x480, then suits pictures of 160x120, and a building takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.evaluate.walks import walk
from mapanything_ros.core.datatypes import Array
from mapanything_ros.sample.baking import Light
from mapanything_ros.sample.patches import box, moved, Patch, room_shell
from mapanything_ros.sample.room import PaintedScene, RenderedView
from mapanything_ros.sample.textures import (
    abstract,
    Colour,
    framed,
    landscape,
    lettered,
    mottled,
    Painter,
    scattered,
    tiled,
    wood,
)

SCALE = 4.0
HEIGHT_M = 2.5
WALK_M = 61.0
VIVID: list[Colour] = [
    (0.75, 0.2, 0.15), (0.16, 0.35, 0.6), (0.85, 0.65, 0.2), (0.2, 0.45, 0.3), (0.85, 0.8, 0.7),
    (0.45, 0.2, 0.4), (0.2, 0.5, 0.55), (0.85, 0.45, 0.2)]
OAK: Colour = (0.66, 0.49, 0.31)
WALNUT: Colour = (0.42, 0.28, 0.19)
# The corridor's outer walls, its width, and the rooms, their door and the wall between them.
OUTER_M = (17.5, 13.4)
WIDTH_M = 2.0
ROOM_M = (7.0, 6.0)
DOOR_M = (2.5, 3.5, 2.1)
WALL_M = 0.2


@dataclass(frozen=True, eq=False)
class Building:
    """A rendered scene in metres, and a walk ``world_from_camera`` (N,4,4) through it."""

    scene: PaintedScene
    world_from_camera: Array

    def render(self, index: int, intrinsics: Array, width: int, height: int) -> RenderedView:
        """Return the picture and the exact depth, metres, of a place on the walk."""
        pose = self.world_from_camera[index].copy()
        pose[:3, 3] /= SCALE
        view = self.scene.render(pose, intrinsics, width, height)
        return RenderedView(view.rgb, view.depth_m * np.float32(SCALE))

    def distance(self, points: Array) -> Array:
        """Return the (N,) distances of (N,3) points to the true surface."""
        return self.scene.distance(points / SCALE).astype(float) * SCALE


def corridor(seed: int = 0) -> Building:
    """Return a corridor around a block: one lap, and the beginning once more."""
    outer_x, outer_y = OUTER_M
    inner = box(
        (WIDTH_M, WIDTH_M, 0), (outer_x - WIDTH_M, outer_y - WIDTH_M, HEIGHT_M),
        {'front': _bricks(VIVID[0]), 'back': _plaster(VIVID[4]), 'left': _speckled(VIVID[3]),
         'right': _plaster(VIVID[6]), 'side': _plaster(OAK)}, ('top', 'bottom'))
    shell = room_shell((outer_x, outer_y, HEIGHT_M), {
        'floor': _planks(), 'ceiling': _ceiling(), 'x0': _plaster(VIVID[2]),
        'x1': _bricks(OAK), 'y0': _speckled(VIVID[4]), 'y1': _plaster((0.6, 0.7, 0.6))})
    rng = np.random.default_rng(seed)
    things = [*_along(rng, outer_x, 0.0, 0.0, 0.0, 180.0),
              *_along(rng, outer_x, 0.0, outer_y, 0.0, 0.0, mirror=True),
              *_along(rng, outer_y, 0.0, 0.0, 90.0, 90.0),
              *_along(rng, outer_y, outer_x, 0.0, 90.0, -90.0, mirror=True)]
    middle = WIDTH_M / 2
    lap = [(middle, middle), (outer_x - middle, middle), (outer_x - middle, outer_y - middle),
           (middle, outer_y - middle)]
    lamps = [(x, y) for x in np.arange(1.0, outer_x, 2.5) for y in (middle, outer_y - middle)]
    lamps += [(x, y) for y in np.arange(3.5, outer_y - 2, 2.5) for x in (middle, outer_x - middle)]
    path = walk([(4.0, middle), *lap[1:], *lap, lap[2]], WALK_M)
    return Building(_lit([*shell, *inner, *things], lamps, seed), path)


def two_rooms(seed: int = 0) -> Building:
    """Return two rooms: a lap of the first, through the door, a lap of the other, and back."""
    x, y = ROOM_M
    low, high, lintel = DOOR_M
    first = room_shell((x, y, HEIGHT_M), {
        'floor': _planks(), 'ceiling': _ceiling(), 'x0': _bricks(VIVID[0]),
        'x1': _plaster(VIVID[2]), 'y0': _plaster(VIVID[4]), 'y1': _speckled(VIVID[3])})
    other = room_shell((x, y, HEIGHT_M), {
        'floor': tiled(0.3, 0.3, 0.02, (0.3, 0.3, 0.3), 0.2, mottled((0.6, 0.6, 0.55))),
        'ceiling': _ceiling(), 'x0': _plaster(VIVID[6]), 'x1': _speckled(VIVID[1]),
        'y0': _bricks(OAK), 'y1': _plaster(VIVID[7])})
    # The walls with the door in them make way for three blocks and a sill.
    faces = {'left': _plaster(VIVID[2]), 'right': _plaster(VIVID[6]), 'side': wood(OAK)}
    between = [
        *box((0, 0, 0), (WALL_M, low, HEIGHT_M), faces),
        *box((0, high, 0), (WALL_M, y, HEIGHT_M), faces),
        *box((0, low, lintel), (WALL_M, high, HEIGHT_M), faces, ()),
        *box((0, low, -0.02), (WALL_M, high, 0), wood(WALNUT))]
    rng = np.random.default_rng(seed)
    inside = []
    for corner_x in (0.0, x + WALL_M):
        things = [*_along(rng, x, 0.0, 0.0, 0.0, 180.0), *_along(rng, x, 0.0, y, 0.0, 0.0, True)]
        middle = moved(_block(rng, 1.4, 0.9, 0.8), x / 2, y / 2, 0.0, 12.0)
        inside += moved([*things, *middle], corner_x, 0.0)
    patches = [*first[:3], *first[4:], *moved([*other[:2], *other[3:]], x + WALL_M, 0.0),
               *moved(between, x, 0.0), *inside]
    gate, far = (low + high) / 2, 2 * x + WALL_M
    corners = [(1.2, 1.2), (x - 1.2, 1.2), (x - 1.2, y - 1.2), (1.2, y - 1.2)]
    round_trip = [
        (x - 1.2, gate), (x + 1.4, gate), (x + 1.4, 1.2), (far - 1.2, 1.2), (far - 1.2, y - 1.2),
        (x + 1.4, y - 1.2), (x + 1.4, gate), (x - 1.2, gate)]
    path = walk([(2.0, 1.2), *corners[1:], *corners[:2], *round_trip, *corners[2:], *corners,
                 corners[0]], WALK_M)
    lamps = [(corner_x + u * x, v * y) for corner_x in (0.0, x + WALL_M)
             for u in (0.25, 0.75) for v in (0.25, 0.75)]
    return Building(_lit(patches, lamps, seed), path)


def _lit(patches: list[Patch], lamps: Sequence[tuple[float, float]], seed: int) -> PaintedScene:
    points = np.array([(x, y, HEIGHT_M - 0.3) for x, y in lamps]) / SCALE
    small = [replace(p, origin=p.origin / SCALE, edge_u=p.edge_u / SCALE, edge_v=p.edge_v / SCALE)
             for p in patches]
    # Each lamp lights its surroundings alone, whatever the number of others.
    return PaintedScene(small, [Light(points, 0.14 * len(points))], seed)


def _along(
    rng: np.random.Generator, length_m: float, x_m: float, y_m: float, way_deg: float,
    facing_deg: float, mirror: bool = False,
) -> list[Patch]:
    """Return pictures, doors and cabinets along a wall from (x, y) in a direction."""
    patches: list[Patch] = []
    way = np.array([np.cos(np.radians(way_deg)), np.sin(np.radians(way_deg))])
    places = np.arange(1.6, length_m - 1.2, 1.7)
    for place in places + rng.uniform(-0.3, 0.3, len(places)):
        kind = rng.random()
        if kind < 0.4:
            motif = landscape if rng.random() < 0.3 else abstract(
                [VIVID[i] for i in rng.permutation(len(VIVID))], int(rng.integers(15, 50)))
            thing = moved(_panel(rng.uniform(0.7, 1.3), rng.uniform(0.5, 1.0), 0.03, motif),
                          0, 0, rng.uniform(0.9, 1.3))
        elif kind < 0.6:
            leaf = framed(wood(OAK, along_v=True), wood(WALNUT, along_v=True), 0.02)
            thing = _panel(0.9, 2.0, 0.04, leaf)
        else:
            thing = moved(_block(rng, rng.uniform(0.4, 0.9), 0.3, rng.uniform(0.5, 1.6)), 0, -0.16)
        spot = np.array([x_m, y_m]) + place * way
        patches += moved(thing, float(spot[0]), float(spot[1]), 0.0, facing_deg)
    return patches


def _panel(width_m: float, height_m: float, depth_m: float, motif: Painter) -> list[Patch]:
    """Return a picture or a door on a wall at y = 0, seen from -y, from z = 0 upwards."""
    return box((-width_m / 2, -depth_m, 0), (width_m / 2, 0, height_m),
               {'front': framed(motif, wood(WALNUT), 0.01), 'side': wood(WALNUT)}, ('back',))


def _block(
    rng: np.random.Generator, width_m: float, depth_m: float, height_m: float,
) -> list[Patch]:
    """Return a cabinet or carton with its centre at the origin."""
    colour = VIVID[int(rng.integers(len(VIVID)))]
    word = ''.join(chr(65 + int(rng.integers(26))) for _ in range(4))
    faces = {'front': lettered(mottled(colour), word, (0.95, 0.9, 0.8)),
             'side': scattered(mottled(colour, 0.2), VIVID, 300, (0.02, 0.08))}
    return box((-width_m / 2, -depth_m / 2, 0), (width_m / 2, depth_m / 2, height_m), faces)


def _plaster(colour: Colour) -> Painter:
    return mottled(colour, 0.22)


def _speckled(colour: Colour) -> Painter:
    return scattered(mottled(colour, 0.15), VIVID, 120, (0.02, 0.08))


def _bricks(colour: Colour) -> Painter:
    return tiled(0.05, 0.16, 0.008, (0.68, 0.65, 0.6), 0.2, mottled(colour, 0.18))


def _planks() -> Painter:
    return tiled(0.05, 0.4, 0.004, (0.2, 0.14, 0.1), 0.16, wood(OAK, 0.2))


def _ceiling() -> Painter:
    return tiled(0.15, 0.15, 0.006, (0.5, 0.48, 0.44), 0.08, mottled((0.8, 0.78, 0.72), 0.12))
