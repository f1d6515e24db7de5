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

"""The keyframe topics as the stacks downstream use them, over DDS, against the true room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from exact_sync import ExactSync
from helpers import (
    back_projected,
    BASE_FROM_CAMERA,
    colour_of_room,
    distance_to_room,
    halved,
    HEIGHT,
    intrinsics_of,
    K,
    ODOM_FROM_WORLD,
    pixels_of,
    points_of,
    ROOM_M,
    Seen,
    stamp_of,
    transformed,
    view_room,
    WIDTH,
)
import numpy as np
from octomap import OcTree
import open3d
import pytest
from robot import KEYFRAME_TOPICS, ODOMETRY, Robot
from sensor_msgs_py.point_cloud2 import read_points
from tf_tree import SIMULATED, TfTree

KEYFRAMES = 24
STEP = 2  # of the path: 20 cm, 14 degrees
WINDOW = {'window.size': 6, 'window.overlap': 3}
MODES = {
    'map_to_odom': {**ODOMETRY, **WINDOW},
    'map_to_camera': {'tf.base_frame': 'base', **WINDOW},
}
TSDF_VOXEL_M, TRUNCATION_M, CUBE_M = 0.05, 0.15, 7.0
OCTREE_M = 0.1
# How far the centre of a voxel can be from what lies in it, but for rounding.
HALF_DIAGONAL_M = OCTREE_M * np.sqrt(3) / 2 + 1e-4
FREE, OCCUPIED = 0, 1


@dataclass(frozen=True)
class Walk:
    """What was seen on the way round, and what came of it, in order."""

    robot: Robot
    tree: TfTree
    seen: list[Seen]
    sets: list[dict[str, Any]]
    map_from_world: np.ndarray

    def scans(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Give each keyframe's messages and ``map_from_camera`` by TF at their stamp."""
        for messages in self.sets:
            yield messages, self.tree.map_from(
                messages['points'].header.frame_id, stamp_of(messages['points']))

    def true_points_of(self, seen: Seen) -> np.ndarray:
        """Return what a keyframe truly saw (N,3), in the map."""
        depth = view_room(seen.world_from_camera, halved(K), WIDTH // 2, HEIGHT // 2)[1]
        depth[depth == 0] = np.nan
        return transformed(
            self.map_from_world @ seen.world_from_camera, back_projected(depth, halved(K)))

    def true_points(self) -> np.ndarray:
        return np.concatenate([self.true_points_of(seen) for seen in self.seen])


@pytest.fixture(scope='module', params=MODES)
def walk(request, start_shared) -> Iterator[Walk]:
    """Walk once round the room, while somebody synchronises the outputs."""
    mode = request.param
    robot = start_shared({**MODES[mode], **SIMULATED})
    tree = TfTree(robot)
    sync = ExactSync(
        robot, {f'/mapanything/keyframe/{name}': kind for name, kind in KEYFRAME_TOPICS.items()})
    robot.wait_for_connections()
    robot.tick(robot.next_ns)
    robot.mount()
    robot.calibrate()
    seen: list[Seen] = []
    for number in range(1, KEYFRAMES + 1):
        robot.index = STEP * number
        seen.append(robot.see())
        robot.wait_for(lambda n=number: robot.keyframes_taken() == n, 'a keyframe')
        if number >= 6 and number % 3 == 0:
            robot.keyframe(seen[-1].stamp_ns)
    robot.wait_for(lambda: len(sync.sets) == KEYFRAMES, 'a whole set')
    assert not sync.dropped
    sets = [{topic.rpartition('/')[2]: m for topic, m in found.items()} for found in sync.sets]
    map_from_world = ODOM_FROM_WORLD if mode == 'map_to_odom' else (
        BASE_FROM_CAMERA @ np.linalg.inv(seen[0].world_from_camera))
    yield Walk(robot, tree, seen, sets, map_from_world)
    tree.listener.unregister()


# nvblox: depth and camera_info by exact stamp, TF at that stamp, integrated in a TSDF


@pytest.fixture(scope='module')
def mesh(walk) -> open3d.geometry.TriangleMesh:
    """Integrate depth and colour where TF has the camera; give the mesh in the world."""
    centre = transformed(walk.map_from_world, ROOM_M[None] / 2)[0]
    # ScalableTSDFVolume of Open3D 0.20 stays empty, whatever is integrated.
    volume = open3d.pipelines.integration.UniformTSDFVolume(
        CUBE_M, round(CUBE_M / TSDF_VOXEL_M), TRUNCATION_M,
        open3d.pipelines.integration.TSDFVolumeColorType.RGB8, origin=centre - CUBE_M / 2)
    for messages, map_from_camera in walk.scans():
        k = intrinsics_of(messages['camera_info'])
        picture = open3d.geometry.RGBDImage.create_from_color_and_depth(
            open3d.geometry.Image(np.ascontiguousarray(pixels_of(messages['image']))),
            open3d.geometry.Image(np.ascontiguousarray(pixels_of(messages['depth']))),
            depth_scale=1.0, depth_trunc=10.0, convert_rgb_to_intensity=False)
        lens = open3d.camera.PinholeCameraIntrinsic(
            messages['camera_info'].width, messages['camera_info'].height, k)
        volume.integrate(picture, lens, np.linalg.inv(map_from_camera))
    return volume.extract_triangle_mesh()


def outside_m(points: np.ndarray) -> np.ndarray:
    """Return how far points (N,3) in the world are outside of the room."""
    return np.maximum(-points, points - ROOM_M).max(axis=1)


def in_world(walk: Walk, points: np.ndarray) -> np.ndarray:
    return transformed(np.linalg.inv(walk.map_from_world), points)


def test_the_mesh_lies_on_the_true_surfaces(walk, mesh):
    world = in_world(walk, np.asarray(mesh.vertices))
    assert len(world) > 15000
    off_m = distance_to_room(world)
    # Only the room's corners are rounded.
    assert np.percentile(off_m, 95) < 0.01
    assert off_m.max() < TSDF_VOXEL_M / 2
    assert outside_m(world).max() < TSDF_VOXEL_M / 2


def test_the_mesh_covers_what_was_seen(walk, mesh):
    seen = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(walk.true_points()))
    gap_m = seen.compute_point_cloud_distance(open3d.geometry.PointCloud(mesh.vertices))
    assert np.mean(np.array(gap_m) < TSDF_VOXEL_M) > 0.999
    assert np.max(gap_m) < 2 * TSDF_VOXEL_M


