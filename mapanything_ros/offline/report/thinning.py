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

"""Fewer points, evenly over the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.map.voxel_map import PointCloud


def thinned(cloud: PointCloud, limit: int, spacing: float) -> tuple[PointCloud, float]:
    """
    Return at most ``limit`` points of a cloud, one in each cell of a grid, and the cells' edge.

    The cells are no finer than ``spacing``, the distance between neighbours as they are. Every
    point that is left is one of the cloud, with its own colour.
    """
    if len(cloud) <= limit:
        return cloud, spacing
    edge = spacing
    while True:
        edge *= 1.02
        first = _first_of_each_cell(cloud.xyz.astype(float), edge)
        if len(first) <= limit:
            return PointCloud(cloud.xyz[first], cloud.rgb[first]), edge
        # It falls by the cube of the edge at most, on surfaces by its square: never too far.
        edge *= (len(first) / limit) ** (1 / 3)


def within(cloud: PointCloud, low: Array, high: Array) -> PointCloud:
    """Return the points inside of a box."""
    inside = ((cloud.xyz >= low) & (cloud.xyz <= high)).all(axis=1)
    return PointCloud(cloud.xyz[inside], cloud.rgb[inside])


def _first_of_each_cell(points: Array, edge: float) -> NDArray[np.int64]:
    cells = np.floor((points - points.min(axis=0)) / edge).astype(np.int64)
    sizes = cells.max(axis=0) + 1
    keys = (cells[:, 0] * sizes[1] + cells[:, 1]) * sizes[2] + cells[:, 2]
    return np.sort(np.unique(keys, return_index=True)[1])
