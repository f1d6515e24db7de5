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

"""Furnish the sample room: 5 x 4 x 2.5 m, floor at z = 0, one corner at the origin."""
import numpy as np

from mapanything_ros.sample.patches import box, cylinder, moved, Patch, room_shell
from mapanything_ros.sample.textures import (
    abstract,
    Colour,
    framed,
    landscape,
    lettered,
    mottled,
    Painter,
    Rng,
    scattered,
    tiled,
    wood,
)

SIZE_M = (5.0, 4.0, 2.5)

_OAK: Colour = (0.66, 0.49, 0.31)
_PINE: Colour = (0.8, 0.64, 0.43)
_WALNUT: Colour = (0.42, 0.28, 0.19)
_WHITE: Colour = (0.82, 0.81, 0.77)
_VIVID: list[Colour] = [
    (0.75, 0.2, 0.15), (0.16, 0.35, 0.6), (0.85, 0.65, 0.2), (0.2, 0.45, 0.3), (0.85, 0.8, 0.7),
    (0.45, 0.2, 0.4), (0.2, 0.5, 0.55), (0.85, 0.45, 0.2), (0.25, 0.25, 0.3)]
_GREENS: list[Colour] = [(0.25, 0.45, 0.2), (0.4, 0.55, 0.25), (0.15, 0.33, 0.2)]
_TITLES = ('ATLAS', 'Optics', 'GARDEN', 'Il Mare', 'Maps', 'ROBOTS', 'Tales', 'Kitchen', 'PHYSICS',
           'Poems', 'Travel', 'STARS', 'History', 'Algebra', 'BIRDS', 'Rivers')


def furnish(rng: Rng) -> list[Patch]:
    """Return every surface of the furnished room; `rng` chooses books, colours and texts."""
    x, y, _ = SIZE_M
    return [
        *_shell(),
        *moved(_picture(0.9, 0.65, landscape), 3.9, 0.0, 1.35, 180.0),
        *moved(_picture(0.6, 0.8, abstract(_VIVID, 60)), 1.9, 0.0, 1.3, 180.0),
        *moved(_picture(0.7, 0.5, abstract(_VIVID[1:], 50)), 1.5, y, 1.45, 0.0),
        *moved(_picture(0.5, 0.7, landscape), 0.0, 3.35, 1.2, 90.0),
        *moved(_window(), 0.0, 1.9, 0.0, 90.0),
        *moved(_door(), x, 0.65, 0.0, -90.0),
        *moved(_rug(), 2.45, 1.95, 0.0, 4.0),
        *moved(_coffee_table(rng), 2.45, 1.95, 0.006, 4.0),
        *moved(_sofa(), 2.6, 0.48, 0.0, 180.0),
        *moved(_bookshelf(rng, 1.4, 2.0), x - 0.17, 2.5, 0.0, -90.0),
        *moved(_cabinet(rng), 2.9, y - 0.22),
        *moved(_dining_table(rng), 0.62, 3.3, 0.0, 90.0),
        *moved(_chair(_VIVID[6]), 1.22, 3.45, 0.0, -80.0),
        *moved(_chair(_VIVID[0]), 0.55, 2.45, 0.0, 170.0),
        *moved(_radiator(), 0.06, 1.9, 0.0, 90.0),
        *moved(_floor_lamp(), 4.65, 3.65),
        *moved(_plant(rng), 0.4, 0.4),
        *moved(_carton(rng, 0.45, 0.35, 0.32), 0.95, 0.32, 0.0, 15.0),
        *moved(_carton(rng, 0.32, 0.26, 0.22), 0.97, 0.34, 0.32, -12.0),
        *moved(_carton(rng, 0.4, 0.3, 0.38), 4.6, 1.35, 0.0, -70.0),
    ]


def _shell() -> list[Patch]:
    leaves = scattered(mottled((0.78, 0.76, 0.66), 0.1), [*_GREENS, (0.7, 0.5, 0.3)], 75,
                       (0.05, 0.16))
    return room_shell(SIZE_M, {
        'floor': tiled(0.14, 1.1, 0.004, (0.2, 0.14, 0.1), 0.13, wood(_OAK, 0.17)),
        'ceiling': tiled(0.3, 1.8, 0.006, (0.5, 0.48, 0.44), 0.05, wood((0.8, 0.77, 0.7), 0.1)),
        'x0': mottled((0.66, 0.72, 0.7), 0.16),
        'x1': mottled((0.8, 0.7, 0.55), 0.16),
        'y0': tiled(0.075, 0.24, 0.012, (0.68, 0.65, 0.6), 0.16, mottled((0.6, 0.33, 0.24), 0.16)),
        'y1': leaves,
    })