def test_the_mesh_has_the_colours_of_the_room(walk, mesh):
    truth = colour_of_room(in_world(walk, np.asarray(mesh.vertices)))
    error = np.abs(255 * np.asarray(mesh.vertex_colors) - truth)
    assert np.median(error) < 2
    assert np.percentile(error, 95) < 8


# octomap_server: rays from the cloud's frame at the cloud's stamp to its points


def scanned(scans: Sequence[tuple[dict[str, Any], np.ndarray]]) -> OcTree:
    """Insert clouds, each from where its sensor was."""
    tree = OcTree(OCTREE_M)
    for messages, map_from_camera in scans:
        xyz, _ = points_of(messages['points'])
        tree.insertPointCloud(
            transformed(map_from_camera, xyz.astype(float)), map_from_camera[:3, 3].copy())
    return tree


@pytest.fixture(scope='module')
def octree(walk) -> OcTree:
    return scanned(list(walk.scans()))


def test_occupied_voxels_hold_the_true_surfaces_and_nothing_else(walk, octree):
    occupied, free = (in_world(walk, voxels) for voxels in octree.extractPointCloud())
    assert len(occupied) > 4000
    assert len(free) > 20000
    assert distance_to_room(occupied).max() < HALF_DIAGONAL_M
    assert outside_m(occupied).max() < HALF_DIAGONAL_M, 'something is behind a wall'
    assert outside_m(free).max() < HALF_DIAGONAL_M, 'rays went through a wall'
    labels = octree.getLabels(walk.true_points())
    assert np.mean(labels == OCCUPIED) > 0.99


def test_space_between_sensor_and_surface_is_cleared(walk, octree):
    on_rays = []
    for seen in walk.seen:
        origin = (walk.map_from_world @ seen.world_from_camera)[:3, 3]
        rays = walk.true_points_of(seen) - origin
        on_rays += [origin + share * rays for share in (0.05, 0.3, 0.6, 0.9)]
    between = np.concatenate(on_rays)
    # No voxel there holds a surface, too.
    between = between[distance_to_room(in_world(walk, between)) > 2 * HALF_DIAGONAL_M]
    assert len(between) > 200000
    labels = octree.getLabels(between)
    assert not np.any(labels == OCCUPIED)
    assert np.mean(labels == FREE) > 0.9999


def test_a_cloud_says_nothing_of_what_is_behind_or_beside_its_sensor(walk):
    for messages, map_from_camera in list(walk.scans())[::8]:
        octree = scanned([(messages, map_from_camera)])
        info = messages['camera_info']
        for voxels in octree.extractPointCloud():
            camera = transformed(np.linalg.inv(map_from_camera), voxels)
            assert camera[:, 2].min() > -HALF_DIAGONAL_M
            far = camera[camera[:, 2] > 1.0]
            pixels = far @ intrinsics_of(info).T
            pixels = pixels[:, :2] / pixels[:, 2:]
            margin_px = HALF_DIAGONAL_M * info.k[0]
            assert (pixels > -margin_px).all()
            assert (pixels < np.array([info.width, info.height]) + margin_px).all()


# depth_image_proc: point_cloud_xyzrgb


def test_keyframe_points_are_to_the_bit_what_depth_image_proc_computes(walk):
    for messages in walk.sets:
        depth = pixels_of(messages['depth'])
        # It reads the projection, and computes in float.
        fx, _, cx, _, _, fy, cy, *_ = messages['camera_info'].p
        v, u = np.nonzero(np.isfinite(depth))
        z = depth[v, u]
        x = (u.astype(np.float32) - np.float32(cx)) * z * np.float32(1 / fx)
        y = (v.astype(np.float32) - np.float32(cy)) * z * np.float32(1 / fy)
        fields = read_points(messages['points'])
        for name, truth in (('x', x), ('y', y), ('z', z)):
            assert fields[name].dtype == truth.dtype == np.float32
            np.testing.assert_array_equal(fields[name], truth)
        np.testing.assert_array_equal(
            points_of(messages['points'])[1], pixels_of(messages['image'])[v, u])
