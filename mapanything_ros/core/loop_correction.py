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

"""Corrects the path when the camera comes back to a place."""

from __future__ import annotations

from collections.abc import Sequence

from mapanything_ros.core.config import LoopClosureConfig
from mapanything_ros.core.datatypes import Array, Keyframe, Submap
from mapanything_ros.core.libraries import require_libraries
from mapanything_ros.core.loop_closure import LoopClosure
from mapanything_ros.core.pose_graph import PoseGraph


class LoopCorrection:
    """Finds loops in the keyframes of windows, and fits the path to them."""

    def __init__(self, config: LoopClosureConfig) -> None:
        """Raise MissingLibraryError where Open3D, which corrects the path, is missing."""
        require_libraries(('open3d',), 'loop_closure.enabled', 'offline')
        self._closure = LoopClosure(config)
        self._graph = PoseGraph()
        self._closed = 0

    def clear(self) -> None:
        """Forget all keyframes."""
        self._closure.clear()
        self._graph.clear()

    def add(self, submap: Submap, keyframes: Sequence[Keyframe]) -> dict[int, Array]:
        """Take a window in; return the new ``map_from_camera`` (4,4) of all that has to move."""
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        self._graph.add_window(submap, {
            keyframe.id: keyframe.odom_from_camera for keyframe in keyframes
            if keyframe.odom_from_camera is not None})
        edges = [
            edge for view in submap.views if view.keyframe_id in submap.new_ids
            for edge in self._closure.add(
                by_id[view.keyframe_id], view, submap.map_from_camera(view))]
        if not edges:
            return {}
        self._graph.add_loops(edges)
        poses = self._graph.optimize()
        self._closure.repose(poses)
        self._closed += bool(poses)
        return poses

    def statistics(self) -> dict[str, int]:
        """Return counts since the start: corrections, loops removed by the graph, and refusals."""
        return {
            'loop_corrections': self._closed, 'loop_removed': self._graph.removed,
            **self._closure.statistics()}
