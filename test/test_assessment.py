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

import json

import numpy as np
import open3d as o3d
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from mapanything_ros.cli.sample import write_sample
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import anchor, Trajectory
from mapanything_ros.offline.assessment import Assessment, Run
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.recorder import PublishedKeyframe
from mapanything_ros.offline.summary import summarize, table
from mapanything_ros.offline.surface import read_surface
from mapanything_ros.offline.truth import (
    choose_topics,
    read_camera,
    read_depth,
    read_odometry,
    read_poses,
    TRUE_SURFACE_FILE,
)
from mapanything_ros.sample.room import Room

FRAME = 'camera_color_optical_frame'
HALF = np.array([[130.0, 0, 79.5], [0, 130.0, 59.5], [0, 0, 1]])
FRAMES = 40


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp('assessment') / 'sample'
    write_sample(folder, frames=FRAMES)
    return folder


@pytest.fixture(scope='module')
def views(sample):
    """Render, rectified and small, what a perfect node would publish of every fifth image."""
    truth, room = read_poses(sample), Room()
    stamps = truth.stamps_ns[::5]
    return [
        PublishedKeyframe(
            int(stamp), FRAME, view.rgb, view.depth_m, np.ones_like(view.depth_m), HALF)
        for stamp, view in (
            (stamp, room.render(pose, HALF, 160, 120))
            for stamp, pose in zip(stamps, truth.take(stamps).poses, strict=True))]


def topics_of(folder):
    with Bag(folder) as bag:
        return choose_topics(bag)


def run(folder, **changes):
    values = {
        'bag': folder, 'source': 'test', 'topics': topics_of(folder), 'odom_frame': 'odom',
        'odometry_used': True, 'rectified': False, 'metric': True, **changes}
    return Run(**values)


def perfect(folder, views):
    """Return true trajectory and surface points in the map frame that the node would have."""
    truth = read_poses(folder)
    stamps = np.array([view.stamp_ns for view in views])
    map_from_world = anchor(read_odometry(folder, 'odom', FRAME, truth.stamps_ns), truth)
    surface = o3d.io.read_triangle_mesh(str(folder / TRUE_SURFACE_FILE))
    points = np.asarray(surface.sample_points_uniformly(2000).points)
    return map_from_world.trajectory(truth.take(stamps)), map_from_world.points(points)


def summary_of(assessment):
    return summarize(
        assessment, {'backend': 'fake', 'scale_source': 'odometry', 'scale_residual': 'nan'},
        seconds=1.0, waited_s=0.0, rate=1.0, depth_used=False, images_played=FRAMES)


def test_a_perfect_map_has_no_error_and_odometry_has_its_own(sample, views):
    trajectory, points = perfect(sample, views)
    summary = summary_of(Assessment(run(sample), views, trajectory, points))
    assert summary['missing'] == {}
    assert summary['depth_abs_rel'] < 2e-3  # nearest pixels, whole millimetres
    assert summary['kept_fraction'] > 0.99
    assert summary['position_rmse_m']['unaligned'] == pytest.approx(0, abs=1e-6)
    assert summary['position_rmse_m']['aligned'] == pytest.approx(0, abs=1e-6)
    assert summary['rotation_rmse_deg'] == pytest.approx(0, abs=1e-3)
    assert summary['map_error_m']['p90'] == pytest.approx(0, abs=1e-4)
    assert 0.0005 < summary['odometry']['position_rmse_m']['unaligned'] < 0.1


def test_known_errors_are_found_where_they_are(sample, views):
    trajectory, points = perfect(sample, views)
    biased = [
        PublishedKeyframe(
            view.stamp_ns, FRAME, view.rgb,
            np.where(np.arange(160) < 40, np.nan, 1.05 * view.depth_m).astype(np.float32),
            view.confidence, HALF)
        for view in views]
    shifted = Trajectory(trajectory.stamps_ns, trajectory.poses.copy())
    shifted.poses[:, :3, 3] += (0, 0.03, 0.04)
    summary = summary_of(Assessment(run(sample), biased, shifted, points))
    assert summary['depth_abs_rel'] == pytest.approx(0.05, abs=2e-3)
    assert summary['kept_fraction'] == pytest.approx(0.75, abs=0.01)
    assert summary['position_rmse_m']['unaligned'] == pytest.approx(0.05, abs=1e-6)
    assert summary['position_rmse_m']['aligned'] == pytest.approx(0, abs=1e-6)


def test_without_odometry_the_first_keyframe_ties_the_frames(sample, views):
    trajectory, points = perfect(sample, views)
    moved = Trajectory(trajectory.stamps_ns, np.linalg.inv(trajectory.poses[0]) @ trajectory.poses)
    summary = summary_of(Assessment(run(sample, odometry_used=False), views, moved, points))
    assert summary['position_rmse_m']['frame'] == 'first keyframe'
    assert summary['position_rmse_m']['unaligned'] == pytest.approx(0, abs=1e-6)
    assert summary['odometry']['position_rmse_m']['frame'] == 'odometry start'


def test_a_map_without_metric_scale_is_measured_after_sim3_and_says_so(sample, views):
    trajectory, points = perfect(sample, views)
    third = Trajectory(trajectory.stamps_ns, trajectory.poses.copy())
    third.poses[:, :3, 3] /= 3
    small = [
        PublishedKeyframe(view.stamp_ns, FRAME, view.rgb, view.depth_m / 3, view.confidence, HALF)
        for view in views]
    summary = summary_of(Assessment(run(sample, metric=False), small, third, points / 3))
    assert summary['depth_abs_rel'] == pytest.approx(2 / 3, abs=1e-2)
    assert summary['depth_abs_rel_scaled'] < 2e-3
    assert summary['position_rmse_m']['alignment'] == 'Sim3'
    assert summary['position_rmse_m']['aligned'] == pytest.approx(0, abs=1e-6)
    assert summary['map_error_m']['alignment'] == 'Sim3'
    assert summary['map_error_m']['median'] == pytest.approx(0, abs=1e-4)


