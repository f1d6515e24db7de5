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

"""Packed points are those of the depth image, as other tools compute them."""

from helpers import BASE_FROM_CAMERA, camera_on_path, HEIGHT, K, transformed, view_room, WIDTH
import numpy as np
import open3d
import pytest
import torch

from mapanything_ros.core.datatypes import Prediction
from mapanything_ros.core.map.packing import pack_cloud, pack_points, unpack
from mapanything_ros.core.map.voxel_map import PointCloud


@pytest.fixture
def view() -> Prediction:
    rgb, depth_m = view_room(camera_on_path(3))
    depth = torch.from_numpy(depth_m)
    return Prediction(
        3, torch.from_numpy(rgb), depth, torch.ones_like(depth), depth > 0, K, np.eye(4))


@pytest.mark.parametrize('target_from_camera', [np.eye(4), BASE_FROM_CAMERA])
def test_points_are_those_of_open3d(view, target_from_camera):
    depth = open3d.geometry.Image(view.depth_m.numpy())
    lens = open3d.camera.PinholeCameraIntrinsic(WIDTH, HEIGHT, K)
    cloud = open3d.geometry.PointCloud.create_from_depth_image(
        depth, lens, np.linalg.inv(target_from_camera), depth_scale=1.0, depth_trunc=100.0)
    packed = unpack(pack_points(view, target_from_camera))
    assert np.allclose(packed.xyz, np.asarray(cloud.points), atol=2e-6)
    assert np.array_equal(packed.rgb, view.rgb[view.mask].numpy())


def test_points_match_the_prediction(view):
    points = view.points_in_camera()[view.mask].numpy()
    packed = pack_points(view, BASE_FROM_CAMERA)
    assert packed.shape == (len(points), 4)
    assert packed.is_contiguous()
    assert np.allclose(packed[:, :3], transformed(BASE_FROM_CAMERA, points), atol=2e-6)


def test_no_pixel_no_point(view):
    view.mask[:] = False
    assert pack_points(view, np.eye(4)).shape == (0, 4)
    assert len(unpack(pack_points(view, np.eye(4)))) == 0


@pytest.mark.parametrize('count', [0, 1, 100])
def test_a_cloud_there_and_back(count):
    random = np.random.default_rng(0)
    cloud = PointCloud(
        random.normal(size=(count, 3)).astype(np.float32),
        random.integers(0, 256, (count, 3)).astype(np.uint8))
    again = unpack(pack_cloud(cloud))
    assert np.array_equal(again.xyz, cloud.xyz)
    assert np.array_equal(again.rgb, cloud.rgb)
