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
import time
import traceback

from rclpy.impl.rcutils_logger import RcutilsLogger

from mapanything_ros.core.config import Config
from mapanything_ros.core.datatypes import Scale
from mapanything_ros.core.errors import AlignmentError, ReconstructionError
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
    residual_m: float = float('nan')
    scale: Scale | None = None

    def values(self) -> dict[str, object]:
        """Return the numbers by the names that they have in the diagnostics."""
        scale = self.scale or Scale('unknown', float('nan'))
        return {
            'windows': self.windows,
            'windows_failed': self.windows_failed,
            'reconstruct_s': f'{self.reconstruct_s:.3f}',
            'publish_s': f'{self.publish_s:.3f}',
            'alignment_residual_m': f'{self.residual_m:.4f}',
            'scale_source': scale.source,
            'scale': f'{scale.factor:.4f}',
            'scale_residual': f'{scale.residual:.4f}',
        }


class Mapper:
    """Takes a window, reconstructs it and publishes what it made."""

    def __init__(
        self, config: Config, reconstructor: Reconstructor, publishers: Publishers,
        tf_output: TfOutput, reporter: Reporter, logger: RcutilsLogger,
    ) -> None:
        self._period_s = config.map.period_s
        self._reconstructor = reconstructor
        self._publishers = publishers
        self._tf_output = tf_output
        self._reporter = reporter
        self._logger = logger
        self._map_changed = False
        self._map_published_s = float('-inf')
        self._newest_ns = 0
        self.progress = Progress()

    def work(self, partial: bool) -> str | None:
        """Process the next window, if there is one; the sentence says what came of it."""
        window = self._reconstructor.take(partial)
        if window is None:
            if self._map_changed:
                self.publish_map()
            return None
        try:
            return self._process(window)
        except (ReconstructionError, AlignmentError) as error:
            kind = 'rejected' if isinstance(error, AlignmentError) else 'failed'
            self._reporter.warn(
                f'window_{kind}', f'a window of {len(window.keyframes)} keyframes {kind}: {error}')
        except Exception as error:  # whatever it is, the next window may work
            self._logger.error(traceback.format_exc())
            self._reporter.warn('window_error', f'a window failed: {error!r}')
        self.progress.windows_failed += 1
        return self._reporter.latest

    def publish_map(self) -> None:
        """Publish the map and the path as they are now."""
        self._map_changed = False
        self._map_published_s = time.monotonic()
        self._publishers.publish_map(
            self._reconstructor.map_points(), self._reconstructor.trajectory(), self._newest_ns)

    def _process(self, window: Window) -> str:
        start_s = time.monotonic()
        submap = self._reconstructor.process(window)
        if submap is None:
            return 'the map was reset while the window was reconstructed'
        done_s = time.monotonic()
        self._newest_ns = window.keyframes[-1].stamp_ns
        self._tf_output.send_keyframes(submap, window.keyframes)
        self._publishers.publish_window(submap, window.keyframes)
        self._map_changed = True
        if done_s - self._map_published_s >= self._period_s:
            self.publish_map()
        if submap.new_segment and self.progress.windows:
            self._reporter.warn(
                'new_segment', 'a window shares no keyframe with the map and no odometry ties '
                'them: the old map is dropped and a new one starts at the last camera pose')
        self.progress.windows += 1
        self.progress.reconstruct_s = done_s - start_s
        self.progress.publish_s = time.monotonic() - done_s
        self.progress.residual_m = submap.residual_m
        self.progress.scale = submap.scale
        return (
            f'{len(submap.views)} of {len(window.keyframes)} keyframes reconstructed, '
            f'{len(submap.new_ids)} of them new')
