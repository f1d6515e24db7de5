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

"""A finished cloud is cleaned without harm to what is right."""

from helpers import distance_to_room
import numpy as np
import pytest
from stores import box_record, cloud_of, inward, store_of

from mapanything_ros.core.errors import ExportError
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.offline.export.finishing import (
    at_voxel_size,
    oriented_normals,
    without_outliers,
)

RECORDS = [box_record(index) for index in range(0, 24, 4)]
CLOUD = cloud_of(RECORDS, step=7)


def test_stray_points_go_and_surfaces_stay():
    random = np.random.default_rng(1)
    stray = random.uniform([0.8, 0.8, 0.5], [4.2, 3.2, 2.0], (60, 3)).astype(np.float32)
    dirty = PointCloud(
        np.concatenate([CLOUD.xyz, stray]), np.concatenate([CLOUD.rgb, CLOUD.rgb[:60]]))
    clean = without_outliers(dirty)
    assert (distance_to_room(dirty.xyz) > 0.1).sum() == 60
    assert (distance_to_room(clean.xyz) > 0.1).sum() <= 3
    assert len(clean) > 0.95 * len(CLOUD)
    # Each point keeps its own colour.
    rows = {tuple(point): tuple(colour)
            for point, colour in zip(dirty.xyz, dirty.rgb, strict=True)}
    assert all(rows[tuple(point)] == tuple(colour)
               for point, colour in zip(clean.xyz, clean.rgb, strict=True))


def test_fewer_points_than_neighbours_are_left_alone():
    few = PointCloud(CLOUD.xyz[:20], CLOUD.rgb[:20])
    assert without_outliers(few) is few


def test_a_voxel_keeps_the_mean_of_its_points_and_colours():
    points = np.array([[0.01, 0.01, 0.01], [0.03, 0.01, 0.01], [0.51, 0.5, 0.5]], np.float32)
    colours = np.array([[10, 0, 255], [30, 0, 255], [7, 8, 9]], np.uint8)
    thin = at_voxel_size(PointCloud(points, colours), 0.2)
    order = thin.xyz[:, 0].argsort()
    np.testing.assert_allclose(
        thin.xyz[order], [[0.02, 0.01, 0.01], [0.51, 0.5, 0.5]], atol=1e-6)
    np.testing.assert_array_equal(thin.rgb[order], [[20, 0, 255], [7, 8, 9]])


def test_normals_are_those_of_the_walls_and_point_into_the_room(tmp_path):
    normals = oriented_normals(CLOUD, store_of(tmp_path, RECORDS))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-9)
    cosine = np.einsum('ni,ni->n', normals, inward(CLOUD.xyz))
    # In corners of the room a normal is between those of two walls.
    assert np.mean(cosine > 0.99) > 0.9
    assert np.mean(cosine < -0.3) < 0.001


def test_without_depth_nothing_says_which_way_normals_point(tmp_path):
    with pytest.raises(ExportError, match='no keyframe has depth'):
        oriented_normals(CLOUD, store_of(tmp_path, []))
