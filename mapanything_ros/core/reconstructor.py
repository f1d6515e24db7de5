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

"""The pipeline: frames in, a map out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import (
    Array,
    Frame,
    Keyframe,
    Prediction,
    Submap,
    WindowPrediction,
)
from mapanything_ros.core.errors import AlignmentError, ExportError, WindowTooLargeError
from mapanything_ros.core.estimation.estimator import Estimator
from mapanything_ros.core.estimation.scale import rescaled
from mapanything_ros.core.estimation.similarity import rigid, scale_of
from mapanything_ros.core.frames.keyframes import Decision, KeyframeSelector, Selector
from mapanything_ros.core.frames.window import KeyframeWindow
from mapanything_ros.core.map.depth_merge import merged
from mapanything_ros.core.map.export import write_cloud, write_tum
from mapanything_ros.core.map.voxel_map import PointCloud, VoxelMap
from mapanything_ros.core.out_of_memory import or_on_host
from mapanything_ros.core.places.loop_closure import LoopClosure

# A camera that has been nowhere new for so long, by the stamps of its images, rests. Whoever holds
# 10 s of TF and waits for the last keyframes finds them long before that.
REST_NS = 2 * 10**9
NOT_LEVEL = (
    'the map is not level: no image was taken while the IMU was seen at rest for a second; keep '
    'the robot still before it drives')


@dataclass(frozen=True, eq=False)
class Window:
    """Keyframes on their way through the backend; ``generation`` tells a reset in between."""

    keyframes: tuple[Keyframe, ...]
    generation: int


@dataclass(frozen=True, eq=False)
class InferredWindow:
    """A window on its way to the map: its geometry, in the frame of its first camera."""

    window: Window
    prediction: WindowPrediction


class Reconstructor:
    """
    Turns frames into submaps and one map.

    ``add``, ``rest``, ``take``, ``restart`` and ``statistics`` are cheap and may be called while
    other threads are in ``infer``, which takes as long as the backend, and in ``place``. One
    thread may call ``infer`` and one ``place``, with the windows in the order of ``take``.
    """

    def __init__(
        self, config: Config, backend: Backend, selector: Selector | None = None,
    ) -> None:
        """Start an empty map; without a ``selector`` the configuration says what keyframes are."""
        self._config = config
        self._backend = backend
        # Taking frames in never waits for the map.
        self._input_lock = Lock()
        self._map_lock = Lock()
        # How often all began anew, as input and as the map know it.
        self._generation = 0
        self._map_generation = 0
        self._keyframe_ns = 0
        self._next_id = 0
        self._selector = selector or KeyframeSelector(config.keyframes)
        self._window = KeyframeWindow(config.window)
        # Until a keyframe knows up, or it is too late for that.
        self._wants_up = config.levels
        self._estimator = Estimator(
            config.alignment, config.scale, config.trusts_odometry)
        self._map = VoxelMap(config.map)
        self._loops = (
            LoopClosure(config.loop_closure) if config.closes_loops else None)
        # Of all keyframes that were placed, the stamp; of those of the segment that is the map,
        # map_from_view, a similarity, as far as it is known by now. Their points follow it when it
        # has moved by half a voxel.
        self._stamps: dict[int, int] = {}
        self._poses: dict[int, Array] = {}
        # Keyframes of the last windows, which may come again, with the depth of all of these.
        self._recent: dict[int, Prediction] = {}
        # As of the last window: a loop may hold the map for seconds.
        self._map_counts = self._count_map()

    def add(self, frame: Frame) -> Decision:
        """
        Take a frame in; an accepted one is decoded and waits in the window.

        Raises InputError, and forgets the frame, where it cannot be decoded.
        """
        with self._input_lock:
            up_in_camera = frame.up_in_camera() if self._wants_up else None
            if up_in_camera is not None:
                # Nothing is mapped yet: the map begins here, where up is known.
                self._window.clear()
                self._selector.reset()
            decision = self._selector.decide(frame)
            if decision.accepted:
                keyframe = self._backend.prepare(frame.keyframe(self._next_id))
                if up_in_camera is not None:
                    keyframe = replace(keyframe, up_in_camera=up_in_camera)
                    self._wants_up = False
                self._selector.accept(frame)
                self._window.add(keyframe)
                self._next_id += 1
                self._keyframe_ns = frame.stamp_ns
            elif frame.stamp_ns - self._keyframe_ns >= REST_NS:
                self._window.rest()
            return decision

    def rest(self) -> None:
        """Take note that no more images come: what waits is a window, full or not."""
        with self._input_lock:
            self._window.rest()

    def take(self, partial: bool = False) -> Window | None:
        """Return the next window, None if none is ready; ``partial`` takes what there is."""
        with self._input_lock:
            if not (self._window.ready() or partial and self._window.can_take()):
                return None
            self._wants_up = False
            return Window(self._window.take(), self._generation)

    @property
    def wants_up(self) -> bool:
        """Say whether it still helps to know, of a frame, which way is up."""
        return self._wants_up

    def is_current(self, window: Window) -> bool:
        """Say whether the map is still the one that the window was taken for."""
        return window.generation == self._generation

    def process(self, window: Window) -> Submap | None:
        """
        Reconstruct a window and add it to the map; None if the map was reset meanwhile.

        Raises ReconstructionError or AlignmentError where the window is lost; the map stays.
        """
        # Geometry of the window, in the frame of its first camera.
        inferred = self.infer(window)
        # Its place in the map, and what the map learns from it.
        return self.place(inferred)

    def infer(self, window: Window) -> InferredWindow:
        """
        Reconstruct a window, beside the map.

        Raises ReconstructionError where it is lost; its keyframes come again.
        """
        try:
            prediction = self._backend.infer(self._inputs(window.keyframes))
        except Exception as error:  # whatever it is, the keyframes are there
            with self._input_lock:
                self._want_up_again()
                if isinstance(error, WindowTooLargeError) and error.fits:
                    self._window.shrink(
                        error.fits, window.keyframes if self.is_current(window) else ())
                else:
                    self._window.retry()
            raise
        with self._input_lock:
            self._window.fitted(len(window.keyframes))
        return InferredWindow(window, prediction)

    def place(self, inferred: InferredWindow) -> Submap | None:
        """
        Add a window to the map; None if the map was reset since it was taken.

        Raises AlignmentError where it fits nowhere; its keyframes come again, and the map stays.
        """
        window, prediction = inferred.window, inferred.prediction
        try:
            with self._map_lock:
                if not self.is_current(window):
                    return None
                self._clear_old_map()
                # Its place in the map, by all that ties it there.
                submap = or_on_host(
                    lambda views: self._estimator.place(
                        replace(prediction, views=tuple(views)), window.keyframes),
                    prediction.views)
                if submap.new_segment and self._config.levels and not self._estimator.levelled:
                    submap = replace(submap, warning='; '.join(filter(None, (
                        submap.warning, NOT_LEVEL))))
                # Keyframes of windows before, where they are by what this one says.
                self._correct(submap)
                # Depth of the keyframes that were seen before, by all that has seen them.
                submap = self._merge(submap)
                # Points of all its keyframes, and poses of those that are new.
                self._accumulate(submap, window.keyframes)
                # All of the path, where the camera is back at a place that it knows.
                submap = self._close_loops(submap, window.keyframes)
                self._map_counts = self._count_map()
        except Exception as error:  # whatever it is, the keyframes are there
            with self._input_lock:
                self._want_up_again()
                if isinstance(error, AlignmentError) and self.is_current(window):
                    self._window.refused(window.keyframes)
                else:
                    self._window.retry()
            raise
        with self._input_lock:
            if self.is_current(window):
                self._window.placed(window.keyframes)
        return submap

    def restart(self) -> None:
        """Forget keyframes and windows, also those in flight, at once; the map goes with clear."""
        with self._input_lock:
            self._generation += 1
            self._selector.reset()
            self._window.clear()
            self._wants_up = self._config.levels

    def clear(self) -> None:
        """Forget map and path of before the last restart, when nobody else is at them."""
        with self._map_lock:
            self._clear_old_map()

    def reset(self) -> None:
        """Forget map, path and keyframes."""
        self.restart()
        self.clear()

    def map_points(self) -> PointCloud:
        """Return the accumulated map."""
        with self._map_lock:
            return self._map.points()

    def map_updates(self) -> PointCloud:
        """Return what came or changed in the map since the last call."""
        with self._map_lock:
            return self._map.updates()

    def trajectory(self) -> list[tuple[int, Array]]:
        """Return stamps (ns) and (4,4) ``map_from_camera`` of the keyframes in the map."""
        with self._map_lock:
            return [(self._stamps[n], rigid(self._poses[n])) for n in sorted(self._poses)]

    def map_from_views(self) -> dict[int, Array]:
        """
        Return ``map_from_camera`` (4,4) of the keyframes in the map, by id.

        Similarities: their scale is that of the keyframe's depth since it first came.
        """
        with self._map_lock:
            return dict(self._poses)

    def map_from_odom(self) -> Array | None:
        """Return the (4,4) correction of odometry, None before the first window."""
        with self._map_lock:
            return self._estimator.map_from_odom

    def statistics(self) -> dict[str, int]:
        """Return counts since the start: keyframes, drops, segments, and why frames decided."""
        with self._input_lock:
            return {
                'keyframes': self._next_id,
                'keyframes_dropped': self._window.dropped,
                **self._map_counts,
                **{f'frames_{reason}': n for reason, n in sorted(self._selector.counts.items())},
            }

    def save(self, directory: Path) -> list[Path]:
        """Write map.ply and trajectory.tum; raise ExportError where that fails."""
        cloud, trajectory = self.map_points(), self.trajectory()
        if not len(cloud):
            raise ExportError('the map is empty: there is nothing to save yet')
        paths = [directory / 'map.ply', directory / 'trajectory.tum']
        write_cloud(paths[0], cloud)
        write_tum(paths[1], trajectory)
        return paths

    def _want_up_again(self) -> None:
        mapped = self._map_generation == self._generation and self._poses
        self._wants_up = self._config.levels and not mapped

    def _inputs(self, keyframes: Sequence[Keyframe]) -> Sequence[Keyframe]:
        """Return the keyframes as the backend may see them: odometry where that is wanted."""
        if self._config.pose_source == 'tf':
            return keyframes
        return [replace(keyframe, odom_from_camera=None) for keyframe in keyframes]

    def _correct(self, submap: Submap) -> None:
        """Begin a new segment, or follow what windows say of the keyframes of those before."""
        if submap.new_segment:
            # Nobody knows where the old one is from here.
            self._map.hide(self._poses)
            self._poses.clear()
            self._recent.clear()
        self._map.forget(submap.gone)
        if self._loops:
            self._loops.forget(submap.gone)
        for number in submap.gone:
            del self._poses[number], self._stamps[number]
            self._recent.pop(number, None)
        poses = {n: pose for n, pose in self._estimator.recent().items() if n in self._poses}
        self._poses.update(poses)
        self._map.repose(poses, 0.5 * self._config.map.voxel_m)
        if self._loops:
            self._loops.repose(poses)

    def _merge(self, submap: Submap) -> Submap:
        views = {view.keyframe_id: view for view in submap.views}
        for number, view in views.items():
            if number in self._recent:
                before = rescaled(self._recent[number], scale_of(self._poses[number]))
                views[number] = or_on_host(lambda both: merged(*both), [before, view])
        return replace(submap, views=tuple(views.values()))

    def _accumulate(self, submap: Submap, keyframes: Sequence[Keyframe]) -> None:
        stamps = {keyframe.id: keyframe.stamp_ns for keyframe in keyframes}
        kept = {number: view for number, view in self._recent.items() if number in stamps}
        for view in submap.views:
            number = view.keyframe_id
            if number in submap.new_ids:
                self._stamps[number] = stamps[number]
                self._poses[number] = submap.poses[number]
            # As it first came; what became of its scale is part of its pose.
            kept[number] = rescaled(view, 1.0 / scale_of(self._poses[number]))
            or_on_host(partial(self._insert, self._poses[number]), [kept[number]])
        self._recent = kept

    def _insert(self, pose: Array, views: Sequence[Prediction]) -> None:
        for view in views:
            self._map.insert(view, pose)

    def _close_loops(self, submap: Submap, keyframes: Sequence[Keyframe]) -> Submap:
        """Correct path and map by the loops that the window closes; return it where it is then."""
        if not self._loops:
            return submap
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        edges = [
            edge for view in submap.views if view.keyframe_id in submap.new_ids
            for edge in self._loops.add(
                by_id[view.keyframe_id], view, submap.poses[view.keyframe_id],
                self._estimator.segment)]
        if not edges:
            return submap
        before = {
            view.keyframe_id: scale_of(self._poses[view.keyframe_id]) for view in submap.views}
        if not self._estimator.close(edges):
            return submap
        poses = self._estimator.path()
        self._loops.repose(poses, dict.fromkeys(poses, self._estimator.segment))
        joined = poses.keys() - self._poses.keys()
        self._poses = {n: pose for n, pose in poses.items() if n in self._stamps}
        self._map.repose(self._poses, 0.5 * self._config.map.voxel_m)
        self._map.show(joined)
        views = tuple(
            rescaled(view, scale_of(self._poses[number]) / before[number])
            for view in submap.views for number in (view.keyframe_id,))
        return replace(
            submap, moved=True, views=views,
            poses={view.keyframe_id: rigid(self._poses[view.keyframe_id]) for view in views})

    def _count_map(self) -> dict[str, int]:
        loops = {} if self._loops is None else {
            **self._estimator.statistics(), **self._loops.statistics()}
        level = {'levelled': int(self._estimator.levelled)} if self._config.levels else {}
        return {
            'segments': self._estimator.segments, 'map_voxels': len(self._map), **level, **loops}

    def _clear_old_map(self) -> None:
        if self._map_generation != self._generation:
            self._map_generation = self._generation
            self._clear_map()
            self._recent.clear()
            self._estimator.reset()
            self._map_counts = self._count_map()

    def _clear_map(self) -> None:
        self._map.clear()
        self._stamps.clear()
        self._poses.clear()
        if self._loops:
            self._loops.clear()
