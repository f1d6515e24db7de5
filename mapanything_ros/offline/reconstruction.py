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

"""From a source to a map, as the node would make it, with nothing dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import logging
from pathlib import Path
import time

import torch

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, Submap
from mapanything_ros.core.device import require_gpu
from mapanything_ros.core.errors import (
    AlignmentError,
    ExportError,
    InputError,
    ReconstructionError,
)
from mapanything_ros.core.estimation.similarity import scale_of
from mapanything_ros.core.map.voxel_map import PointCloud, VoxelMap
from mapanything_ros.core.reconstructor import Reconstructor, Window
from mapanything_ros.offline.keyframe_store import KeyframeRecord, KeyframeStore
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.source import Source

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a reconstruction is."""

    images: int = 0
    keyframes: int = 0
    windows: int = 0
    windows_lost: int = 0


@dataclass(frozen=True)
class WindowReport:
    """What became of a window: ``problem`` is empty where it is in the map."""

    first_stamp_ns: int
    last_stamp_ns: int
    keyframes: int
    seconds: float
    new_keyframes: int = 0
    residual_m: float = 0.0
    inliers: float = 0.0
    scale_source: str = ''
    scale: float = 0.0
    scale_residual: float = 0.0
    problem: str = ''


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """
    The map, the keyframes in it with their last poses, and how that came about.

    ``ended`` is 'complete', 'interrupted', or why the source could not be read to its end.
    ``pieces`` is how many parts the path fell into; the map is the one of most keyframes.
    """

    cloud: PointCloud
    keyframes: KeyframeStore
    windows: tuple[WindowReport, ...]
    statistics: dict[str, object]
    scale: Scale
    ended: str
    pieces: int


