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
How well places are recognised, where the truth says which pictures show the same.

Pictures at least `MIN_GAP` keyframes apart are a pair: of one place where each shows `SAME` of the
other's surface. `found` is the share of pictures of an older place that have it among the
candidates; `recall` the share of true pairs that geometry verifies, and that of those with `HALF`
in common; `false` the verified ones, of true pairs and of all candidates, that are farther than
`WRONG` from the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
import json
import math
import os
from pathlib import Path
import time

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.evaluate import buildings
from benchmarks.evaluate.__main__ import BAG_VARIABLE
from benchmarks.evaluate.recorded import recorded
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from benchmarks.evaluate.walks import OPTICAL
from benchmarks.evaluate.worlds import INTRINSICS, PERIOD_NS, SIZE, START_NS, World
from mapanything_ros.core.config import LoopClosureConfig
from mapanything_ros.core.datatypes import Array, Keyframe
from mapanything_ros.core.places.local_features import extract, LocalFeatures
from mapanything_ros.core.places.loop_closure import APART, CANDIDATES, MIN_GAP
from mapanything_ros.core.places.loop_verification import LoopRefusedError, Match, verify
from mapanything_ros.core.places.place_recognition import PlaceRecognition, Vocabulary
from mapanything_ros.sample.room import Room

SEEDS = (0, 1, 2)
SAME, HALF = 0.3, 0.5
WRONG_M, WRONG_DEG = 0.25, 5.0
# What a window's depth errs by once its scale is right.
FAULTS = Faults(depth_noise=0.01, depth_bias=0.01)
SURFACE = 0.05
GRID = 20
ROOM_SIZE = (640, 480)
ROOM_INTRINSICS: Array = np.array([[480.0, 0, 319.5], [0, 480, 239.5], [0, 0, 1]])
LAP, ROOM_KEYFRAMES = 32, 64
# Of the recorded pictures one is a keyframe.
EVERY = 3


@dataclass(frozen=True)
class Figures:
    """One row; errors are medians, ``sigmas`` the rms of error over its standard deviation."""

    world: str
    pictures: int
    features: float
    found: float
    pairs: int
    recall: float
    recall_half: float
    false: int
    error_m: float
    error_deg: float
    error_scale: float
    sigmas_m: float
    sigmas_deg: float
    sigmas_scale: float
    extract_ms: float
    verify_ms: float


def run(output: Path) -> None:
    """Measure all worlds, print a row for each and write them as JSON."""
    print(f'{"places":12} {"pictures":>8} {"features":>8} {"found":>6} {"pairs":>6} '
          f'{"recall":>13} {"false":>5} {"error":>28} {"sigmas":>14} {"extract":>8} {"verify":>8}')
    rows = [measure(name, world, seed) for name, world, seed in _worlds()]
    output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + '\n')
    print(f'wrote {output}')


def measure(name: str, world: World, seed: int) -> Figures:
    """Return the figures of one world, and print them."""
    backend = SimulatedBackend(world, FAULTS, seed)
    features: list[LocalFeatures] = []
    seconds: list[float] = []
    for number in range(len(world)):
        keyframe = Keyframe(
            number, int(world.stamps_ns[number]), 'camera', world.views[number].rgb,
            world.intrinsics)
        view = backend.infer([keyframe]).views[0]
        start_s = time.process_time()
        features.append(extract(keyframe, view))
        seconds.append(time.process_time() - start_s)
    shared = _shared(world)
    candidates = _candidates(features)
    true = {
        (older, newer) for older, newer in zip(*np.nonzero(shared >= SAME), strict=True)
        if newer - older >= MIN_GAP}
    back = {newer for _, newer in true}
    found = sum(any((older, newer) in true for older in candidates[newer]) for newer in back)
    matches: dict[tuple[int, int], Match] = {}
    pairs = true | {(older, newer) for newer, olds in candidates.items() for older in olds}
    start_s = time.process_time()
    for older, newer in pairs:
        with suppress(LoopRefusedError):
            matches[older, newer] = verify(
                features[older], features[newer], LoopClosureConfig().min_inliers)
    verify_s = time.process_time() - start_s
    errors = {pair: _errors(world, *pair, match) for pair, match in matches.items()}
    right = {
        pair for pair, (shift_m, turn, _) in errors.items()
        if shift_m <= WRONG_M and turn <= math.radians(WRONG_DEG)}
    table = np.array([errors[pair] for pair in sorted(right)])
    sigmas = np.array([
        (matches[pair].sigma_m, matches[pair].sigma_rad, matches[pair].sigma_scale)
        for pair in sorted(right)])
    # Of shift and turn a deviation is by axis.
    ratios = np.sqrt((table ** 2 / sigmas ** 2).mean(axis=0) / (3, 3, 1))
    error_m, error_rad, error_scale = np.median(table, axis=0)
    half = {pair for pair in true if shared[pair] >= HALF}
    row = Figures(
        name, len(world), float(np.mean([len(each) for each in features])),
        found / len(back), len(true), len(right & true) / len(true),
        len(right & half) / len(half), len(matches) - len(right),
        float(error_m), math.degrees(error_rad), float(error_scale),
        *ratios.tolist(), 1e3 * float(np.median(seconds)), 1e3 * verify_s / len(pairs))
    print(f'{row.world:12} {row.pictures:8} {row.features:8.0f} {row.found:6.1%} {row.pairs:6} '
          f'{row.recall:6.1%} {row.recall_half:6.1%} {row.false:5} {1e3 * row.error_m:8.1f} mm '
          f'{row.error_deg:6.2f}\N{DEGREE SIGN} {row.error_scale:7.2%} '
          f'{row.sigmas_m:4.1f} {row.sigmas_deg:4.1f} {row.sigmas_scale:4.1f} '
          f'{row.extract_ms:5.0f} ms {row.verify_ms:5.1f} ms', flush=True)
    return row


