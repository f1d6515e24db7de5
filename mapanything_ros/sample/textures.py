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
Paint procedural textures for the rendered sample room.

Every painter is called as ``paint(rng, height_px, width_px)`` and returns an albedo (H, W, 3)
float32, RGB in about [0, 1], one texel per ``TEXEL_M`` metres, u to the right and v down. Painters
are never periodic: stereo matching on the rendered pictures must find one place only.
"""
from collections.abc import Callable

import cv2
import numpy as np

TEXEL_M = 0.0025

Rng = np.random.Generator
Painter = Callable[[Rng, int, int], np.ndarray]
Colour = tuple[float, float, float]


def value_noise(
    rng: Rng, height: int, width: int, wave_u_m: float, wave_v_m: float | None = None,
    channels: int = 1,
) -> np.ndarray:
    """
    Return smooth noise (H, W) or (H, W, C) float32 of zero mean and a deviation of about 0.7.

    `wave_u_m` and `wave_v_m` (default: the same) are the lattice's spacings in metres.
    """
    step_u = wave_u_m / TEXEL_M
    step_v = (wave_v_m or wave_u_m) / TEXEL_M
    shape = (int(height / step_v) + 4, int(width / step_u) + 4, channels)
    lattice = rng.standard_normal(shape, dtype=np.float32)
    phase_u, phase_v = rng.random(2)
    matrix = np.array([[1 / step_u, 0, 1 + phase_u], [0, 1 / step_v, 1 + phase_v]])
    return cv2.warpAffine(
        lattice, matrix, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)


def octaves(
    rng: Rng, height: int, width: int, longest_m: float = 0.64, shortest_m: float = 0.01,
    stretch: float = 1.0,
) -> np.ndarray:
    """
    Return (H, W) float32 noise of unit deviation with equal power in every octave.

    `stretch` lengthens all wavelengths along u, which makes wood grain of it.
    """
    count = max(1, round(np.log2(longest_m / shortest_m)) + 1)
    total = np.zeros((height, width), np.float32)
    for octave in range(count):
        wave_m = longest_m / 2 ** octave
        total += value_noise(rng, height, width, wave_m * stretch, wave_m)
    return total / np.float32(0.7 * np.sqrt(count))


def _coordinates_m(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    u = (np.arange(width, dtype=np.float32) + 0.5)[None, :] * TEXEL_M
    v = (np.arange(height, dtype=np.float32) + 0.5)[:, None] * TEXEL_M
    return u, v


def mottled(colour: Colour, contrast: float = 0.16, shortest_m: float = 0.01) -> Painter:
    """Return a painter of plaster, paint or cardboard: `colour` with noise at all scales."""
    def paint(rng: Rng, height: int, width: int) -> np.ndarray:
        light = 1 + np.float32(contrast) * octaves(rng, height, width, 0.64, shortest_m)
        tint = value_noise(rng, height, width, 0.3, channels=3)
        return np.asarray(colour, np.float32) * light[..., None] + np.float32(0.02) * tint
    return paint


def wood(colour: Colour, contrast: float = 0.2, along_v: bool = False) -> Painter:
    """Return a painter of sawn wood whose grain runs along u, or along v."""
    def paint(rng: Rng, height: int, width: int) -> np.ndarray:
        if along_v:
            return np.ascontiguousarray(
                wood(colour, contrast)(rng, width, height).transpose(1, 0, 2))
        grain = octaves(rng, height, width, 0.08, 0.005, stretch=7.0)
        spots = octaves(rng, height, width, 0.16, 0.02)
        _, v = _coordinates_m(height, width)
        rings = np.sin(2 * np.pi * (v / 0.05 + 0.8 * value_noise(rng, height, width, 0.5, 0.12)))
        light = 1 + contrast * (0.6 * grain + 0.45 * spots + 0.35 * rings)
        return (np.asarray(colour, np.float32) * light[..., None]).astype(np.float32)
    return paint


def tiled(
    rows_m: float, length_m: float, gap_m: float, gap_colour: Colour, spread: float,
    surface: Painter, gap_contrast: float = 0.15,
) -> Painter:
    """Return a painter of staggered bricks or planks, each with a tone of its own."""
    def paint(rng: Rng, height: int, width: int) -> np.ndarray:
        u, v = _coordinates_m(height, width)
        row = np.floor(v / rows_m).astype(int)
        shift = rng.random(row.max() + 1).astype(np.float32)[row] * length_m
        column = np.floor((u + shift) / length_m).astype(int)
        tones = 1 + spread * rng.standard_normal(
            (row.max() + 1, column.max() + 1, 1), dtype=np.float32)
        tints = 1 + spread * 0.3 * rng.standard_normal((*tones.shape[:2], 3), dtype=np.float32)
        picture = surface(rng, height, width) * (tones * tints)[row, column]
        wobble = 1 + 0.25 * value_noise(rng, height, width, 0.03)
        edge_u, edge_v = (u + shift) % length_m, np.broadcast_to(v % rows_m, picture.shape[:2])
        gap = np.minimum(np.minimum(edge_u, length_m - edge_u),
                         np.minimum(edge_v, rows_m - edge_v)) < gap_m / 2 * wobble
        mortar = mottled(gap_colour, gap_contrast)(rng, height, width)
        return np.where(gap[..., None], mortar, picture)
    return paint


def scattered(
    ground: Painter, colours: list[Colour], per_m2: float, size_m: tuple[float, float],
    slender: float = 0.4,
) -> Painter:
    """Return a painter of leaves or flecks: ellipses of `colours` strewn over `ground`."""
    def paint(rng: Rng, height: int, width: int) -> np.ndarray:
        picture = ground(rng, height, width)
        area_m2 = height * width * TEXEL_M ** 2
        for _ in range(int(per_m2 * area_m2) + 1):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            length = rng.uniform(*size_m) / 2 / TEXEL_M
            axes = (int(length) + 1, int(length * rng.uniform(0.6, 1.4) * slender) + 1)
            tone = rng.uniform(0.65, 1.25)
            colour = [float(c * tone) for c in colours[int(rng.integers(len(colours)))]]
            angle = float(rng.uniform(0, 360))
            cv2.ellipse(picture, centre, axes, angle, 0, 360, colour, -1)
            cv2.ellipse(picture, centre, (axes[0], 0), angle, 0, 360,
                        [0.7 * c for c in colour], 1)
        return cv2.GaussianBlur(picture, (3, 3), 0) * (
            1 + 0.08 * octaves(rng, height, width, 0.16, 0.01))[..., None]
    return paint


def framed(inner: Painter, frame: Painter, border_m: float) -> Painter:
    """Return a painter of `inner` with a border of `frame` around it."""
    def paint(rng: Rng, height: int, width: int) -> np.ndarray:
        picture = frame(rng, height, width)
        border = round(border_m / TEXEL_M)
        if 2 * border < min(height, width):
            picture[border:height - border, border:width - border] = inner(
                rng, height - 2 * border, width - 2 * border)
        return picture
    return paint


def abstract(colours: list[Colour], shapes: int = 40) -> Painter:
    """Return a painter of overlapping coloured polygons and discs, as rugs and pictures have."""
    def paint(rng: Rng, height: int, width: int) -> np.ndarray:
        picture = mottled(colours[0])(rng, height, width)
        scale = max(height, width)
        for _ in range(shapes):
            colour = [float(c * rng.uniform(0.7, 1.2))
                      for c in colours[int(rng.integers(len(colours)))]]
            centre = rng.random(2) * (width, height)
            radius = scale * rng.uniform(0.02, 0.16)
            if rng.random() < 0.4:
                cv2.circle(picture, tuple(int(c) for c in centre), int(radius), colour, -1)
            else:
                angles = np.sort(rng.random(int(rng.integers(3, 6)))) * 2 * np.pi
                corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
                cv2.fillPoly(picture, [corners.astype(np.int32)], colour)
        picture = cv2.GaussianBlur(picture, (3, 3), 0)
        return picture * (1 + 0.13 * octaves(rng, height, width, 0.16, 0.01))[..., None]
    return paint


def landscape(rng: Rng, height: int, width: int) -> np.ndarray:
    """Paint a sky with clouds above three ranges of wooded hills."""
    _, v = _coordinates_m(height, width)
    t = v / (height * TEXEL_M)
    clouds = np.clip(octaves(rng, height, width, 0.3, 0.01, stretch=2.0) * 0.5, 0, 1)[..., None]
    zenith, haze = np.array([(0.45, 0.65, 0.92), (0.85, 0.88, 0.9)], np.float32)
    picture = zenith + t[..., None] * (haze - zenith) + 0.25 * clouds
    for depth, colour in enumerate([(0.45, 0.55, 0.6), (0.3, 0.48, 0.28), (0.2, 0.33, 0.14)]):
        ridge = 0.45 + 0.18 * depth + 0.06 * octaves(rng, 1, width, 0.4, 0.02)
        trees = np.asarray(colour, np.float32) * (
            1 + 0.3 * octaves(rng, height, width, 0.08, 0.01))[..., None]
        picture = np.where((t > ridge)[..., None], trees, picture)
    return picture.astype(np.float32)


def lettered(ground: Painter, text: str, ink: Colour, along_v: bool = False) -> Painter:
    """Return a painter of `text` written as large as it fits over `ground`, with two bands."""
    def paint(rng: Rng, height: int, width: int) -> np.ndarray:
        picture = ground(rng, height, width)
        if along_v:
            picture = np.rot90(picture)
        picture = np.ascontiguousarray(picture)
        rows, columns = picture.shape[:2]
        (text_w, text_h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 1)
        scale = min(0.7 * columns / text_w, 0.5 * rows / text_h)
        origin = (int(0.15 * columns), int((rows + text_h * scale) / 2))
        cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_DUPLEX, scale, ink,
                    max(1, round(1.3 * scale)), cv2.LINE_8)
        for share in (0.06, 0.9):
            cv2.rectangle(picture, (int(share * columns), 0),
                          (int((share + 0.03) * columns), rows), ink, -1)
        return np.ascontiguousarray(np.rot90(picture, -1)) if along_v else picture
    return paint