def _picture(width_m: float, height_m: float, motif: Painter) -> list[Patch]:
    """Return a framed picture hanging on a wall at y = 0, seen from -y, from z = 0 upwards."""
    faces = {'front': framed(motif, wood(_WALNUT), 0.035), 'side': wood(_WALNUT)}
    return box((-width_m / 2, -0.025, 0), (width_m / 2, 0, height_m), faces, ('back',))


def _window() -> list[Patch]:
    pane = framed(landscape, wood(_WHITE, 0.08), 0.03)
    frame = wood(_WHITE, 0.08)
    patches = []
    for column in (-1, 0):
        patches += box((column * 0.6, -0.02, 1.0), (column * 0.6 + 0.6, 0, 2.1),
                       {'front': pane, 'side': frame}, ('back',))
    return patches + box((-0.7, -0.16, 0.95), (0.7, 0, 0.985), wood(_PINE), ('back',))


def _door() -> list[Patch]:
    leaf = framed(framed(wood(_PINE, along_v=True), wood(_WALNUT, along_v=True), 0.02),
                  wood(_PINE, along_v=True), 0.13)
    patches = box((-0.45, -0.03, 0), (0.45, 0, 2.0), {'front': leaf, 'side': wood(_PINE)},
                  ('back', 'bottom'))
    return patches + box((0.36, -0.09, 1.0), (0.4, -0.03, 1.04), mottled((0.7, 0.6, 0.3)),
                         ('back',))


def _rug() -> list[Patch]:
    motif = framed(abstract([(0.62, 0.2, 0.17), *_VIVID], 160),
                   scattered(mottled((0.2, 0.24, 0.38)), _VIVID, 300, (0.03, 0.08)), 0.16)
    return box((-1.1, -0.75, 0), (1.1, 0.75, 0.006), motif)


def _table(
    width_m: float, depth_m: float, height_m: float, leg_m: float, colour: Colour,
) -> list[Patch]:
    w, d = width_m / 2, depth_m / 2
    patches = box((-w, -d, height_m - 0.04), (w, d, height_m), wood(colour), ())
    for x in (-w + 0.03, w - 0.03 - leg_m):
        for y in (-d + 0.03, d - 0.03 - leg_m):
            patches += box((x, y, 0), (x + leg_m, y + leg_m, height_m - 0.04),
                           wood(colour, along_v=True), ('bottom', 'top'))
    return patches


def _book(rng: Rng, thick_m: float, depth_m: float, height_m: float) -> list[Patch]:
    """Return a standing book whose spine looks to -y."""
    colour = _VIVID[int(rng.integers(len(_VIVID)))]
    ink = (0.95, 0.9, 0.75) if sum(colour) < 1.7 else (0.15, 0.12, 0.1)
    title = _TITLES[int(rng.integers(len(_TITLES)))]
    cover = mottled(colour, 0.14)
    faces = {'front': lettered(cover, title, ink, along_v=True), 'side': cover,
             'top': wood((0.85, 0.82, 0.74))}
    return box((0, -depth_m / 2, 0), (thick_m, depth_m / 2, height_m), faces)


def _lying_books(rng: Rng, count: int) -> list[Patch]:
    patches: list[Patch] = []
    z = 0.0
    for _ in range(count):
        colour = _VIVID[int(rng.integers(len(_VIVID)))]
        cover = abstract([colour, *_VIVID], 14)
        w, d, h = rng.uniform(0.09, 0.14), rng.uniform(0.07, 0.1), rng.uniform(0.02, 0.04)
        pages = wood((0.85, 0.82, 0.74), 0.25)
        patches += moved(box((-w, -d, 0), (w, d, h), {'top': cover, 'side': pages}),
                         0, 0, z, float(rng.uniform(-25, 25)))
        z += h
    return patches


