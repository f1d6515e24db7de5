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

"""A COLMAP model loads in pycolmap with the geometry that was put in."""

import resource

import cv2
import numpy as np
import pycolmap
import pytest
import scenes
from stores import cloud_of, points_of, record, room_record, store_of

from mapanything_ros.core.errors import ExportError
from mapanything_ros.offline.export.colmap_model import write_colmap
from mapanything_ros.offline.export.tracks import find_tracks

INDICES = [0, 1, 2, 3, 4, 5]
RECORDS = [room_record(index) for index in INDICES]
CLOUD = cloud_of(RECORDS, step=97)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('result')
    write_colmap(path / 'colmap', store_of(path / 'keyframes', RECORDS), CLOUD)
    return path / 'colmap'


@pytest.fixture(scope='module', params=['sparse/0', 'text'])
def model(folder, request):
    return pycolmap.Reconstruction(str(folder / request.param))


def test_images_poses_and_cameras_are_those_of_the_keyframes(folder, model):
    assert model.num_reg_images() == len(RECORDS) and len(model.cameras) == 1
    for one in RECORDS:
        image = model.find_image_with_name(f'{one.id:06d}.png')
        np.testing.assert_allclose(
            image.cam_from_world().matrix(), np.linalg.inv(one.map_from_camera)[:3], atol=1e-9)
        k = image.camera.calibration_matrix()
        # A ray through a pixel's centre is the same, though COLMAP counts pixels from corners.
        ray = np.linalg.inv(k) @ [10.5, 20.5, 1]
        np.testing.assert_allclose(
            ray, np.linalg.inv(one.intrinsics) @ [10, 20, 1], atol=1e-9)
        picture = cv2.imread(str(folder / 'images' / image.name))[..., ::-1]
        np.testing.assert_array_equal(picture, one.rgb)
        assert (image.camera.width, image.camera.height) == (320, 240)


def test_tracks_are_long_and_fit_to_less_than_a_pixel(model):
    tracked = [point for point in model.points3D.values() if point.track.length()]
    assert len(tracked) > 300
    assert np.mean([point.track.length() for point in tracked]) > 3
    errors = [point.error for point in tracked]
    assert np.mean(errors) < 0.3 and np.percentile(errors, 95) < 1.0
    # They were measured, not made by projecting the point.
    assert np.median(errors) > 1e-3
    # Points without tracks do not make COLMAP's own figure look better.
    assert model.compute_mean_reprojection_error() == pytest.approx(np.mean(errors), rel=1e-6)


def test_the_pixels_of_a_track_really_are_of_one_place(model):
    """Check each observation against the true depth of its own picture."""
    spread_m = []
    tracked = [point for point in model.points3D.values() if point.track.length()]
    for point in tracked[::3]:
        for element in point.track.elements:
            image = model.image(element.image_id)
            x, y = np.rint(image.point2D(element.point2D_idx).xy - 0.5).astype(int)
            one = RECORDS[int(image.name[:6])]
            ray = np.linalg.inv(one.intrinsics) @ [x, y, 1]
            place = one.map_from_camera @ [*(ray * one.depth_m[y, x]), 1]
            spread_m.append(np.linalg.norm(place[:3] - point.xyz))
    assert np.median(spread_m) < 0.01 and np.percentile(spread_m, 95) < 0.04


def test_the_cloud_is_in_the_model_with_its_colours(model):
    loose = [point for point in model.points3D.values() if not point.track.length()]
    order = np.lexsort(np.array([point.xyz for point in loose]).T)
    mine = np.lexsort(CLOUD.xyz.T)
    np.testing.assert_allclose(
        np.array([point.xyz for point in loose])[order], CLOUD.xyz[mine], atol=1e-5)
    np.testing.assert_array_equal(
        np.array([point.color for point in loose])[order], CLOUD.rgb[mine])


def test_cameras_of_different_sizes_are_kept_apart(tmp_path):
    truth = scenes.look('sideways', 0)
    half = scenes.INTRINSICS.copy()
    half[:2] *= 0.5
    half[:2, 2] -= 0.25
    small = record(
        9, np.ascontiguousarray(truth.rgb[::2, ::2]), truth.depth_m[::2, ::2], half,
        truth.world_from_camera)
    write_colmap(tmp_path / 'model', store_of(tmp_path / 'k', [RECORDS[0], small]), CLOUD)
    model = pycolmap.Reconstruction(str(tmp_path / 'model' / 'sparse' / '0'))
    assert {(camera.width, camera.height) for camera in model.cameras.values()} == {
        (320, 240), (160, 120)}


def test_a_wrong_pose_gives_no_tracks_rather_than_wrong_ones():
    pose = RECORDS[1].map_from_camera.copy()
    pose[:3, 3] += [0.4, 0.0, 0.3]
    wrong = record(1, RECORDS[1].rgb, RECORDS[1].depth_m, RECORDS[1].intrinsics, pose)
    good, bad = (find_tracks([RECORDS[0], other]) for other in (RECORDS[1], wrong))
    assert len(good) > 100 and len(bad) < 0.1 * len(good)


def test_pictures_without_texture_or_depth_have_a_model_without_tracks(tmp_path):
    blank = record(
        0, np.full((240, 320, 3), 90, np.uint8), np.full((240, 320), np.nan),
        scenes.INTRINSICS, np.eye(4))
    assert not len(points_of(blank)[0])
    write_colmap(tmp_path / 'model', store_of(tmp_path / 'k', [blank]), CLOUD)
    model = pycolmap.Reconstruction(str(tmp_path / 'model' / 'sparse' / '0'))
    assert len(model.points3D) == len(CLOUD) and model.num_reg_images() == 1


@pytest.mark.parametrize('limit', [4_000, 300_000], ids=['image', 'model'])
def test_a_full_disk_is_noticed_and_leaves_no_folder(tmp_path, limit):
    store = store_of(tmp_path / 'keyframes', RECORDS[:2])
    cloud = cloud_of(RECORDS, step=10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(ExportError, match='could not be written'):
            write_colmap(tmp_path / 'colmap', store, cloud)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ['keyframes']
