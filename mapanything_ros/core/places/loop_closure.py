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

"""Recognises places that the camera saw before, and refuses what merely looks like them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mapanything_ros.core.config import LoopClosureConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Prediction
from mapanything_ros.core.estimation.similarity import scale_of
from mapanything_ros.core.places.local_features import extract, LocalFeatures
from mapanything_ros.core.places.loop_edge import LoopEdge
from mapanything_ros.core.places.loop_verification import LoopRefusedError, verify
from mapanything_ros.core.places.place_recognition import PlaceRecognition, Vocabulary

# A place is as old as this many keyframes at least, whatever the path between.
MIN_GAP = 20
# Similar places that are looked at closely, this many keyframes apart.
CANDIDATES, APART = 3, 5
# Loops within so many keyframes must tell the same; one within the second number is enough.
TOGETHER, SPACING = 10, 5
# Two loops, or two places that look alike, tell the same within this share of the path between
# them, this turn, and this many standard deviations.
AGREEMENT, AGREEMENT_RAD, SIGMAS = 0.05, math.radians(3.0), 3.0
# A place that looks like another with this share of its inliers makes both worthless.
RIVAL_INLIERS = 0.5
# Turned farther than this against the map, a loop is wrong whatever the path.
MAX_DRIFT_RAD = math.radians(45.0)
# By how much the scale of a map may vary from place to place.
MAX_SCALE = 1.3


@dataclass(frozen=True, eq=False)
class _Place:
    """
    A keyframe that may be seen again.

    ``map_from_camera`` (4,4) is a similarity: from the unit of its view, as that was when it came,
    to the map of its ``segment``, where the camera had come ``path_m`` far.
    """

    id: int
    segment: int
    features: LocalFeatures
    map_from_camera: Array
    path_m: float

    @cached_property
    def scale(self) -> float:
        """Return the map's unit over that of the view."""
        return scale_of(self.map_from_camera)

    @cached_property
    def cell(self) -> tuple[int, ...]:
        """
        Return what places that see at least half of the same have in common, but for rounding.

        That half leaves a picture by a shift or a turn of half the field of view, so it is in
        octaves of the depth.
        """
        half = self.features.size[0] / 2 / self.features.intrinsics[0, 0]
        depth_m = self.scale * float(np.median(self.features.points_m[:, 2]))
        octave = math.floor(math.log2(half * depth_m))
        where = np.floor(self.map_from_camera[:3, 3] / 2.0 ** octave)
        way = np.rint(self.map_from_camera[:3, 2] / self.scale / half)
        return self.segment, octave, *where.astype(int).tolist(), *way.astype(int).tolist()


@dataclass(frozen=True, eq=False)
class _Sighting:
    """An older place that a new keyframe shows, by so many points."""

    edge: LoopEdge
    inliers: int


