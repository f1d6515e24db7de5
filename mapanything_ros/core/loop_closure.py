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

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mapanything_ros.core.config import LoopClosureConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Prediction
from mapanything_ros.core.local_features import extract, LocalFeatures
from mapanything_ros.core.loop_verification import LoopRefusedError, Match, verify
from mapanything_ros.core.place_recognition import PlaceRecognition, Vocabulary
from mapanything_ros.core.pose_graph import LoopEdge

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


@dataclass(frozen=True, eq=False)
class _Place:
    """A keyframe that may be seen again; ``path_m`` is how far the camera had come."""

    id: int
    features: LocalFeatures
    map_from_camera: Array
    path_m: float


@dataclass(frozen=True, eq=False)
class _Sighting:
    """An older place that a new keyframe shows, and where that puts the new camera, (4,4)."""

    place: _Place
    match: Match

    @property
    def map_from_camera(self) -> Array:
        return self.place.map_from_camera @ self.match.older_from_newer


class LoopClosure:
    """
    Finds loops: keyframes that show a place of long ago.

    The most similar places are found by the backend's descriptor, or else by a vocabulary that is
    learned from the first keyframes, and each is verified by geometry. A place that looks like
    another one, or that the path cannot have come back to, is refused, and nothing counts before
    ``min_consistent`` keyframes in a row tell the same. The same keyframes give the same loops.
    Beyond ``max_keyframes`` the oldest places are forgotten.
    """

    def __init__(self, config: LoopClosureConfig) -> None:
        self._config = config
        self._counts: Counter[str] = Counter()
        self.clear()

    def clear(self) -> None:
        """Forget all places and loops."""
        self._recognition = PlaceRecognition(self._config.max_keyframes)
        self._vocabulary: Vocabulary | None = None
        self._places: dict[int, _Place] = {}
        self._waiting: list[LoopEdge] = []
        self._closed: list[LoopEdge] = []
        self._path_m = 0.0
        self._last: tuple[int, Array] | None = None

    def add(self, keyframe: Keyframe, view: Prediction, map_from_camera: Array) -> list[LoopEdge]:
        """
        Remember a keyframe at its pose in the map (4,4); return the loops that are sure now.

        Each keyframe comes once. A loop may be that of a keyframe before this one, which had to
        wait for a second opinion.
        """
        position = map_from_camera[:3, 3]
        if self._last is not None:
            self._path_m += float(np.linalg.norm(position - self._last[1]))
        self._last = keyframe.id, position.copy()
        features = extract(keyframe, view)
        if len(features) < self._config.min_inliers:
            self._counts['keyframes_without_features'] += 1
            return []
        place = _Place(keyframe.id, features, map_from_camera, self._path_m)
        descriptor = self._describe(features, view)
        self._remember(place, descriptor)
        if descriptor is None or self._closed and keyframe.id - self._closed[-1].newer < SPACING:
            return []
        sighting = self._recognise(place, descriptor)
        return [] if sighting is None else self._confirm(place, sighting)

    def repose(self, poses: Mapping[int, Array]) -> None:
        """
        Follow the map to new poses (4,4) by id, after loops were taken into account.

        Loops that the map belies even so are forgotten.
        """
        for number, pose in poses.items():
            if number in self._places:
                self._places[number] = replace(self._places[number], map_from_camera=pose)
            if self._last is not None and number == self._last[0]:
                self._last = number, pose[:3, 3].copy()
        self._closed = [
            edge for edge in self._closed
            if edge.older in self._places and edge.newer in self._places
            and edge.fits(self._places[edge.older].map_from_camera,
                          self._places[edge.newer].map_from_camera)]

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
        self._places[place.id] = place
        if len(self._places) > self._config.max_keyframes:
            self._places.pop(next(iter(self._places)))
        if descriptor is not None:
            self._recognition.add(place.id, descriptor)
        elif len(self._places) >= MIN_GAP:
            self._learn()

    def _learn(self) -> None:
        """Learn the vocabulary from the places so far, and describe them."""
        features = {n: place.features.unit_descriptors() for n, place in self._places.items()}
        self._vocabulary = Vocabulary(np.concatenate(list(features.values())))
        for number, each in features.items():
            self._recognition.add(number, self._vocabulary.describe(each))

    def _recognise(self, new: _Place, descriptor: NDArray[np.float32]) -> _Sighting | None:
        """Return the old place that the new keyframe shows, None where there is none for sure."""
        since_m = {n: new.path_m - place.path_m for n, place in self._places.items()}
        old = [
            n for n, gap_m in since_m.items()
            if gap_m >= self._config.min_gap_m and new.id - n >= MIN_GAP]
        sightings = self._sightings(new, descriptor, old)
        if not sightings:
            return None
        best = max(sightings, key=lambda sighting: sighting.match.inliers)
        recent = [
            n for n, gap_m in since_m.items() if gap_m >= self._config.min_gap_m / 4
            and (gap_m < self._config.min_gap_m or new.id - n < MIN_GAP)]
        here = _Sighting(new, Match(np.eye(4), 0.0, 0.0, best.match.inliers, 1.0))
        rivals = [(other, here) for other in self._sightings(new, descriptor, recent)]
        rivals += [(other, best) for other in sightings if other is not best]
        strong = RIVAL_INLIERS * best.match.inliers
        if any(other.match.inliers >= strong and not self._agree(other, against)
               for other, against in rivals):
            self._counts['refused_ambiguous'] += 1
        elif not self._possible(best, new):
            self._counts['refused_drift'] += 1
        else:
            return best
        return None

    def _sightings(
        self, new: _Place, descriptor: NDArray[np.float32], among: Sequence[int],
    ) -> list[_Sighting]:
        """Return those of the most similar places that geometry cannot tell from the new one."""
        found = []
        for number in self._recognition.similar(descriptor, among, CANDIDATES, APART):
            self._counts['candidates'] += 1
            try:
                match = verify(
                    self._places[number].features, new.features, self._config.min_inliers)
                found.append(_Sighting(self._places[number], match))
            except LoopRefusedError as error:
                self._counts[f'refused_{error.reason}'] += 1
        return found

    def _agree(self, one: _Sighting, other: _Sighting) -> bool:
        """Say whether two places put the new camera at the same pose."""
        path_m = abs(one.place.path_m - other.place.path_m)
        return _close(
            np.linalg.inv(one.map_from_camera) @ other.map_from_camera, path_m,
            one.match.sigma_m + other.match.sigma_m,
            one.match.sigma_rad + other.match.sigma_rad)

    def _possible(self, sighting: _Sighting, new: _Place) -> bool:
        """Say whether the map may have drifted so far since it was there, or since a loop."""
        old = sighting.place
        uncertain_m = new.path_m - old.path_m
        for edge in self._closed:
            if edge.older in self._places and edge.newer in self._places:
                ends = self._places[edge.older].path_m, self._places[edge.newer].path_m
                uncertain_m = min(
                    uncertain_m, abs(old.path_m - ends[0]) + abs(new.path_m - ends[1]))
        moved = np.linalg.inv(new.map_from_camera) @ sighting.map_from_camera
        limit_m = self._config.max_drift * uncertain_m + SIGMAS * sighting.match.sigma_m
        return bool(np.linalg.norm(moved[:3, 3]) <= limit_m and _angle(moved) <= MAX_DRIFT_RAD)

    def _confirm(self, new: _Place, sighting: _Sighting) -> list[LoopEdge]:
        """Return the new loop and those that waited for it, once enough tell the same."""
        match = sighting.match
        edge = LoopEdge(
            sighting.place.id, new.id, match.older_from_newer, match.sigma_m, match.sigma_rad)
        self._waiting = [w for w in self._waiting if new.id - w.newer <= TOGETHER]
        waiting = [other for other in self._waiting if self._consistent(other, edge)]
        closed = [
            other for other in self._closed
            if new.id - other.newer <= TOGETHER and self._consistent(other, edge)]
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
        """Say whether going through one loop and back through the other leads to the start."""
        if not {one.older, one.newer, other.older, other.newer} <= self._places.keys():
            return False
        older, newer = self._places[one.older], self._places[one.newer]
        other_older, other_newer = self._places[other.older], self._places[other.newer]
        between_older = np.linalg.inv(older.map_from_camera) @ other_older.map_from_camera
        between_newer = np.linalg.inv(other_newer.map_from_camera) @ newer.map_from_camera
        around = (
            np.linalg.inv(one.older_from_newer) @ between_older @ other.older_from_newer
            @ between_newer)
        path_m = abs(older.path_m - other_older.path_m) + abs(newer.path_m - other_newer.path_m)
        return _close(
            around, path_m, one.sigma_m + other.sigma_m, one.sigma_rad + other.sigma_rad)


def _close(motion: Array, path_m: float, sigma_m: float, sigma_rad: float) -> bool:
    """Say whether a motion is none, for a path of this length between."""
    return bool(
        np.linalg.norm(motion[:3, 3]) <= AGREEMENT * path_m + SIGMAS * sigma_m
        and _angle(motion) <= AGREEMENT_RAD + SIGMAS * sigma_rad)


def _angle(motion: Array) -> float:
    return float(Rotation.from_matrix(motion[:3, :3]).magnitude())