def _coffee_table(rng: Rng) -> list[Patch]:
    vase = cylinder(0.05, 0.075, 0, 0.2, scattered(mottled(_VIVID[1]), _VIVID, 900, (0.02, 0.06)))
    bowl = cylinder(0.07, 0.13, 0, 0.07, mottled(_VIVID[7], 0.2), 20, mottled(_VIVID[2], 0.25))
    return [
        *_table(1.0, 0.6, 0.42, 0.06, _WALNUT),
        *moved(_lying_books(rng, 4), -0.27, 0.05, 0.42, 20.0),
        *moved(vase, 0.1, 0.12, 0.42),
        *moved(bowl, 0.3, -0.1, 0.42),
    ]


def _dining_table(rng: Rng) -> list[Patch]:
    crate = scattered(mottled(_PINE), _VIVID, 500, (0.02, 0.05))
    jug = cylinder(0.07, 0.05, 0, 0.24, scattered(mottled(_WHITE), _VIVID[:4], 700, (0.02, 0.05)),
                   lid=mottled(_VIVID[1]))
    return [
        *_table(1.15, 0.7, 0.74, 0.06, _PINE),
        *moved(jug, 0.1, -0.12, 0.74),
        *moved(_lying_books(rng, 3), -0.3, 0.0, 0.74, -30.0),
        *moved(box((-0.12, -0.1, 0), (0.12, 0.1, 0.14), crate), 0.38, 0.1, 0.74, 25.0),
    ]


def _chair(colour: Colour) -> list[Patch]:
    """Return a chair that looks to -y."""
    fabric = scattered(mottled(colour, 0.2), [_WHITE, _VIVID[2]], 350, (0.02, 0.05))
    patches = box((-0.21, -0.21, 0.42), (0.21, 0.21, 0.47), fabric, ())
    for x in (-0.2, 0.16):
        patches += box((x, -0.2, 0), (x + 0.04, -0.16, 0.42), wood(_OAK), ('bottom', 'top'))
        patches += box((x, 0.17, 0), (x + 0.04, 0.21, 0.92), wood(_OAK), ())
    return patches + box((-0.16, 0.175, 0.6), (0.16, 0.205, 0.9), fabric, ())


def _sofa() -> list[Patch]:
    """Return a sofa of 1.9 m with its back at y = 0.45, which looks to -y."""
    fabric = scattered(mottled((0.3, 0.42, 0.5), 0.22), [(0.55, 0.62, 0.66), (0.2, 0.28, 0.36)],
                       220, (0.03, 0.08))
    cushion = scattered(mottled((0.78, 0.6, 0.25), 0.2), _VIVID, 260, (0.03, 0.09))
    patches = box((-0.95, -0.42, 0), (0.95, 0.45, 0.22), fabric)
    patches += box((-0.95, 0.25, 0.22), (0.95, 0.45, 0.82), fabric)
    for x in (-0.95, 0.77):
        patches += box((x, -0.42, 0.22), (x + 0.18, 0.25, 0.58), fabric)
    for x in (-0.76, 0.01):
        patches += box((x, -0.44, 0.22), (x + 0.75, 0.245, 0.43), fabric, ())
    for x, yaw in ((-0.52, 8.0), (0.5, -12.0)):
        patches += moved(box((-0.2, -0.06, 0), (0.2, 0.06, 0.38), cushion), x, 0.12, 0.43, yaw)
    return patches


def _bookshelf(rng: Rng, width_m: float, height_m: float) -> list[Patch]:
    """Return an open shelf full of books, 0.3 m deep, seen from -y."""
    w, depth, board = width_m / 2, 0.3, 0.025
    shell = wood(_OAK)
    patches = box((-w, 0.13, 0), (w, 0.15, height_m), shell)
    for x in (-w, w - board):
        patches += box((x, -0.15, 0), (x + board, 0.13, height_m), wood(_OAK, along_v=True))
    levels = np.linspace(0.06, height_m - board, 6)
    for level, z in enumerate(levels):
        patches += box((-w + board, -0.15, z), (w - board, 0.13, z + board), shell, ())
        if level == len(levels) - 1:
            break
        room_m = levels[level + 1] - z - board
        x = -w + board + 0.01
        while x < w - board - 0.07:
            thick = float(rng.uniform(0.02, 0.06))
            if rng.random() < 0.06:
                x += float(rng.uniform(0.05, 0.12))
                continue
            book = _book(rng, thick, depth - rng.uniform(0.06, 0.14),
                         room_m * rng.uniform(0.62, 0.93))
            patches += moved(book, x, rng.uniform(-0.02, 0.03), z + board)
            x += thick + 0.002
    return patches