def test_without_a_surface_the_map_is_measured_against_recorded_depth(sample, views, tmp_path):
    bare = tmp_path / 'bare'
    copy_bag(sample, bare, lambda topic: True)
    trajectory, _ = perfect(sample, views)
    room_points = []
    for view, pose in zip(views, trajectory.poses, strict=True):
        y, x = np.mgrid[5:115:10, 5:155:10]
        z = view.depth_m[y, x].ravel()
        local = np.stack([(x.ravel() - 79.5) / 130 * z, (y.ravel() - 59.5) / 130 * z, z], axis=1)
        room_points.append(local @ pose[:3, :3].T + pose[:3, 3])
    summary = summary_of(Assessment(run(bare), views, trajectory, np.concatenate(room_points)))
    assert 'recorded depth' in summary['map_error_m']['truth']
    assert summary['map_error_m']['median'] < 0.006  # the cloud's points are 1 cm apart


def test_what_has_no_truth_is_none_with_a_reason(sample, views, tmp_path):
    blind = tmp_path / 'blind'
    copy_bag(sample, blind, lambda topic: 'depth' not in topic and 'truth' not in topic)
    trajectory, points = perfect(sample, views)
    summary = summary_of(Assessment(run(blind), views, trajectory, points))
    assert summary['depth_abs_rel'] is None
    assert summary['map_error_m'] is None
    assert summary['rotation_rmse_deg'] is None
    assert summary['position_rmse_m']['unaligned'] is None
    assert summary['odometry']['position_rmse_m']['unaligned'] is None
    assert 'no registered depth' in summary['missing']['depth_abs_rel']
    assert 'no true poses' in summary['missing']['position_rmse_m.unaligned']
    assert 'no true poses' in table(summary)
    json.loads(json.dumps(summary, allow_nan=False))


def test_a_factor_is_shown_where_it_means_something(sample, views):
    trajectory, points = perfect(sample, views)
    summary = summary_of(Assessment(run(sample), views, trajectory, points))
    known = {'source': 'depth', 'value': 0.041, 'residual': 0.02}
    for backend, odometry, expected in (
        ('colmap', True, 'depth, factor 0.041, residual 0.020'),
        ('mapanything', False, 'depth, factor 0.041, residual 0.020'),
        # Structure from motion alone knows no size.
        ('colmap', False, 'depth, residual 0.020'),
    ):
        said = table({**summary, 'scale': known, 'backend': backend, 'odometry_used': odometry})
        assert f'scale from      {expected}\n' in said


def test_depth_in_another_frame_is_no_truth(sample):
    with pytest.raises(InputError, match='not registered'):
        list(read_depth(sample, topics_of(sample).depth, 'elsewhere', lambda stamp: True))


def test_topics_are_found_by_type_and_name(sample):
    topics = topics_of(sample)
    assert topics.image == '/camera/color/image_raw/compressed'
    assert topics.compressed
    assert topics.camera_info == '/camera/color/camera_info'
    assert topics.depth == '/camera/aligned_depth_to_color/image_raw'
    with Bag(sample) as bag:
        assert choose_topics(bag, topics.image, topics.camera_info, topics.depth) == topics
        with pytest.raises(InputError, match='--image-topic'):
            choose_topics(bag, image='/nowhere')


def test_a_rectified_camera_is_read_from_p_without_distortion(sample):
    camera, frame_id = read_camera(sample, '/camera/color/camera_info', rectified=True)
    assert frame_id == FRAME
    assert camera.distortion == ()
    distorted, _ = read_camera(sample, '/camera/color/camera_info', rectified=False)
    assert distorted.distortion[0] == pytest.approx(-0.03)


def test_odometry_is_interpolated_through_the_mounting_of_the_camera(sample):
    truth = read_poses(sample)
    between = (truth.stamps_ns[3:5].sum()) // 2
    odometry = read_odometry(
        sample, 'odom', FRAME, np.array([truth.stamps_ns[3], between, truth.stamps_ns[4]]))
    assert len(odometry.stamps_ns) == 3
    mean = odometry.positions[[0, 2]].mean(axis=0)
    np.testing.assert_allclose(odometry.positions[1], mean, atol=2e-3)
    with pytest.raises(InputError, match='no transform from nowhere to odom'):
        read_odometry(sample, 'odom', 'nowhere', truth.stamps_ns)


def test_distances_to_a_mesh_are_those_to_its_faces(tmp_path):
    path = tmp_path / 'square.ply'
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.array([[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]])),
        o3d.utility.Vector3iVector(np.array([[0, 1, 2], [0, 2, 3]])))
    o3d.io.write_triangle_mesh(str(path), mesh)
    points = np.array([[1.0, 1, 0.5], [1, 1.5, -0.2], [3, 1, 0], [1, 1, 0]])
    np.testing.assert_allclose(read_surface(path).distances(points), [0.5, 0.2, 1, 0], atol=1e-6)


def copy_bag(source, target, wanted):
    """Write the bag's wanted topics anew, without the surface beside it."""
    types = get_typestore(Stores.ROS2_JAZZY)
    with Reader(source) as reader, Writer(
            target, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        copies = {
            c.topic: writer.add_connection(c.topic, c.msgtype, typestore=types)
            for c in reader.connections if wanted(c.topic)}
        for connection, stamp_ns, data in reader.messages():
            if connection.topic in copies:
                writer.write(copies[connection.topic], stamp_ns, data)
