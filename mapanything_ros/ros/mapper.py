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

"""One window from the reconstructor to the topics; runs in the worker's thread."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
import time
import traceback

from rclpy.clock import Clock
from rclpy.impl.rcutils_logger import RcutilsLogger

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Scale, Submap
from mapanything_ros.core.errors import (
    AlignmentError,
    ReconstructionError,
    WindowTooLargeError,
)
from mapanything_ros.core.reconstructor import Reconstructor, Window
from mapanything_ros.ros.publishers import Publishers
from mapanything_ros.ros.reporter import Reporter
from mapanything_ros.ros.tf_output import TfOutput


@dataclass
class Progress:
    """What became of the windows so far, for the diagnostics."""

    windows: int = 0
    windows_failed: int = 0
    reconstruct_s: float = float('nan')
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
            'reconstruct_s': f'{self.reconstruct_s:.3f}',
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

    ``work`` runs in the worker's thread, ``reset`` and ``publish_map`` may be called from others.
    """

    def __init__(
        self, config: Config, reconstructor: Reconstructor, publishers: Publishers,
        tf_output: TfOutput, reporter: Reporter, logger: RcutilsLogger, clock: Clock,
    ) -> None:
        self._clock = clock
        self._period_s = config.map.period_s
        self._full_period_s = config.map.full_period_s
        self._reconstructor = reconstructor
        self._publishers = publishers
        self._tf_output = tf_output
        self._reporter = reporter
        self._logger = logger
        # Held while publishing, so that nothing of the old map comes after a reset.
        self._lock = Lock()
        self._generation = 0
        self._has_map = False
        # What came since the last update, and since the whole map went out.
        self._map_changed = False
        self._map_published_s = float('-inf')
        self._whole_changed = False
        self._whole_published_s = float('-inf')
        self._newest_ns = 0
        self.progress = Progress()

    def work(self, partial: bool) -> str | None:
        """Process the next window, if there is one; the sentence says what came of it."""
        with self._lock:
            generation, window = self._generation, self._reconstructor.take(partial)
        try:
            if window is not None:
                return self._process(window, generation)
            with self._lock:
                if self._map_changed:
                    self._publish_map()
                else:
                    self._publish_whole_map()
            return None
        except WindowTooLargeError as error:
            # Each step that makes windows smaller is said.
            return self._failed(
                'window_failed', f'{_described(window)} failed: {error}', f'fits {error.fits}')
        except ReconstructionError as error:
            return self._failed('window_failed', f'{_described(window)} failed: {error}')
        except AlignmentError as error:
            return self._failed('window_rejected', f'{_described(window)} rejected: {error}')
        except Exception as error:  # whatever it is, the next window may work
            self._logger.error(traceback.format_exc())
            return self._failed('window_error', f'{_described(window)} failed: {error!r}')

    def reset(self) -> None:
        """Forget the map and publish that; of a window in flight nothing is published any more."""
        with self._lock:
            self._generation += 1
            self._has_map = False
            self._reconstructor.reset()
            self._tf_output.reset(self._clock.now().nanoseconds)
            # In place of the map that late subscribers would get.
            self._publishers.publish_map(self._reconstructor.map_points(), self._newest_ns)
            self._publish_map()

    def publish_map(self) -> None:
        """Publish the map, where somebody listens, and the path as they are now."""
        with self._lock:
            self._whole_changed = True
            self._whole_published_s = float('-inf')
            self._publish_map()

    def _publish_map(self) -> None:
        """Publish what has changed, and the whole map where its time has come."""
        self._map_changed = False
        self._map_published_s = time.monotonic()
        if self._publishers.map_updates_wanted():
            self._publishers.publish_map_updates(
                self._reconstructor.map_updates(), self._newest_ns)
        self._publish_whole_map()
        self._publishers.publish_path(self._reconstructor.trajectory(), self._newest_ns)

    def _publish_whole_map(self) -> None:
        now_s = time.monotonic()
        due = self._whole_changed and now_s - self._whole_published_s >= self._full_period_s
        if due and self._publishers.map_wanted():
            self._whole_changed = False
            self._whole_published_s = now_s
            self._publishers.publish_map(self._reconstructor.map_points(), self._newest_ns)

    def _failed(self, kind: str, text: str, sentence: str = '') -> str:
        self._reporter.warn(kind, text, sentence)
        self.progress.windows_failed += 1
        return text

    def _process(self, window: Window, generation: int) -> str:
        start_s = time.monotonic()
        submap = self._reconstructor.process(window)
        done_s = time.monotonic()
        with self._lock:
            if submap is None or generation != self._generation:
                return 'the map was reset while the window was reconstructed'
            self._publish(submap, window, done_s)
        self.progress.windows += 1
        self.progress.reconstruct_s = done_s - start_s
        self.progress.publish_s = time.monotonic() - done_s
        # From the newest image to the topics; a stack that keeps 10 s of TF drops older clouds.
        self.progress.latency_s = (self._clock.now().nanoseconds - self._newest_ns) * 1e-9
        self.progress.residual_m = submap.residual_m
        self.progress.inliers = submap.inliers
        self.progress.scale = submap.scale
        return (
            f'{len(submap.views)} of {len(window.keyframes)} keyframes reconstructed, '
            f'{len(submap.new_ids)} of them new')

    def _publish(self, submap: Submap, window: Window, now_s: float) -> None:
        self._newest_ns = window.keyframes[-1].stamp_ns
        self._tf_output.correct(self._reconstructor.map_from_odom())
        self._tf_output.send_keyframes(submap, window.keyframes)
        self._publishers.publish_window(submap, window.keyframes)
        self._map_changed = self._whole_changed = True
        if submap.new_segment:
            # Who adds up changes learns only from the whole map that the old one is gone.
            self._whole_published_s = float('-inf')
        if now_s - self._map_published_s >= self._period_s:
            self._publish_map()
        if submap.warning:
            self._reporter.warn('window_doubtful', submap.warning)
        if submap.new_segment and self._has_map:
            self._reporter.warn(
                'new_segment', 'nothing ties a window to the map (a keyframe that both hold, '
                'odometry, metres in both): the old map is dropped and a new one starts')
        self._has_map = True


def _described(window: Window | None) -> str:
    return f'a window of {len(window.keyframes)} keyframes' if window else 'publishing the map'