class Reconstruction:
    """Runs a source through the pipeline; keyframes go to a folder as they come."""

    def __init__(
        self, config: Config, backend: Backend, source: Source, folder: Path, notices: Notices,
    ) -> None:
        self._config = config
        self._backend = backend
        self._source = source
        self._folder = folder
        self._notices = notices
        self._reconstructor = Reconstructor(config, backend, source.selector())
        self._pieces: list[KeyframeStore] = []
        self._begun = 0
        self._windows: list[WindowReport] = []
        self._scale = Scale('none')

    def run(
        self, stopped: Callable[[], bool], tell: Callable[[Progress], None],
    ) -> Reconstructed:
        """
        Reconstruct all that there is, or all until ``stopped`` says so.

        Every window is done before the next image is looked at. Raises ReconstructionError, with
        the reason, where no window could be placed, and GpuLostError.
        """
        ended = self._read(stopped, tell)
        if ended != 'interrupted' and not self._process_ready(stopped, tell, partial=True):
            ended = 'interrupted'
        if not self._pieces:
            raise ReconstructionError(self._nothing(ended))
        best = max(self._pieces, key=len)
        if len(self._pieces) > 1:
            lost = sum(len(piece) for piece in self._pieces) - len(best)
            self._notices.warn(
                'pieces', f'nothing ties the path together in {len(self._pieces) - 1} places: of '
                f'its pieces the longest is kept, {lost} keyframes of others are left out; '
                'odometry, or a larger window.overlap, may tie them')
        newest = best is self._pieces[-1]
        cloud = self._reconstructor.map_points() if newest else self._points_of(best)
        if not len(cloud):
            raise ReconstructionError(
                f'the map of {len(best)} keyframes is empty: no voxel was seen by map.min_views '
                f'({self._config.map.min_views}) of them')
        for piece in self._pieces:
            if piece is not best:
                piece.remove()
        best.move(self._folder / 'keyframes')
        return Reconstructed(
            cloud, best, tuple(self._windows),
            {**self._reconstructor.statistics(), **self._backend.statistics()}, self._scale,
            ended, len(self._pieces))

    def _read(self, stopped: Callable[[], bool], tell: Callable[[Progress], None]) -> str:
        try:
            for frame in self._source.frames():
                if stopped():
                    return 'interrupted'
                try:
                    self._reconstructor.add(frame)
                except InputError as error:
                    self._notices.warn('image', f'an image is left out: {error}', each=True)
                self._process_ready(stopped, tell)
                self._tell(tell)
        except InputError as error:
            if not self._windows:
                raise
            self._notices.warn('source', str(error))
            return str(error)
        return 'interrupted' if stopped() else 'complete'

    def _process_ready(
        self, stopped: Callable[[], bool], tell: Callable[[Progress], None],
        partial: bool = False,
    ) -> bool:
        """Process windows; return whether none was left for having been stopped."""
        while not stopped():
            window = self._reconstructor.take(partial)
            if window is None:
                return True
            self._process(window)
            self._tell(tell)
        return False

    def _tell(self, tell: Callable[[Progress], None]) -> None:
        lost = sum(bool(window.problem) for window in self._windows)
        tell(Progress(
            self._source.read, self._reconstructor.statistics()['keyframes'],
            len(self._windows) - lost, lost))

    def _process(self, window: Window) -> None:
        stamps = [keyframe.stamp_ns for keyframe in window.keyframes]
        report = WindowReport(stamps[0], stamps[-1], len(stamps), 0.0)
        start_s = time.monotonic()
        try:
            submap = self._reconstructor.process(window)
        except ExportError:
            raise
        except ReconstructionError as error:
            report = self._lost(report, 'failed', error)
        except AlignmentError as error:
            report = self._lost(report, 'rejected', error)
        except Exception as error:  # whatever it is, the next window may work
            require_gpu(torch.device(self._config.device))
            LOGGER.exception('a window failed for a reason that nobody has thought of')
            report = self._lost(report, 'failed', repr(error))
        else:
            assert submap is not None  # nobody resets the map
            self._keep(submap, window)
            report = replace(
                report, new_keyframes=len(submap.new_ids), residual_m=submap.residual_m,
                inliers=submap.inliers, scale_source=submap.scale.source,
                scale=submap.scale.factor, scale_residual=submap.scale.residual)
        self._windows.append(replace(report, seconds=time.monotonic() - start_s))

    def _lost(self, report: WindowReport, verb: str, reason: object) -> WindowReport:
        self._notices.warn(
            f'window_{verb}', f'a window of {report.keyframes} keyframes {verb}: {reason}')
        return replace(report, problem=f'{verb}: {reason}')

    def _keep(self, submap: Submap, window: Window) -> None:
        if submap.new_segment or not self._pieces:
            # Not their number now: pieces join.
            self._pieces.append(KeyframeStore(self._folder / f'piece_{self._begun}'))
            self._begun += 1
        store, poses = self._pieces[-1], self._reconstructor.map_from_views()
        store.forget(submap.gone)
        by_id = {keyframe.id: keyframe for keyframe in window.keyframes}
        # Those that were seen before, too: their depth is that of both windows now.
        for view in submap.views:
            keyframe = by_id[view.keyframe_id]
            store.add(
                _record(view, keyframe, self._source.name(keyframe.stamp_ns), submap),
                scale_of(poses[view.keyframe_id]))
        if submap.moved:
            # Places that were recognised have joined pieces.
            for piece in self._pieces[:-1]:
                if poses.keys() & set(piece.ids()):
                    store.absorb(piece)
                    self._pieces.remove(piece)
        # Where keyframes were before, and whatever has moved.
        store.update_poses(poses)
        self._scale = submap.scale
        if submap.warning:
            self._notices.warn('window_doubtful', submap.warning)

    def _points_of(self, store: KeyframeStore) -> PointCloud:
        """Return the map of keyframes that the pipeline has forgotten."""
        voxels = VoxelMap(self._config.map)
        for record in store:
            voxels.insert(record.prediction(), record.map_from_camera)
        return voxels.points()

    def _nothing(self, ended: str) -> str:
        keyframes = self._reconstructor.statistics()['keyframes']
        if self._windows:
            return f'no map came out of {len(self._windows)} windows: {self._windows[-1].problem}'
        if ended == 'interrupted':
            return 'interrupted before the first window was done'
        least = min(2, self._config.window.size)
        why = next(iter(reversed(self._notices.first.values())), '')
        if why and not keyframes:
            return f'not one of {self._source.read} images could be used; {why}'
        return (
            f'{keyframes} of {self._source.read} images became keyframes, and a window takes '
            f'{least} at least (MapAnything takes one, too: --set window.size=1 --set '
            'window.overlap=0 --set map.min_views=1)' + (f'; {why}' if why else ''))


def _record(view: Prediction, keyframe: Keyframe, name: str, submap: Submap) -> KeyframeRecord:
    depth_m = torch.where(view.mask, view.depth_m, torch.nan)
    return KeyframeRecord(
        keyframe.id, keyframe.stamp_ns, name, view.rgb.cpu().numpy(), view.intrinsics,
        depth_m.cpu().numpy(), view.confidence.cpu().numpy(), submap.map_from_camera(view),
        keyframe.frame_id, keyframe.odom_from_camera, keyframe.base_from_camera)