def _cabinet(rng: Rng) -> list[Patch]:
    """Return a low cabinet with four doors, a radio and books on it, seen from -y."""
    door = framed(wood(_PINE, 0.24, along_v=True), wood(_WALNUT), 0.02)
    patches = box((-0.8, -0.2, 0.05), (0.8, 0.22, 0.75), wood(_WALNUT), ())
    for i in range(4):
        patches += box((-0.78 + 0.39 * i, -0.22, 0.08), (-0.41 + 0.39 * i, -0.2, 0.72),
                       {'front': door, 'side': wood(_PINE)}, ('back',))
    grille = scattered(mottled((0.5, 0.42, 0.3), 0.2), [(0.2, 0.15, 0.1)], 3000, (0.006, 0.02))
    radio = box((-0.2, -0.09, 0), (0.2, 0.09, 0.24),
                {'front': framed(grille, wood(_OAK), 0.03), 'side': wood(_OAK)})
    glaze = scattered(mottled(_VIVID[1]), _GREENS, 400, (0.03, 0.09))
    urn = cylinder(0.08, 0.12, 0.0, 0.1, glaze)
    urn += cylinder(0.12, 0.07, 0.1, 0.22, glaze, lid=mottled(_WHITE))
    return [*patches, *moved(radio, -0.45, 0.0, 0.75, 6.0), *moved(urn, 0.1, 0.02, 0.75),
            *moved(_lying_books(rng, 3), 0.5, 0.0, 0.75)]


def _radiator() -> list[Patch]:
    """Return a column radiator under the window, seen from -y."""
    patches: list[Patch] = []
    for i in range(10):
        x = -0.5 + 0.1 * i
        patches += box((x, -0.07, 0.12), (x + 0.08, 0.03, 0.75), mottled(_WHITE, 0.13), ())
    return patches


def _floor_lamp() -> list[Patch]:
    metal = mottled((0.32, 0.3, 0.28), 0.2)
    shade = scattered(mottled((0.93, 0.83, 0.6), 0.1), [(0.75, 0.5, 0.25)], 180, (0.03, 0.1))
    return [*cylinder(0.16, 0.16, 0, 0.03, metal, 20, metal),
            *cylinder(0.018, 0.018, 0.03, 1.35, metal, 8),
            *cylinder(0.24, 0.14, 1.3, 1.65, shade, 20, shade)]


def _plant(rng: Rng) -> list[Patch]:
    """Return a pot with a bush of tilted leafy boxes."""
    foliage = scattered(mottled((0.2, 0.34, 0.16), 0.25), _GREENS, 900, (0.03, 0.09))
    patches = cylinder(0.13, 0.18, 0, 0.36, mottled((0.66, 0.38, 0.26), 0.2), 18,
                       mottled((0.2, 0.15, 0.1), 0.3))
    patches += cylinder(0.03, 0.025, 0.36, 0.7, wood(_WALNUT), 8)
    for level in range(4):
        radius = (0.17, 0.26, 0.24, 0.14)[level]
        z = 0.6 + 0.19 * level
        patches += moved(cylinder(radius * 0.75, radius, 0, 0.1, foliage, 14), 0, 0, z)
        patches += moved(cylinder(radius, radius * 0.6, 0.1, 0.2, foliage, 14, foliage), 0, 0, z,
                         float(rng.uniform(0, 25)))
    return patches


def _carton(rng: Rng, width_m: float, depth_m: float, height_m: float) -> list[Patch]:
    card = mottled((0.68, 0.52, 0.35), 0.14)
    text = ('FRAGILE', 'BOOKS 2', 'KITCHEN', 'THIS SIDE UP')[int(rng.integers(4))]
    label = lettered(card, text, (0.25, 0.12, 0.1))
    w, d = width_m / 2, depth_m / 2
    tape = framed(card, mottled((0.78, 0.66, 0.45), 0.1), 0.03)
    return box((-w, -d, 0), (w, d, height_m), {'side': label, 'top': tape})