def _worlds() -> Iterator[tuple[str, World, int]]:
    """Give the buildings of the evaluation in other paint, a room, and what was recorded."""
    for seed in SEEDS:
        for kind in (buildings.corridor, buildings.two_rooms):
            building = kind(seed)
            views = tuple(
                building.render(index, INTRINSICS, *SIZE)
                for index in range(len(building.world_from_camera)))
            yield f'{kind.__name__} {seed}', _world(
                kind.__name__, building.world_from_camera, INTRINSICS, views), seed
    for seed in SEEDS:
        room, poses = Room(seed=seed), _laps(seed)
        views = tuple(room.render(pose, ROOM_INTRINSICS, *ROOM_SIZE) for pose in poses)
        yield f'room {seed}', _world('room', poses, ROOM_INTRINSICS, views), seed
    if bag := os.environ.get(BAG_VARIABLE):
        kitchen = recorded(Path(bag), shrink=1)
        yield kitchen.name, replace(
            kitchen, stamps_ns=kitchen.stamps_ns[::EVERY], views=kitchen.views[::EVERY],
            world_from_camera=kitchen.world_from_camera[::EVERY]), 0


def _world(name: str, poses: Array, intrinsics: Array, views: tuple) -> World:
    return World(
        name=name, stamps_ns=START_NS + PERIOD_NS * np.arange(len(poses)),
        world_from_camera=poses, odom_from_camera=poses, intrinsics=intrinsics, views=views,
        distance=lambda points: np.zeros(len(points)), keyframe_step_m=0.0)


def _laps(seed: int) -> Array:
    """Return two laps (N,4,4) of a ring in the sample room, looking outward, none like another."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (ROOM_KEYFRAMES, 1, 1))
    angles = 2 * np.pi * np.arange(ROOM_KEYFRAMES) / LAP
    radius = rng.uniform(0.5, 0.9, ROOM_KEYFRAMES)
    poses[:, 0, 3] = 2.5 + radius * np.cos(angles)
    poses[:, 1, 3] = 2.0 + radius * np.sin(angles)
    poses[:, 2, 3] = 1.3 + rng.normal(0, 0.1, ROOM_KEYFRAMES)
    turns = np.column_stack([angles, rng.normal(0, 0.1, (ROOM_KEYFRAMES, 2))])
    poses[:, :3, :3] = Rotation.from_euler('ZYX', turns).as_matrix() @ OPTICAL
    return poses


def _candidates(features: list[LocalFeatures]) -> dict[int, list[int]]:
    """Return the older pictures that look most like each, by a vocabulary of the first ones."""
    looks = [each.unit_descriptors() for each in features]
    vocabulary = Vocabulary(np.concatenate(looks[:MIN_GAP]))
    descriptors = [vocabulary.describe(each) for each in looks]
    recognition = PlaceRecognition(len(features))
    result = {}
    for number, descriptor in enumerate(descriptors):
        recognition.add(number, descriptor)
        result[number] = recognition.similar(
            descriptor, range(number - MIN_GAP + 1), CANDIDATES, APART)
    return result


def _shared(world: World) -> Array:
    """Return (N,N): how much of its surface each of two pictures sees in the other, the less."""
    count = len(world)
    width, height = world.size
    stride = width // GRID
    column, row = np.meshgrid(
        np.arange(stride // 2, width, stride), np.arange(stride // 2, height, stride))
    depths_m = np.stack([view.depth_m for view in world.views])
    rays = np.stack([column, row, np.ones_like(row)], -1).reshape(-1, 3) @ np.linalg.inv(
        world.intrinsics).T
    camera_from_world = np.linalg.inv(world.world_from_camera)
    seen = np.zeros((count, count))
    for number in range(count):
        depth_m = depths_m[number, row, column].ravel()
        points = (rays * depth_m[:, None])[depth_m > 0]
        pose = world.world_from_camera[number]
        points = points @ pose[:3, :3].T + pose[:3, 3]
        there = np.einsum('nij,pj->npi', camera_from_world[:, :3, :3], points)
        there += camera_from_world[:, None, :3, 3]
        z = np.maximum(there[..., 2], 1e-3)
        pixels = np.rint((there / z[..., None]) @ world.intrinsics[:2].T)
        inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=-1)
        u, v = np.where(inside[..., None], pixels, 0).astype(int).transpose(2, 0, 1)
        hit_m = depths_m[np.arange(count)[:, None], v, u]
        same = inside & (there[..., 2] > 0) & (np.abs(hit_m - z) < SURFACE * z)
        seen[number] = same.sum(axis=1) / rays.shape[0]
    return np.minimum(seen, seen.T)


def _errors(world: World, older: int, newer: int, match: Match) -> tuple[float, float, float]:
    """Return by how far a match is wrong: metres, radians, and its scale, of which 1 is true."""
    truth = np.linalg.inv(world.world_from_camera[older]) @ world.world_from_camera[newer]
    error = np.linalg.inv(truth) @ match.older_from_newer
    turn = float(Rotation.from_matrix(error[:3, :3]).magnitude())
    return float(np.linalg.norm(error[:3, 3])), turn, abs(math.log(match.scale))
