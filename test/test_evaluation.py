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

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import (
    abs_rel,
    align,
    anchor,
    cloud_distances,
    depth_ratios,
    fuse_depth,
    RecordedCamera,
    Similarity,
    Trajectory,
    trajectory_error,
)

START_NS = 1_700_000_000_000_000_001  # odd nanoseconds since 1970: a float would lose them


def pose(xyz=(0, 0, 0), rotvec_deg=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotvec_deg, degrees=True).as_matrix()
    matrix[:3, 3] = xyz
    return matrix


def walk(count=40, seed=3):
    """Return a smooth path with turning camera, one pose every 100 ms."""
    s = np.linspace(0, 3, count)
    offset = np.random.default_rng(seed).normal(size=3)
    poses = [
        pose((np.cos(a) + offset[0], a / 2, 0.2 * np.sin(3 * a)), (10 * a, 30 * a, 5 * offset[1]))
        for a in s]
    return Trajectory(START_NS + 100_000_000 * np.arange(count), np.stack(poses))


def moved(trajectory, transform):
    return Trajectory(trajectory.stamps_ns, transform @ trajectory.poses)


@pytest.fixture
def lens():
    k = np.array([[150.0, 0, 101.5], [0, 155.0, 70.5], [0, 0, 1]])
    return RecordedCamera(200, 140, k, (-0.15, 0.03, 0.002, -0.001, 0.004))


def test_distortion_agrees_with_opencv(lens):
    rays = np.random.default_rng(0).uniform(-0.6, 0.6, (100, 2))
    expected, _ = cv2.projectPoints(
        np.c_[rays, np.ones(100)], np.zeros(3), np.zeros(3), lens.intrinsics,
        np.array(lens.distortion))
    np.testing.assert_allclose(lens.project(rays), expected[:, 0], atol=1e-9)


def test_rational_distortion_agrees_with_opencv():
    k = np.array([[150.0, 0, 101.5], [0, 155.0, 70.5], [0, 0, 1]])
    d = (0.4, -0.2, 0.001, 0.002, 0.05, 0.6, -0.1, 0.02)
    rays = np.random.default_rng(0).uniform(-0.6, 0.6, (100, 2))
    expected, _ = cv2.projectPoints(
        np.c_[rays, np.ones(100)], np.zeros(3), np.zeros(3), k, np.array(d))
    camera = RecordedCamera(200, 140, k, d)
    np.testing.assert_allclose(camera.project(rays), expected[:, 0], atol=1e-9)


def test_rays_project_back_to_their_own_pixels(lens):
    y, x = np.mgrid[:140, :200]
    np.testing.assert_allclose(lens.project(lens.rays()), np.stack([x, y], axis=-1), atol=1e-6)


def slanted_wall(rays):
    """Return z of the plane z = 2 + 0.5 x + 0.2 y seen along (...,2) rays."""
    return (2 / (1 - 0.5 * rays[..., 0] - 0.2 * rays[..., 1])).astype(np.float32)


def test_depth_of_a_rectified_half_size_image_is_compared_through_the_lens(lens):
    recorded = slanted_wall(lens.rays())
    half = np.array([[75.0, 0, 49.5], [0, 75.0, 34.5], [0, 0, 1]])
    y, x = np.mgrid[:70, :100]
    published = slanted_wall(np.stack([(x - 49.5) / 75, (y - 34.5) / 75], axis=-1))
    assert abs_rel(depth_ratios(published, half, recorded, lens)) < 2e-3  # half a pixel of slope
    assert abs_rel(depth_ratios(1.1 * published, half, recorded, lens)) == pytest.approx(
        0.1, abs=2e-3)
    # Without the lens in between, the same images would not fit: the test sees distortion.
    straight = RecordedCamera(200, 140, lens.intrinsics)
    assert abs_rel(depth_ratios(published, half, recorded, straight)) > 5e-3


def test_depth_is_compared_only_where_both_are_valid():
    camera = RecordedCamera(4, 3, np.array([[4.0, 0, 1.5], [0, 4, 1], [0, 0, 1]]))
    truth = np.full((3, 4), 2, np.float32)
    truth[0] = 0
    truth[2] = np.nan
    published = np.full((3, 4), 3, np.float32)
    published[1, 0] = np.nan
    ratios = depth_ratios(published, camera.intrinsics, truth, camera)
    np.testing.assert_array_equal(ratios, [1.5, 1.5, 1.5])
    with pytest.raises(InputError, match='no published pixel'):
        abs_rel(depth_ratios(published, camera.intrinsics, np.zeros_like(truth), camera))


def test_true_depth_of_another_size_than_its_camera_info_is_refused(lens):
    with pytest.raises(InputError, match='64x48'):
        depth_ratios(np.ones((3, 4), np.float32), lens.intrinsics,
                     np.ones((48, 64), np.float32), lens)


def test_a_known_drift_gives_exactly_the_known_errors():
    truth = walk()
    drift = np.zeros((40, 3))
    drift[:, 0] = 0.3
    estimate = Trajectory(truth.stamps_ns, truth.poses.copy())
    estimate.poses[:, :3, 3] += drift
    estimate.poses[:, :3, :3] = estimate.poses[:, :3, :3] @ pose(rotvec_deg=(0, 2, 0))[:3, :3]
    error = trajectory_error(truth, estimate, Similarity.rigid(np.eye(4)))
    assert error.poses == 40
    assert error.position_rmse_m == pytest.approx(0.3)
    assert error.rotation_rmse_deg == pytest.approx(2)
    aligned = trajectory_error(truth, estimate, align(truth, estimate, with_scale=False))
    assert aligned.position_rmse_m == pytest.approx(0, abs=1e-9)


