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

"""The executable evaluate: a map and a path whose errors are known, against truth of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
import re
from typing import Any

from geometry_msgs.msg import Pose, PoseStamped
from helpers import header, ROOM_M, transform
from nav_msgs.msg import Odometry
import numpy as np
import open3d
import pytest
from recordings import write_bag
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage

from mapanything_ros.cli import evaluate
from mapanything_ros.core.map.export import write_cloud, write_tum
from mapanything_ros.core.map.voxel_map import PointCloud

START_NS = 1_700_000_000_123_456_789
STEP_NS = 100_000_001
COUNT = 30
STAMPS = [START_NS + i * STEP_NS for i in range(COUNT)]
SCALE = 0.8
NOISE_M = 0.03


def rigid(turn_deg: float, move: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('zyx', [turn_deg, 20, -30], degrees=True).as_matrix()
    pose[:3, 3] = move
    return pose


# The map's frame is not the world's, and its lengths are too short.
MAP_FROM_WORLD = rigid(70, (3, -1, 2))


def true_pose(index: int) -> np.ndarray:
    angle = 0.3 * index
    return rigid(
        np.degrees(angle), (2 + np.cos(angle), 2 + np.sin(angle), 1 + 0.3 * np.sin(2 * angle)))


def estimated(noise_m: float = NOISE_M) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    poses = []
    for index in range(COUNT):
        pose = MAP_FROM_WORLD @ true_pose(index)
        turn = Rotation.from_rotvec(rng.normal(0, 1, 3), degrees=True).as_matrix()
        pose[:3, :3] = pose[:3, :3] @ turn
        pose[:3, 3] = SCALE * (pose[:3, 3] + rng.normal(0, noise_m, 3))
        poses.append(pose)
    return poses


def true_points() -> np.ndarray:
    """Return points on the floor of the room."""
    return np.random.default_rng(1).uniform((0, 0, 0), (ROOM_M[0], ROOM_M[1], 0), (4000, 3))


@pytest.fixture
def result(tmp_path) -> Path:
    """Write what reconstruct would, as far as evaluate reads it."""
    folder = tmp_path / 'map'
    write_tum(folder / 'trajectory.tum', zip(STAMPS, estimated(), strict=True))
    points = SCALE * (true_points() @ MAP_FROM_WORLD[:3, :3].T + MAP_FROM_WORLD[:3, 3])
    rgb = np.full(points.shape, 99, np.uint8)
    write_cloud(folder / 'map.ply', PointCloud(points.astype(np.float32), rgb))
    (folder / 'summary.json').write_text('{}')
    return folder


@pytest.fixture
def truth(tmp_path) -> Path:
    path = tmp_path / 'truth.tum'
    write_tum(path, ((stamp, true_pose(i)) for i, stamp in enumerate(STAMPS)))
    path.write_text('# t x y z qx qy qz qw\n' + path.read_text())
    return path


@pytest.fixture
def floor(tmp_path) -> Path:
    """Write the floor as a mesh."""
    x, y = ROOM_M[:2]
    mesh = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector([[-9.0, -9, 0], [x + 9, -9, 0], [x + 9, y + 9, 0],
                                       [-9, y + 9, 0]]),
        open3d.utility.Vector3iVector([[0, 1, 2], [0, 2, 3]]))
    path = tmp_path / 'floor.ply'
    open3d.io.write_triangle_mesh(str(path), mesh)
    return path


def evaluated(result: Path, *arguments: object) -> dict[str, Any]:
    assert evaluate.main([str(result), '--truth', *map(str, arguments)]) == 0
    return json.loads((result / 'evaluation.json').read_text())


def refusal(capsys: pytest.CaptureFixture[str], result: Path, *arguments: object) -> str:
    """Return the one sentence on standard error."""
    assert evaluate.main([str(result), '--truth', *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == '' and not (result / 'evaluation.json').exists()
    assert captured.err.count('\n') == 1 and captured.err.startswith('evaluate: ')
    return captured.err


def test_figures_are_those_of_evo(result, truth):
    metrics = pytest.importorskip('evo.core.metrics', reason='evo is not installed')
    from evo.core.sync import associate_trajectories
    from evo.tools.file_interface import read_tum_trajectory_file
    ours = evaluated(result, truth)
    for name in ('SE3', 'Sim3', 'unaligned'):
        reference, theirs = associate_trajectories(
            read_tum_trajectory_file(truth),
            read_tum_trajectory_file(result / 'trajectory.tum'))
        if name == 'unaligned':
            theirs.align_origin(reference)
        else:
            theirs.align(reference, correct_scale=name == 'Sim3')
        for relation, figures in (
            (metrics.PoseRelation.translation_part, ours['position_rmse_m']),
            (metrics.PoseRelation.rotation_angle_deg, ours['rotation_rmse_deg']),
        ):
            ape = metrics.APE(relation)
            ape.process_data((reference, theirs))
            assert figures[name] == pytest.approx(
                ape.get_statistic(metrics.StatisticsType.rmse), rel=1e-5)


def test_a_mesh_tells_the_error_of_the_map_in_each_alignment(result, truth, floor, capsys):
    found = evaluated(result, truth, floor)
    assert found['scale'] == pytest.approx(1 / SCALE, rel=0.02)
    assert found['position_rmse_m']['Sim3'] == pytest.approx(3 ** 0.5 * NOISE_M, rel=0.2)
    assert found['position_rmse_m']['SE3'] > 0.15
    errors = found['map_error_m']
    assert errors['Sim3']['median'] < NOISE_M < errors['SE3']['median']
    assert errors['SE3']['p90'] > errors['SE3']['median']
    assert (found['poses'], found['poses_without_truth'], found['missing']) == (COUNT, 0, {})
    steps = np.diff([true_pose(i)[:3, 3] for i in range(COUNT)], axis=0)
    assert found['distance_m'] == pytest.approx(np.linalg.norm(steps, axis=1).sum())
    printed = capsys.readouterr().out
    for name in ('unaligned', 'SE3', 'Sim3'):
        assert f'{found["position_rmse_m"][name]:.3f}' in printed
        assert f'{errors[name]["p90"]:.3f}' in printed


@pytest.mark.parametrize('suffix', ['ply', 'pcd', 'xyz', 'obj', 'stl'])
def test_surfaces_of_all_kinds_say_the_same(result, truth, floor, tmp_path, suffix):
    path = tmp_path / f'other.{suffix}'
    if suffix in ('obj', 'stl'):
        mesh = open3d.io.read_triangle_mesh(str(floor))
        mesh.compute_vertex_normals()
        open3d.io.write_triangle_mesh(str(path), mesh)
    else:
        x, y = np.meshgrid(np.arange(-3, 8, 0.01), np.arange(-3, 8, 0.01))
        points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
        open3d.io.write_point_cloud(
            str(path), open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points)))
    expected = evaluated(result, truth, floor)['map_error_m']['Sim3']
    found = evaluated(result, truth, path)['map_error_m']['Sim3']
    assert found == pytest.approx(expected, abs=0.008)


@pytest.mark.parametrize('ascii_', [False, True])
@pytest.mark.parametrize('kind', ['mesh', 'cloud', 'map'])
def test_a_ply_that_was_cut_off_is_not_filled_up(result, floor, tmp_path, capsys, kind, ascii_):
    path = tmp_path / 'truth.ply'
    mesh = open3d.io.read_triangle_mesh(floor)
    if kind == 'mesh':
        open3d.io.write_triangle_mesh(path, mesh, write_ascii=ascii_)
    else:
        path = result / 'map.ply' if kind == 'map' else path
        open3d.io.write_point_cloud(
            path, mesh.sample_points_uniformly(500), write_ascii=ascii_)
    truth = floor if kind == 'map' else path
    whole = path.read_bytes()
    assert 'map_error_m' in evaluated(result, truth)
    (result / 'evaluation.json').unlink()
    capsys.readouterr()
    path.write_bytes(whole[:-len(whole) // 10] if kind != 'mesh' else whole[:-30])
    assert 'is cut off' in refusal(capsys, result, truth)


def test_without_true_poses_the_map_is_taken_as_it_is(result, floor):
    found = evaluated(result, floor)
    points = np.asarray(open3d.io.read_point_cloud(str(result / 'map.ply')).points)
    assert found['map_error_m']['unaligned']['median'] == pytest.approx(
        np.median(np.abs(points[:, 2])), rel=1e-4)
    assert found['map_error_m']['Sim3'] is None and found['frame'] == 'as it is'
    assert 'no true poses' in found['missing']['position_rmse_m']


def test_truth_between_stamps_is_interpolated_but_not_over_gaps(result, tmp_path):
    path = tmp_path / 'truth.txt'
    late = [(stamp + STEP_NS // 2, true_pose(i + 0.5)) for i, stamp in enumerate(STAMPS)]
    write_tum(path, [*late[:10], *late[20:]])
    path.write_text(path.read_text().replace('\n', '\n\n'))
    found = evaluated(result, path, '--max-gap', '0.2')
    # The first keyframe is before all truth; 10 to 20 lie in the gap.
    assert (found['poses'], found['poses_without_truth']) == (COUNT - 12, 12)
    assert found['position_rmse_m']['Sim3'] == pytest.approx(3 ** 0.5 * NOISE_M, rel=0.3)
    assert evaluated(result, path, '--max-gap', '5')['poses'] == COUNT - 1


def pose_of(matrix: np.ndarray) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = matrix[:3, 3].tolist()
    quat = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = quat
    return pose


BASE_FROM_CAMERA = rigid(15, (0.3, 0.1, 0.5))


def truth_bag(folder: Path, known: Sequence[int]) -> Path:
    """Write the truth as poses of the camera, as odometry of the robot, and as /tf."""
    messages: list[tuple[str, int, Any]] = [('/tf_static', START_NS, TFMessage(
        transforms=[transform(BASE_FROM_CAMERA, header(START_NS, 'base'), 'camera')]))]
    for i in known:
        stamp = STAMPS[i]
        of_base = true_pose(i) @ np.linalg.inv(BASE_FROM_CAMERA)
        odometry = Odometry(header=header(stamp, 'world'), child_frame_id='base')
        odometry.pose.pose = pose_of(of_base)
        messages += [
            ('/truth/pose', stamp, PoseStamped(
                header=header(stamp, 'world'), pose=pose_of(true_pose(i)))),
            ('/robot/odom', stamp, odometry),
            ('/tf', stamp, TFMessage(
                transforms=[transform(of_base, header(stamp, 'world'), 'base')]))]
    return write_bag(folder, messages)


@pytest.fixture
def bag(tmp_path) -> Path:
    return truth_bag(tmp_path / 'bag', range(COUNT))


IN_A_BAG = [
    (), ('--topic', '/truth/pose'), ('--topic', '/robot/odom', '--camera-frame', 'camera'),
    ('--frame', 'world', '--camera-frame', 'camera')]


@pytest.mark.parametrize('options', IN_A_BAG)
def test_a_bag_has_the_truth_in_topics_and_in_tf(result, truth, bag, options):
    expected = evaluated(result, truth)['position_rmse_m']
    found = evaluated(result, bag, *options)
    assert found['position_rmse_m'] == pytest.approx(expected, rel=1e-4)
    assert found['poses'] == COUNT
    assert 'map_error_m' in found['missing']


@pytest.mark.parametrize('options', IN_A_BAG)
def test_gaps_of_the_truth_in_a_bag_are_not_filled(result, tmp_path, options):
    bag = truth_bag(tmp_path / 'bag', [*range(10), 11, *range(20, COUNT)])
    found = evaluated(result, bag, *options, '--max-gap', '0.3')
    # 10 lies between two poses that are near each other, 12 to 19 do not.
    assert (found['poses'], found['poses_without_truth']) == (COUNT - 8, 8)


def test_the_surface_beside_a_bag_counts(result, bag, floor):
    floor.rename(bag / 'scene.ply')
    assert evaluated(result, bag)['map_error_m']['Sim3']['median'] < NOISE_M


def test_a_path_on_a_line_has_no_alignment_and_says_so(tmp_path, result):
    path = tmp_path / 'line.tum'
    poses = [np.eye(4) for _ in STAMPS]
    for i, pose in enumerate(poses):
        pose[0, 3] = i
    write_tum(path, zip(STAMPS, poses, strict=True))
    found = evaluated(result, path)
    assert found['position_rmse_m']['unaligned'] > 0
    assert found['position_rmse_m']['SE3'] is None
    assert 'one line' in found['missing']['SE3']


@pytest.mark.parametrize(('name', 'content', 'sentence'), [
    ('a.tum', '', 'holds no poses'),
    ('a.tum', '1 2 3\n', 'line 1 of .* is no pose'),
    ('a.tum', '1 0 0 0 0 0 0 1\nx 0 0 0 0 0 0 1\n', 'line 2 of .* is no pose'),
    ('a.tum', '1 0 0 0 0 0 0 0\n', 'line 1 of .* is no pose'),
    ('a.tum', '1 0 0 nan 0 0 0 1\n', 'line 1 of .* is no pose'),
    ('a.tum', '1700000000123456789 0 0 0 0 0 0 1\n', 'line 1 of .* is no pose, .* in seconds'),
    ('a.tum', '1 0 0 0 0 0 0 1\n1.0 0 0 0 0 0 0 1\n', 'line 2 of .* stamp of an earlier'),
    ('a.tum', '1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 1\n', 'no keyframe has a true pose'),
    ('a.tum', b'\xff\xfe\x00', 'cannot be read as a TUM'),
    ('a.csv', '1', 'no truth that is known'),
    ('a.ply', 'ply', 'neither triangles nor points'),
    ('a.ply', 'ply\nelement vertex many\n', 'has a header that is none of PLY'),
    ('a.obj', '', 'neither triangles nor points'),
    ('a.stl', 'x', 'neither triangles nor points'),
    ('a.pcd', 'x', 'neither triangles nor points'),
    ('a.mcap', 'x', 'cannot be read'),
    ('a.db3', '', 'cannot be read')])
def test_truth_that_cannot_be_used_is_one_sentence(
    result, tmp_path, capsys, name, content, sentence,
):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    refused = refusal(capsys, result, path)
    assert re.search(sentence, refused), refused


def test_what_is_not_there_or_not_clear_is_one_sentence(
    result, truth, bag, floor, tmp_path, capsys,
):
    assert 'no truth at' in refusal(capsys, result, tmp_path / 'nothing.tum')
    assert 'several true paths' in refusal(capsys, result, truth, bag)
    assert 'several true surfaces' in refusal(capsys, result, truth, floor, floor)
    assert 'no topic /nothing' in refusal(capsys, result, bag, '--topic', '/nothing')
    assert 'no topic /tf of' in refusal(capsys, result, bag, '--topic', '/tf')
    assert 'no transform from lost to world' in refusal(
        capsys, result, bag, '--frame', 'world', '--camera-frame', 'lost')
    for options in (('--frame', 'world'), ('--topic', '/robot/odom')):
        assert 'give --camera-frame' in refusal(capsys, result, bag, *options)
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert 'no trajectory.tum' in refusal(capsys, empty, truth)
    (result / 'map.ply').unlink()
    assert 'no map at' in refusal(capsys, result, truth)


def test_topics_that_leave_a_choice_are_listed(result, tmp_path, capsys):
    messages = [
        (topic, stamp, PoseStamped(header=header(stamp, 'w'), pose=pose_of(true_pose(i))))
        for i, stamp in enumerate(STAMPS) for topic in ('/one', '/two')]
    bag = write_bag(tmp_path / 'two', messages)
    assert '/one, /two' in refusal(capsys, result, bag)