class LoopClosure:
    """
    Finds loops: keyframes that show a place of long ago, or one of another segment of the path.

    The most similar places are found by the backend's descriptor, or else by a vocabulary that is
    learned from the first keyframes, and each is verified by geometry. A place that looks like
    another one, or that the path cannot have come back to, is refused, and nothing counts before
    ``min_consistent`` keyframes in a row tell the same. What segments have to do with each other
    is unknown, also in scale, until places that both have seen say so. The same keyframes give
    the same loops. Of more than ``max_keyframes`` places those go first that have most others
    about them that look the same way; where none has, the oldest.
    """

    def __init__(self, config: LoopClosureConfig) -> None:
        self._config = config
        self._counts: Counter[str] = Counter()
        self.clear()

    def clear(self) -> None:
        """Forget all places and loops."""
        self._recognition = PlaceRecognition(self._config.max_keyframes)
        self._vocabulary: Vocabulary | None = None
        # By rising id.
        self._places: dict[int, _Place] = {}
        # Loops between places that are not forgotten.
        self._waiting: list[LoopEdge] = []
        self._closed: list[LoopEdge] = []
        self._path_m = 0.0
        self._last: tuple[int, int, Array] | None = None

    def add(
        self, keyframe: Keyframe, view: Prediction, map_from_camera: Array, segment: int = 0,
    ) -> list[LoopEdge]:
        """
        Remember a keyframe at its rigid pose (4,4) in the map of its segment; return sure loops.

        One that comes late, after newer ones, is passed over. A loop may be that of a keyframe
        before this one, which had to wait for a second opinion.
        """
        if self._last is not None and keyframe.id <= self._last[0]:
            return []
        position = map_from_camera[:3, 3]
        if self._last is not None and self._last[1] == segment:
            self._path_m += float(np.linalg.norm(position - self._last[2][:3, 3]))
        self._last = keyframe.id, segment, map_from_camera
        features = extract(keyframe, view)
        if len(features) < self._config.min_inliers:
            self._counts['keyframes_without_features'] += 1
            return []
        place = _Place(keyframe.id, segment, features, map_from_camera, self._path_m)
        descriptor = self._describe(features, view)
        self._remember(place, descriptor)
        if descriptor is None:
            return []
        edges = []
        for joins in (False, True):
            if any(place.id - edge.newer < SPACING and self._joins(edge) == joins
                   for edge in self._closed):
                continue
            edge = self._recognise(place, descriptor, joins)
            if edge is not None:
                edges += self._confirm(edge)
        return edges

    def repose(
        self, poses: Mapping[int, Array], segments: Mapping[int, int] | None = None,
    ) -> None:
        """
        Follow the map to new poses (4,4) by id, and to new segments where some were joined.

        A pose is a similarity: it takes points of the view as it came with ``add`` to the map of
        the keyframe's segment. Loops that the map belies even so are forgotten.
        """
        segments = segments or {}
        old = list(self._places.values())
        new = [
            replace(place, map_from_camera=poses.get(place.id, place.map_from_camera),
                    segment=segments.get(place.id, place.segment)) for place in old]
        # The path since the last place stays as it is.
        since_m = self._path_m - old[-1].path_m if old else self._path_m
        for index, place in enumerate(new):
            step_m = _step(*old[index - 1:index + 1], *new[index - 1:index + 1]) if index else 0.0
            new[index] = replace(place, path_m=new[index - 1].path_m + step_m if index else 0.0)
        self._places = {place.id: place for place in new}
        self._path_m = since_m + (new[-1].path_m if new else 0.0)
        if self._last is not None:
            number, segment, pose = self._last
            self._last = number, segments.get(number, segment), poses.get(number, pose)
        self._closed = [
            edge for edge in self._closed
            if self._joins(edge) or edge.fits(self._places[edge.older].map_from_camera,
                                              self._places[edge.newer].map_from_camera)]

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget keyframes, by id, and their loops; pass over those that it does not hold."""
        for number in self._places.keys() & set(numbers):
            del self._places[number]
            # One that came before there was a vocabulary has no descriptor yet.
            if number in self._recognition:
                self._recognition.forget(number)
            self._waiting, self._closed = (
                [edge for edge in edges if number not in (edge.older, edge.newer)]
                for edges in (self._waiting, self._closed))

    def statistics(self) -> dict[str, int]:
        """Return counts since the start: candidates, loops, and refusals by reason."""
        return {f'loop_{name}': self._counts[name] for name in sorted(self._counts)}

    def _describe(
        self, features: LocalFeatures, view: Prediction,
    ) -> NDArray[np.float32] | None:
        """Return the keyframe's descriptor, None before there is a vocabulary."""
        if view.descriptor is not None:
            return view.descriptor.float().cpu().numpy()
        if self._vocabulary is None:
            return None
        return self._vocabulary.describe(features.unit_descriptors())

    def _remember(self, place: _Place, descriptor: NDArray[np.float32] | None) -> None:
        if len(self._places) == self._config.max_keyframes:
            self._make_room()
        self._places[place.id] = place
        if descriptor is not None:
            self._recognition.add(place.id, descriptor)
        elif len(self._places) >= MIN_GAP:
            self._learn()

    def _make_room(self) -> None:
        """Forget the oldest place of the cell that has most, and its loops."""
        cells: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for place in self._places.values():
            cells[place.cell].append(place.id)
        self.forget([max(cells.values(), key=len)[0]])

    def _learn(self) -> None:
        """Learn the vocabulary from the places so far, and describe them."""
        features = {n: place.features.unit_descriptors() for n, place in self._places.items()}
        self._vocabulary = Vocabulary(np.concatenate(list(features.values())))
        for number, each in features.items():
            self._recognition.add(number, self._vocabulary.describe(each))

    def _joins(self, edge: LoopEdge) -> bool:
        """Say whether a loop is between two segments."""
        return self._places[edge.older].segment != self._places[edge.newer].segment

    def _recognise(
        self, new: _Place, descriptor: NDArray[np.float32], joins: bool,
    ) -> LoopEdge | None:
        """
        Return the loop to the old place that the new keyframe shows, None where none is sure.

        The place is one of another segment where that ``joins``, else of the same.
        """
        since_m = {
            n: new.path_m - place.path_m for n, place in self._places.items()
            if place.segment == new.segment}
        old = [
            n for n, gap_m in since_m.items()
            if gap_m >= self._config.min_gap_m and new.id - n >= MIN_GAP]
        if joins:
            old = [n for n in self._places if n not in since_m]
        sightings = self._sightings(new, descriptor, old)
        if not sightings:
            return None
        best = max(sightings, key=lambda sighting: sighting.inliers)
        recent = [
            n for n, gap_m in since_m.items() if gap_m >= self._config.min_gap_m / 4
            and (gap_m < self._config.min_gap_m or new.id - n < MIN_GAP)]
        here = LoopEdge(new.id, new.id, np.eye(4), 0.0, 0.0, 1.0, 0.0)
        rivals = [(other, here) for other in self._sightings(new, descriptor, recent)]
        # Places of different segments cannot contradict each other.
        segment = self._places[best.edge.older].segment
        rivals += [
            (other, best.edge) for other in sightings
            if other is not best and self._places[other.edge.older].segment == segment]
        strong = RIVAL_INLIERS * best.inliers
        if any(other.inliers >= strong and not self._consistent(other.edge, against)
               for other, against in rivals):
            self._counts['refused_ambiguous'] += 1
        elif not (joins or self._possible(best.edge)):
            self._counts['refused_drift'] += 1
        else:
            return best.edge
        return None

    def _sightings(
        self, new: _Place, descriptor: NDArray[np.float32], among: Sequence[int],
    ) -> list[_Sighting]:
        """Return those of the most similar places that geometry cannot tell from the new one."""
        found = []
        for number in self._recognition.similar(descriptor, among, CANDIDATES, APART):
            self._counts['candidates'] += 1
            old = self._places[number]
            try:
                match = verify(old.features, new.features, self._config.min_inliers)
                if old.segment == new.segment and not _same_scale(
                        old.scale / match.scale, new.scale):
                    raise LoopRefusedError('scale')
            except LoopRefusedError as error:
                self._counts[f'refused_{error.reason}'] += 1
            else:
                found.append(_Sighting(LoopEdge(
                    number, new.id, match.older_from_newer, match.sigma_m, match.sigma_rad,
                    match.scale, match.sigma_scale), match.inliers))
        return found

    def _possible(self, edge: LoopEdge) -> bool:
        """Say whether the map may have drifted so far since it was there, or since a loop."""
        old, new = self._places[edge.older], self._places[edge.newer]
        uncertain_m = new.path_m - old.path_m
        for other in self._closed:
            ends = self._places[other.older], self._places[other.newer]
            if ends[0].segment == ends[1].segment == new.segment:
                uncertain_m = min(
                    uncertain_m,
                    abs(old.path_m - ends[0].path_m) + abs(new.path_m - ends[1].path_m))
        shift_m, turn_rad = _apart(
            old.map_from_camera @ edge.similarity, new.map_from_camera)
        limit_m = self._config.max_drift * uncertain_m + SIGMAS * old.scale * edge.sigma_m
        return shift_m <= limit_m and turn_rad <= MAX_DRIFT_RAD

    def _confirm(self, edge: LoopEdge) -> list[LoopEdge]:
        """Return the new loop and those that waited for it, once enough tell the same."""
        self._waiting = [w for w in self._waiting if edge.newer - w.newer <= TOGETHER]
        waiting = [other for other in self._waiting if self._consistent(other, edge)]
        closed = [
            other for other in self._closed
            if edge.newer - other.newer <= TOGETHER and self._consistent(other, edge)]
        if len(waiting) + len(closed) + 1 < self._config.min_consistent:
            self._counts['unconfirmed'] += 1
            self._waiting.append(edge)
            return []
        self._waiting = [w for w in self._waiting if w not in waiting]
        self._counts['unconfirmed'] -= len(waiting)
        self._counts['closed'] += len(waiting) + 1
        self._closed += [*waiting, edge]
        return [*waiting, edge]

    def _consistent(self, one: LoopEdge, other: LoopEdge) -> bool:
        """Say whether both loops put the newer keyframe of the first at the same pose."""
        older, newer = self._places[one.older], self._places[one.newer]
        other_older, other_newer = self._places[other.older], self._places[other.newer]
        if (older.segment, newer.segment) != (other_older.segment, other_newer.segment):
            return False
        first = older.map_from_camera @ one.similarity
        second = (
            other_older.map_from_camera @ other.similarity
            @ np.linalg.inv(other_newer.map_from_camera) @ newer.map_from_camera)
        # All in the older map's unit.
        path_m = abs(older.path_m - other_older.path_m) + scale_of(first) / newer.scale * abs(
            newer.path_m - other_newer.path_m)
        sigma_m = older.scale * one.sigma_m + other_older.scale * other.sigma_m
        sigma_rad = one.sigma_rad + other.sigma_rad
        shift_m, turn_rad = _apart(first, second)
        return (
            shift_m <= AGREEMENT * path_m + SIGMAS * sigma_m
            and turn_rad <= AGREEMENT_RAD + SIGMAS * sigma_rad
            and _same_scale(scale_of(first), scale_of(second)))


def _step(old_before: _Place, old: _Place, before: _Place, place: _Place) -> float:
    """Return the path between two places after they were moved; ``old`` is how they were."""
    if old_before.segment == old.segment:
        return (old.path_m - old_before.path_m) * place.scale / old.scale
    if before.segment == place.segment:
        return float(np.linalg.norm(place.map_from_camera[:3, 3] - before.map_from_camera[:3, 3]))
    return 0.0


def _apart(one: Array, other: Array) -> tuple[float, float]:
    """Return how far two similarities (4,4) put a camera apart: a length and radians."""
    turn = one[:3, :3].T @ other[:3, :3] / (scale_of(one) * scale_of(other))
    return (
        float(np.linalg.norm(one[:3, 3] - other[:3, 3])),
        float(Rotation.from_matrix(turn).magnitude()))


def _same_scale(one: float, other: float) -> bool:
    return abs(math.log(one / other)) <= math.log(MAX_SCALE)