def test_poses_are_paired_by_exact_stamp_alone():
    truth = walk()
    shifted = truth.stamps_ns.copy()
    shifted[1::2] += 1  # one nanosecond off is another image
    poses = truth.poses.copy()
    poses[1::2, 0, 3] += 100
    error = trajectory_error(truth, Trajectory(shifted, poses), Similarity.rigid(np.eye(4)))
    assert error.poses == 20
    assert error.position_rmse_m == 0
    with pytest.raises(InputError, match='no pose'):
        trajectory_error(truth, Trajectory(truth.stamps_ns + 1, poses),
                         Similarity.rigid(np.eye(4)))


def test_anchor_moves_another_frame_onto_the_first_shared_pose():
    truth = walk()
    world_from_map = pose((4, -1, 0.5), (20, -100, 40))
    estimate = moved(truth, np.linalg.inv(world_from_map))
    late = Trajectory(estimate.stamps_ns[5:], estimate.poses[5:])
    found = anchor(truth, late)
    np.testing.assert_allclose(found.rotation, world_from_map[:3, :3], atol=1e-12)
    np.testing.assert_allclose(found.translation, world_from_map[:3, 3], atol=1e-12)
    assert trajectory_error(truth, late, found).position_rmse_m == pytest.approx(0, abs=1e-12)


def test_alignment_recovers_a_known_similarity():
    truth = walk()
    known = Similarity(0.25, pose(rotvec_deg=(20, -100, 40))[:3, :3], np.array([4, -1, 0.5]))
    inverse = Similarity(
        4.0, known.rotation.T, -4 * known.rotation.T @ known.translation)
    found = align(truth, inverse.trajectory(truth), with_scale=True)
    assert found.scale == pytest.approx(0.25)
    np.testing.assert_allclose(found.rotation, known.rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, known.translation, atol=1e-9)


def test_alignment_never_mirrors():
    truth = walk()
    mirrored = Trajectory(truth.stamps_ns, truth.poses.copy())
    mirrored.poses[:, 2, 3] *= -1
    assert np.linalg.det(align(truth, mirrored, with_scale=True).rotation) == pytest.approx(1)


def test_alignment_refuses_what_leaves_it_open():
    line = Trajectory(START_NS + np.arange(5), np.stack([pose((i, 0, 0)) for i in range(5)]))
    with pytest.raises(InputError, match='one line'):
        align(line, line, with_scale=False)
    with pytest.raises(InputError, match='3 poses'):
        align(walk(2), walk(2), with_scale=False)


def test_ape_equals_that_of_evo():
    metrics = pytest.importorskip('evo.core.metrics', reason='evo is not installed')
    from evo.core.trajectory import PoseTrajectory3D
    truth = walk()
    noise = np.random.default_rng(1)
    estimate = moved(truth, pose((1, 2, 3), (10, 70, -30)))
    estimate.poses[:, :3, 3] += noise.normal(0, 0.05, (40, 3))
    turns = Rotation.from_rotvec(noise.normal(0, 2, (40, 3)), degrees=True).as_matrix()
    estimate.poses[:, :3, :3] = estimate.poses[:, :3, :3] @ turns
    seconds = np.arange(40, dtype=float)
    for with_scale in (False, True):
        theirs = PoseTrajectory3D(poses_se3=list(estimate.poses), timestamps=seconds)
        reference = PoseTrajectory3D(poses_se3=list(truth.poses), timestamps=seconds)
        theirs.align(reference, correct_scale=with_scale)
        ours = trajectory_error(truth, estimate, align(truth, estimate, with_scale=with_scale))
        for relation, value in (
            (metrics.PoseRelation.translation_part, ours.position_rmse_m),
            (metrics.PoseRelation.rotation_angle_deg, ours.rotation_rmse_deg),
        ):
            ape = metrics.APE(relation)
            ape.process_data((reference, theirs))
            assert value == pytest.approx(ape.get_statistic(metrics.StatisticsType.rmse))


def test_poses_between_stamps_are_interpolated_and_never_extrapolated():
    ends = Trajectory(
        np.array([START_NS, START_NS + 1000]),
        np.stack([pose(), pose((2, 0, -4), (0, 0, 90))]))
    between = ends.interpolate(np.array([START_NS - 1, START_NS + 250, START_NS + 1001]))
    np.testing.assert_array_equal(between.stamps_ns, [START_NS + 250])
    np.testing.assert_allclose(between.poses[0], pose((0.5, 0, -1), (0, 0, 22.5)), atol=1e-9)


def test_trajectories_refuse_stamps_that_do_not_rise():
    with pytest.raises(InputError, match='rise'):
        Trajectory(np.array([1, 1]), np.stack([pose(), pose()]))


def test_recorded_depth_fuses_to_the_wall_it_saw(lens):
    plane = slanted_wall(lens.rays())
    plane[:10] = 0
    lone = plane.copy()
    lone[70, 100] = 0.5  # noise of one image
    turn = pose((1, 2, 3), (0, 40, 0))
    cloud = fuse_depth([(plane, turn), (lone, turn)], lens, 0.02)
    local = (cloud - turn[:3, 3]) @ turn[:3, :3]
    off_plane = local @ (-0.5, -0.2, 1) - 2
    assert np.abs(off_plane).max() < 1e-3
    assert len(cloud) > 5000
    assert cloud_distances(turn[:3, 3][None] + turn[:3, :3] @ (0, 0, 2), cloud)[0] < 0.02
    offset = turn[:3, :3] @ np.array([-0.5, -0.2, 1]) / np.linalg.norm([0.5, 0.2, 1])
    beside = cloud[::50] + 0.1 * offset
    np.testing.assert_allclose(cloud_distances(beside, cloud), 0.1, atol=2e-3)
