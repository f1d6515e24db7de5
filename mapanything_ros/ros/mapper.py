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

"""One window from the reconstructor to the topics; runs in the worker's threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as bind
from threading import Lock
import time
import traceback

from rclpy.clock import Clock
from rclpy.impl.rcutils_logger import RcutilsLogger
import torch

from mapanything_ros.core.config import Config, TfConfig
from mapanything_ros.core.datatypes import Scale, Submap
from mapanything_ros.core.device import require_gpu, SideStream
from mapanything_ros.core.errors import (
    AlignmentError,
    GpuLostError,
    ReconstructionError,
    WindowTooLargeError,
)
from mapanything_ros.core.reconstructor import InferredWindow, Reconstructor, Window
from mapanything_ros.ros.publishers import Publishers
from mapanything_ros.ros.reporter import Reporter
from mapanything_ros.ros.tf_output import TfOutput


@dataclass
class Progress:
    """What became of the windows so far, for the diagnostics."""

    windows: int = 0
    windows_failed: int = 0
    infer_s: float = float('nan')
    place_s: float = float('nan')
    publish_s: float = float('nan')
    latency_s: float = float('nan')
    residual_m: float = float('nan')
    inliers: float = float('nan')
    scale: Scale | None = None

    def values(self) -> dict[str, object]:
        """Return the numbers by the names that they have in the diagnostics."""
        scale = self.scale or Scale('unknown', float('nan'))
        return {
            'windows': self.windows,
            'windows_failed': self.windows_failed,
            'infer_s': f'{self.infer_s:.3f}',
            'place_s': f'{self.place_s:.3f}',
            'publish_s': f'{self.publish_s:.3f}',
            'latency_s': f'{self.latency_s:.3f}',
            'alignment_residual_m': f'{self.residual_m:.4f}',
            'alignment_inliers': f'{self.inliers:.3f}',
            'scale_source': scale.source,
            'scale': f'{scale.factor:.4f}',
            'scale_residual': f'{scale.residual:.4f}',
        }


class Mapper:
    """
    Takes a window, reconstructs it and publishes what it made.

    ``infer`` runs in one of the worker's threads; what it returns, ``idle`` and ``clear`` in the
    other; ``publish_map`` may be called from any.
    """

    def __init__(
        self, config: Config, reconstructor: Reconstructor, publishers: Publishers,
        tf_output: TfOutput, reporter: Reporter, logger: RcutilsLogger, clock: Clock,
        on_gpu_lost: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._period_s = config.map.period_s
        self._full_period_s = config.map.full_period_s
        self._reconstructor = reconstructor
        self._publishers = publishers
        self._tf_output = tf_output
        self._reporter = reporter
        self._logger = logger
        self._device = torch.device(config.device)
        self._beside = SideStream(self._device)
        self._on_gpu_lost = on_gpu_lost
        self._gpu_lost = False
        # Held while publishing, so that nothing of the old map comes after a reset.
        self._lock = Lock()
        self._has_map = False
        # What came since the last update, since the path and since the whole map went out.
        self._map_changed = False
        self._map_published_s = float('-inf')
        self._path_changed = False
        self._whole_changed = False
        self._whole_published_s = float('-inf')
        self._newest_ns = 0
        self.progress = Progress()

    def infer(self, partial: bool) -> Callable[[], str] | None:
        """Reconstruct the next window, if there is one; return what places and publishes it."""
        if self._gpu_lost:
            return None
        window = self._reconstructor.take(partial)
        if window is None:
            return None
        start_s = time.monotonic()
        try:
            inferred = self._reconstructor.infer(window)
        except Exception as error:  # whatever it is, the next window may work
            return bind(str, self._failed(window, error))
        return bind(self._place, inferred, time.monotonic() - start_s)

    def idle(self) -> None:
        """Publish what has changed and was not due, or not wanted, before."""
        try:
            with self._lock:
                self._publish_map()
        except Exception as error:
            self._failed(None, error)

    def clear(self) -> None:
        """Forget the map of before the reconstructor's restart, and publish that."""
        with self._lock:
            self._has_map = False
            self._reconstructor.clear()
            self._tf_output.reset(self._clock.now().nanoseconds)
            # In place of what subscribers would get that come later.
            if not self._publishers.wanted('map'):
                self._publishers.publish_map(self._reconstructor.map_points(), self._newest_ns)
            if not self._publishers.wanted('path'):
                self._publishers.publish_path([], self._newest_ns)
            self._map_changed = False
            self._path_changed = self._whole_changed = True
            self._publish_at_once()

    def take_frames(self, tf: TfConfig) -> None:
        """Take the names of frames that odometry gives."""
        self._tf_output.take_frames(tf)
        self._publishers.take_frames(tf)

    def publish_map(self) -> None:
        """Publish, where somebody listens, the map as it is, maybe none, and the path if new."""
        if not self.progress.windows:
            return
        with self._lock:
            self._path_changed = self._whole_changed = True
            self._publish_at_once()

    def _publish_at_once(self) -> None:
        self._map_published_s = self._whole_published_s = float('-inf')
        self._publish_map()

    def _publish_map(self) -> None:
        """Publish what has changed, and the whole map where its time has come."""
        now_s = time.monotonic()
        due = now_s - self._map_published_s >= self._period_s
        if self._map_changed and due:
            self._map_changed = False
            self._map_published_s = now_s
            if self._publishers.wanted('map_updates'):
                self._publishers.publish_map_updates(
                    self._reconstructor.map_updates(), self._newest_ns)
        if self._path_changed and due and self._publishers.wanted('path'):
            self._path_changed = False
            self._publishers.publish_path(self._reconstructor.trajectory(), self._newest_ns)
        due = now_s - self._whole_published_s >= self._full_period_s
        if self._whole_changed and due and self._publishers.wanted('map'):
            self._whole_changed = False
            self._whole_published_s = now_s
            self._publishers.publish_map(self._reconstructor.map_points(), self._newest_ns)

    def _failed(self, window: Window | None, error: Exception) -> str:
        """Report what went wrong with a window, or with publishing; return it as a sentence."""
        what = f'a window of {len(window.keyframes)} keyframes' if window else 'publishing the map'
        text, kind, sentence = f'{what} failed: {error}', 'window_failed', ''
        if isinstance(error, WindowTooLargeError):
            # Each step that makes windows smaller is said.
            sentence = f'fits {error.fits}'
        elif isinstance(error, AlignmentError):
            text, kind = f'{what} rejected: {error}', 'window_rejected'
        elif not isinstance(error, ReconstructionError):
            if self._lose_gpu():
                return 'the GPU is lost'
            self._logger.error(''.join(traceback.format_exception(error)))
            text, kind = f'{what} failed: {error!r}', 'window_error'
        self._reporter.warn(kind, text, sentence)
        with self._lock:
            self.progress.windows_failed += 1
        return text

    def _lose_gpu(self) -> bool:
        """Say, once, if no window will ever be reconstructed again."""
        try:
            require_gpu(self._device)
        except GpuLostError as error:
            if not self._gpu_lost:
                self._gpu_lost = True
                self._on_gpu_lost(str(error))
        return self._gpu_lost

    def _place(self, inferred: InferredWindow, infer_s: float) -> str:
        window, start_s = inferred.window, time.monotonic()
        try:
            with self._beside():
                submap = self._reconstructor.place(inferred)
                placed_s = time.monotonic()
                with self._lock:
                    if submap is None or not self._reconstructor.is_current(window):
                        return 'the map was reset while the window was reconstructed'
                    self._publish(submap, window)
        except Exception as error:  # whatever it is, the next window may work
            return self._failed(window, error)
        self.progress.windows += 1
        self.progress.infer_s = infer_s
        self.progress.place_s = placed_s - start_s
        self.progress.publish_s = time.monotonic() - placed_s
        # From the newest image to the topics; a stack that keeps 10 s of TF drops older clouds.
        self.progress.latency_s = (self._clock.now().nanoseconds - self._newest_ns) * 1e-9
        self.progress.residual_m = submap.residual_m
        self.progress.inliers = submap.inliers
        self.progress.scale = submap.scale
        return (
            f'{len(submap.views)} of {len(window.keyframes)} keyframes reconstructed, '
            f'{len(submap.new_ids)} of them new')

    def _publish(self, submap: Submap, window: Window) -> None:
        self._newest_ns = window.keyframes[-1].stamp_ns
        self._tf_output.correct(self._reconstructor.map_from_odom())
        self._tf_output.send_keyframes(submap, window.keyframes)
        self._publishers.publish_window(submap, window.keyframes)
        self._map_changed = self._path_changed = self._whole_changed = True
        if submap.new_segment:
            # Who adds up changes learns only from the whole map that the old one is gone.
            self._whole_published_s = float('-inf')
        self._publish_map()
        if submap.warning:
            self._reporter.warn('window_doubtful', submap.warning)
        if submap.new_segment and self._has_map:
            self._reporter.warn(
                'new_segment', 'nothing ties a window to the map (a keyframe that both hold, '
                'odometry, metres in both): a new map starts, and the old one is put aside until '
                'a place of it is recognised (loop_closure.enabled)')
        self._has_map = True
