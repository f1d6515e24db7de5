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

"""
The whole node, over DDS, with the mapanything backend and a network that knows the truth.

The fake network ray-casts the scene in float64 and answers in float32, through the package's own
conversions of calibration, depth and poses. What is published may differ from truth by rounding
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import shutil
import sys
from typing import Any

from checkpoints import write_checkpoint
import cv2
from helpers import (
    back_projected,
    BODY_FROM_OPTICAL,
    camera_info,
    camera_on_path,
    cast_room,
    distance_to_room,
    DISTORTION,
    FRAME,
    image,
    intrinsics_of,
    matrix_of,
    ODOM_FROM_WORLD,
    pixels_of,
    points_of,
    ROOM_M,
    Seen,
    stamp_of,
    transformed,
    view_room,
)
from lifecycle_msgs.msg import State
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from robot import ODOMETRY, Robot
from safetensors.torch import load_file, save_file
from tf2_msgs.msg import TFMessage
import torch

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.ros import messages, publishers

# The network sees a third of the camera's width: the centre of each of its pixels is that of one
# of the camera's, so that depth, which is not interpolated, stays exact. Of the height it sees
# the middle 112 of 115 rows.
WIDE, HIGH = 420, 345
K = np.array([[310.0, 0.0, 203.7], [0.0, 316.0, 177.2], [0.0, 0.0, 1.0]])
CAMERA = {'intrinsics': K, 'width': WIDE, 'height': HIGH}
WIDTH, HEIGHT = 140, 112
# The package cuts the odd row off at the bottom, but at the top where it is given intrinsics.
TOP, CALIBRATED_TOP = 1, 2

PARAMETERS = {
    'backend': 'mapanything', 'device': 'cpu', 'mapanything.size_px': WIDTH, 'mask_edges': False}
UNCALIBRATED = {'use_camera_info': False}
DEPTH = {'use_depth': True}
MIXES = {
    'images': UNCALIBRATED,
    'camera_info': {},
    'camera_info and depth': DEPTH,
    'odometry': {**ODOMETRY, **UNCALIBRATED},
    'camera_info and odometry': ODOMETRY,
    'camera_info, depth and odometry': {**ODOMETRY, **DEPTH},
}
# A dozen float32 roundings of a depth (relative), of a pose in a chain of windows, of a point in
# the map (metres), and of intrinsics that are fitted to rays: each some ten times what was seen.
DEPTH_ERROR = 2e-6
POSE_ERROR = 1e-6
POINT_ERROR_M = 5e-6
FIT_ERROR_PX = 5e-5
# From there on the camera sees the ceiling, too, which gives no depth.
FIRST_PLACE, PLACES = 3, 10


def at_network_size(k: np.ndarray, top: int) -> np.ndarray:
    """Return intrinsics of the third of the size, less rows at the top."""
    third = k / 3
    third[:2, 2] += (1 / 3 - 1) / 2
    third[1, 2] -= top
    third[2, 2] = 1
    return third


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('weights'))


@pytest.fixture(autouse=True)
def world(request: pytest.FixtureRequest):
    """Show the fake what the camera sees from the places on its path."""
    if request.config.getoption('--real-model'):
        pytest.skip('the real mapanything does not know the truth')
    from mapanything.fake_world import WORLD

    WORLD.reset()
    for index in range(FIRST_PLACE, FIRST_PLACE + PLACES):
        pose = camera_on_path(index)
        WORLD.add(view_room(pose, **CAMERA)[0], K, pose, cast_room)
    yield WORLD
    WORLD.reset()


@pytest.fixture
def launch(start, weights) -> Callable[..., Robot]:
    """Start a node with the backend as it is, and a robot that it knows."""
    def make(parameters: dict[str, Any] | None = None, **options: Any) -> Robot:
        robot = start(
            {**PARAMETERS, 'mapanything.weights': str(weights), **(parameters or {})},
            create=create_backend, **options)
        robot.camera, robot.index = CAMERA, FIRST_PLACE
        if options.get('activate', True):
            introduce(robot)
        return robot
    return make


def test_a_robot_without_the_offline_tools_maps_and_saves(launch, tmp_path, monkeypatch):
    for name in ('open3d', 'pycolmap', 'matplotlib', 'plotly', 'rosbags', 'laspy'):
        monkeypatch.setitem(sys.modules, name, None)
    robot = launch({'output.directory': str(tmp_path)})
    seen = robot.explore(2)
    assert_keyframe_is_true(robot, seen[-1])
    answer = robot.trigger('save')
    assert answer.success, answer.message
    header, _, points = (tmp_path / 'map.ply').read_bytes().partition(b'end_header\n')
    assert f'element vertex {len(points) // 15}\n'.encode() in header and len(points)


def introduce(robot: Robot) -> None:
    if robot.parameters.get('tf.base_frame'):
        robot.mount()
    if robot.parameters.get('use_camera_info', True):
        robot.calibrate(camera_info(K, WIDE, HIGH))


def send_one_by_one(robot: Robot, count: int) -> list[Seen]:
    """Send images of which no window is made yet."""
    taken = robot.keyframes_taken()
    seen = []
    for number in range(taken + 1, taken + 1 + count):
        seen.append(robot.see())
        robot.wait_for(lambda n=number: robot.keyframes_taken() == n, 'a keyframe')
    return seen


def map_from_world(robot: Robot, first: Seen) -> np.ndarray:
    """With odometry the map is where odometry starts, else level with the first camera."""
    if robot.parameters.get('tf.odom_frame'):
        return ODOM_FROM_WORLD
    return BODY_FROM_OPTICAL @ np.linalg.inv(first.world_from_camera)


def true_k(robot: Robot) -> np.ndarray:
    return at_network_size(
        K, CALIBRATED_TOP if robot.parameters.get('use_camera_info', True) else TOP)


def truth_of(robot: Robot, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours and depth (0 on the ceiling) that the network should see."""
    return view_room(seen.world_from_camera, true_k(robot), WIDTH, HEIGHT)


def depth_ratio(robot: Robot, seen: Seen) -> np.ndarray:
    """Return published over true depth of the pixels that were kept."""
    depth_m = pixels_of(robot.keyframe(seen.stamp_ns)['depth'])
    true_m = truth_of(robot, seen)[1]
    kept = np.isfinite(depth_m) & (true_m > 0)
    assert kept.any()
    return depth_m[kept] / true_m[kept]


def assert_keyframe_is_true(
    robot: Robot, seen: Seen, error: float = DEPTH_ERROR, scale: float = 1.0,
) -> None:
    """Check calibration, picture, depth and points of a keyframe."""
    messages = robot.keyframe(seen.stamp_ns)
    rgb, true_m = truth_of(robot, seen)
    k = intrinsics_of(messages['camera_info'])
    assert np.allclose(k, true_k(robot), rtol=0, atol=FIT_ERROR_PX)
    picture = pixels_of(messages['image'])
    # The texture is so fine that a tenth of a pixel would be a third of a grey level.
    assert np.abs(picture.astype(float) - rgb).mean() < 0.1
    depth_m = pixels_of(messages['depth'])
    kept = np.isfinite(depth_m)
    assert np.isnan(depth_m[~kept]).all()
    assert np.array_equal(kept, true_m > 0), 'only the ceiling has no depth'
    assert np.allclose(depth_m[kept], scale * true_m[kept], rtol=error, atol=0)
    xyz, colours = points_of(messages['points'])
    assert np.allclose(xyz, back_projected(depth_m, k), rtol=0, atol=POINT_ERROR_M)
    assert np.array_equal(colours, picture[kept])
    # The fake says 1 + 4 / (1 + distance); the node brings that to [0,1] as 1 - 1 / confidence.
    confidence = pixels_of(messages['confidence'])
    assert np.allclose(confidence[kept], 4 / (5 + np.linalg.norm(xyz, axis=1)), rtol=1e-5)


def assert_poses_are_true(robot: Robot, all_seen: list[Seen]) -> None:
    """Check path and pose of all keyframes."""
    place = map_from_world(robot, all_seen[0])
    path = robot.path(len(all_seen)).poses
    assert [stamp_of(pose) for pose in path] == [seen.stamp_ns for seen in all_seen]
    for seen, on_path in zip(all_seen, path, strict=True):
        pose = robot.wait_for(lambda at=seen.stamp_ns: next(
            (pose for pose in robot.heard['~/pose'] if stamp_of(pose) == at), None), 'a pose')
        for message in (on_path, pose):
            found = matrix_of(message.pose.position, message.pose.orientation)
            assert np.allclose(found, place @ seen.world_from_camera, rtol=0, atol=POSE_ERROR)


def assert_tf_is_true(robot: Robot, all_seen: list[Seen]) -> None:
    def sent() -> list:
        return [item for message in robot.heard['/tf'] for item in message.transforms
                if item.header.frame_id == 'map']

    if robot.parameters.get('tf.odom_frame'):
        expected = {'odom': np.eye(4)}
        robot.wait_for(sent, 'map->odom')
    else:
        newest = all_seen[-1]
        expected = {
            FRAME: map_from_world(robot, all_seen[0]) @ newest.world_from_camera}
        robot.wait_for(
            lambda: sent() and stamp_of(sent()[-1]) == newest.stamp_ns, 'the newest camera')
    item = sent()[-1]
    found = matrix_of(item.transform.translation, item.transform.rotation)
    assert np.allclose(found, expected[item.child_frame_id], rtol=0, atol=POSE_ERROR)


def assert_map_is_true(robot: Robot, all_seen: list[Seen]) -> None:
    world_from_map = np.linalg.inv(map_from_world(robot, all_seen[0]))
    newest = all_seen[-1].stamp_ns
    robot.wait_for(
        lambda: all(robot.heard[topic] and stamp_of(robot.heard[topic][-1]) == newest
                    for topic in ('~/points', '~/map')), 'the newest points and map')
    xyz, _ = points_of(robot.heard['~/points'][-1])
    assert len(xyz) > 10_000
    assert distance_to_room(transformed(world_from_map, xyz)).max() < POINT_ERROR_M
    xyz, colours = points_of(robot.heard['~/map'][-1])
    world = transformed(world_from_map, xyz)
    # Points of one voxel are averaged, in corners across two walls.
    assert np.percentile(distance_to_room(world), 95) < POINT_ERROR_M
    assert distance_to_room(world).max() < 0.02
    assert len(world) > 10_000
    waves = np.sin(world @ np.array([[5.0, 2.0, 6.0], [3.0, 7.0, 1.0], [6.0, 4.0, 5.0]]))
    assert np.median(np.abs(colours - (128 + 90 * waves))) < 4


# Truth


@pytest.mark.parametrize('mix', MIXES)
def test_everything_published_is_true_with_every_mix_of_inputs(launch, mix):
    robot = launch(MIXES[mix])
    robot.listen(TFMessage, '/tf')
    all_seen = robot.explore(4)
    for seen in all_seen:
        assert_keyframe_is_true(robot, seen)
    assert any((truth_of(robot, seen)[1] == 0).sum() > 100 for seen in all_seen), 'no ceiling'
    assert_poses_are_true(robot, all_seen)
    assert_tf_is_true(robot, all_seen)
    assert_map_is_true(robot, all_seen)
    status = robot.wait_for(lambda: robot.status().get('windows') == '3' and robot.status())
    # Poses that are the truth do not ask the model: two keyframes are compared with the map.
    assert status['scale_source'] == ('map' if 'odometry' in mix else 'model')
    assert float(status['scale']) == pytest.approx(1.0, abs=1e-6)
    assert status['windows_failed'] == '0'
    assert float(status['alignment_residual_m']) == pytest.approx(0.0, abs=1e-4)


def test_a_camera_with_distortion(launch):
    """The network is shown the scene without distortion, and recognises it only then."""
    robot = launch({**ODOMETRY, 'mapanything.reuse_features': False})
    robot.calibrate(camera_info(K, WIDE, HIGH, distortion=DISTORTION))
    for _ in range(2):
        seen = robot.look(distortion=DISTORTION)
        robot.send(seen)
    assert np.allclose(depth_ratio(robot, seen), 1, rtol=0, atol=DEPTH_ERROR)
    picture = pixels_of(robot.keyframe(seen.stamp_ns)['image'])
    undistorted = truth_of(robot, seen)[0]
    error = np.abs(picture.astype(float) - undistorted)
    assert np.percentile(error, 99) < 6
    distorted = view_room(
        seen.world_from_camera, true_k(robot), WIDTH, HEIGHT, distortion=DISTORTION)[0]
    assert np.abs(distorted.astype(float) - undistorted).mean() > 10, 'it would see no effect'


def test_depth_in_millimetres(launch):
    robot = launch(DEPTH)
    for _ in range(2):
        seen = robot.look()
        millimetres = np.rint(seen.depth_m * 1000).astype(np.uint16)
        robot.send(seen, depth=image(millimetres, '16UC1', seen.stamp_ns))
    # In the median, depth that is rounded to a millimetre says the right scale.
    assert_keyframe_is_true(robot, seen, error=1e-5)


@pytest.mark.parametrize('parameters', [{}, ODOMETRY])
def test_single_images(launch, parameters):
    robot = launch({**parameters, 'window.size': 1, 'window.overlap': 0})
    all_seen = []
    for _ in range(3):
        all_seen.append(robot.see())
        assert_keyframe_is_true(robot, all_seen[-1])
    if parameters:
        assert_poses_are_true(robot, all_seen)
        assert_map_is_true(robot, all_seen)
    else:
        robot.wait_for(lambda: robot.warnings('new_segment') == 2, 'nothing ties them')
        assert len(robot.path(1).poses) == 1


# What inputs do to the scale


def told(seen: Seen, odometry: float, depth: float) -> Seen:
    """Return what sensors say that are wrong by a factor."""
    pose = seen.world_from_camera.copy()
    pose[:3, 3] *= odometry
    return replace(seen, world_from_camera=pose, depth_m=seen.depth_m * np.float32(depth))


@pytest.mark.parametrize(('parameters', 'odometry', 'depth', 'scale'), [
    ({}, 1.0, 1.0, 1.1),
    (DEPTH, 1.0, 0.8, 0.8),
    (ODOMETRY, 1.2, 1.0, 1.2),
    ({**ODOMETRY, **DEPTH}, 1.0, 1.0, 1.0),
    ({**DEPTH, 'ignore_depth_scale_inputs': True}, 1.0, 0.8, 1.1),
    ({**DEPTH, 'ignore_depth_inputs': True}, 1.0, 0.8, 1.1),
    ({**ODOMETRY, 'ignore_pose_scale_inputs': True, 'pose_use': 'prior'}, 1.2, 1.0, 1.1),
    ({**ODOMETRY, 'ignore_pose_inputs': True, 'pose_use': 'prior'}, 1.2, 1.0, 1.1),
])
def test_the_scale_is_that_of_the_inputs_else_the_networks(
    launch, world, parameters, odometry, depth, scale,
):
    world.scale_error = 1.1
    robot = launch(parameters)
    all_seen = [robot.look(), robot.look()]
    for seen in all_seen:
        robot.send(told(seen, odometry, depth))
    for seen in all_seen:
        assert_keyframe_is_true(robot, seen, scale=scale)
    status = robot.wait_for(lambda: robot.status().get('windows') == '1' and robot.status())
    assert (status['scale_source'], status['scale']) == ('model', f'{scale:.4f}')
    poses = [
        matrix_of(p.pose.position, p.pose.orientation)[:3, 3] for p in robot.path(2).poses]
    step = np.linalg.norm(poses[1] - poses[0]) / np.linalg.norm(
        all_seen[1].world_from_camera[:3, 3] - all_seen[0].world_from_camera[:3, 3])
    # A window is moved to odometry as it is, and not stretched.
    assert step == pytest.approx(scale, rel=1e-5)


# What the network is not sure of


def test_ambiguous_pixels_are_nan_and_no_points(launch, world):
    world.ambiguous = 0.3
    robot = launch()
    for seen in robot.explore(2):
        messages = robot.keyframe(seen.stamp_ns)
        depth_m, true_m = pixels_of(messages['depth']), truth_of(robot, seen)[1]
        kept = np.isfinite(depth_m)
        assert np.isnan(depth_m[~kept]).all()
        assert not kept[true_m == 0].any()
        assert kept[true_m > 0].mean() == pytest.approx(0.7, abs=0.03)
        assert np.allclose(depth_m[kept], true_m[kept], rtol=DEPTH_ERROR, atol=0)
        xyz, _ = points_of(messages['points'])
        k = intrinsics_of(messages['camera_info'])
        assert np.allclose(xyz, back_projected(depth_m, k), rtol=0, atol=POINT_ERROR_M)
        assert np.isfinite(pixels_of(messages['confidence'])).all()


def test_edges_are_masked_by_default_where_surfaces_meet(launch):
    robot = launch({'mask_edges': True})
    masked_px = 0
    for seen in robot.explore(5):
        depth_m = pixels_of(robot.keyframe(seen.stamp_ns)['depth'])
        true_m = truth_of(robot, seen)[1]
        kept = np.isfinite(depth_m)
        masked = ~kept & (true_m > 0)
        masked_px += masked.sum()
        assert not masked[~where_surfaces_meet(robot, seen)].any()
        assert not kept[true_m == 0].any()
        assert np.allclose(depth_m[kept], true_m[kept], rtol=DEPTH_ERROR, atol=0)
    assert masked_px > 50, 'the test would see no effect'


def where_surfaces_meet(robot: Robot, seen: Seen) -> np.ndarray:
    """Say of each pixel whether it shows two of walls, floor and ceiling within three pixels."""
    true_m = truth_of(robot, seen)[1]
    world = transformed(seen.world_from_camera, back_projected(true_m, true_k(robot)))
    surface = np.abs(np.concatenate([world, world - ROOM_M], axis=1)).argmin(axis=1)
    surface = np.where(true_m.ravel() > 0, surface, 6).reshape(true_m.shape).astype(np.uint8)
    around = np.ones((7, 7))
    return cv2.dilate(surface, around) != cv2.erode(surface, around)


def test_nothing_is_masked_where_that_is_not_wanted(launch, world):
    world.ambiguous = 0.3
    robot = launch({'apply_mask': False})
    for seen in robot.explore(2):
        messages = robot.keyframe(seen.stamp_ns)
        depth_m, true_m = pixels_of(messages['depth']), truth_of(robot, seen)[1]
        assert np.isfinite(depth_m).all()
        assert np.allclose(depth_m[true_m > 0], true_m[true_m > 0], rtol=DEPTH_ERROR, atol=0)
        assert messages['points'].width == WIDTH * HEIGHT


def test_noise_comes_through_as_it_is(launch, world):
    world.noise = 0.02
    robot = launch()
    for seen in robot.explore(2):
        ratio = depth_ratio(robot, seen)
        assert ratio.std() == pytest.approx(0.02, rel=0.05)
        assert np.median(ratio) == pytest.approx(1, abs=1e-3)


def test_where_the_network_puts_its_first_view_does_not_matter(launch, world):
    world.first_pose = ODOM_FROM_WORLD
    robot = launch()
    all_seen = robot.explore(3)
    assert_poses_are_true(robot, all_seen)
    assert_map_is_true(robot, all_seen)


# Keyframes that stay in the window


@pytest.mark.parametrize('reuse', [True, False])
def test_keyframes_that_stay_are_encoded_once(launch, world, reuse):
    robot = launch({
        'window.size': 3, 'window.overlap': 2, 'mapanything.reuse_features': reuse})
    all_seen = send_one_by_one(robot, 2)
    for _ in range(4):
        all_seen += send_one_by_one(robot, 1)
        robot.keyframe(all_seen[-1].stamp_ns)
    for seen in all_seen:
        assert_keyframe_is_true(robot, seen)
    assert_poses_are_true(robot, all_seen)
    assert world.encoded == (6 if reuse else 4 * 3)
    robot.wait_for(lambda: robot.status()['windows'] == '4')
    status = robot.status()
    if reuse:
        assert (status['features_computed'], status['features_reused']) == ('6', '6')
    else:
        assert 'features_reused' not in status


def test_features_of_a_map_that_was_reset_are_not_used_again(launch, world):
    robot = launch()
    robot.explore(2)
    assert robot.trigger('reset').success
    robot.wait_for_empty_map()
    all_seen = robot.explore(2, anew=True)
    for seen in all_seen:
        assert_keyframe_is_true(robot, seen)
    assert_poses_are_true(robot, all_seen)
    assert world.encoded == 4


def test_the_diagnostics_say_how_the_backend_does(launch):
    robot = launch()
    robot.explore(2)
    robot.wait_for(lambda: robot.status().get('windows') == '1')
    status = robot.status()
    assert {name: status[name] for name in (
        'backend', 'device', 'features_computed', 'features_reused', 'out_of_memory',
        'scale_source', 'warnings_backend')} == {
            'backend': 'mapanything', 'device': 'cpu', 'features_computed': '2',
            'features_reused': '0', 'out_of_memory': '0', 'scale_source': 'model',
            'warnings_backend': '1'}
    assert 'gpu_memory_peak_mib' not in status, 'of a CPU nothing is known'
    assert "device is 'cpu'" in status['last_problem'] and 'GPU' in status['last_problem']


# Out of memory


def memory_for(views: float) -> float:
    return views * WIDTH * HEIGHT


def test_where_memory_runs_short_the_node_changes_over_to_small_batches(launch, world):
    robot = launch({'window.size': 4, 'window.overlap': 2})
    world.memory_px = memory_for(3.5)
    robot.wait_for(lambda: robot.warnings('backend'), 'the warning that a CPU is slow')
    with robot.warned('backend', 'too small for a window of 4', 'minibatch_size 1', 'slower'):
        all_seen = send_one_by_one(robot, 4)
    all_seen += send_one_by_one(robot, 2)
    for seen in all_seen:
        assert_keyframe_is_true(robot, seen)
    assert_poses_are_true(robot, all_seen)
    robot.wait_for(lambda: robot.status()['windows'] == '2')
    status = robot.status()
    assert (status['out_of_memory'], status['windows_failed']) == ('2', '0')


@pytest.mark.parametrize('parameters', [{}, ODOMETRY])
def test_where_memory_runs_out_windows_shrink_and_keyframes_are_kept(launch, world, parameters):
    robot = launch({**parameters, 'window.size': 4, 'window.overlap': 2})
    all_seen = send_one_by_one(robot, 4)
    robot.keyframe(all_seen[-1].stamp_ns)
    world.memory_px = world.batched_memory_px = memory_for(2.5)
    with robot.warned('window_failed', 'a window of 4 keyframes', 'windows of 2', 'window.size'):
        all_seen += send_one_by_one(robot, 2)
    robot.keyframe(all_seen[-1].stamp_ns)
    all_seen += send_one_by_one(robot, 1)
    for seen in all_seen:
        assert_keyframe_is_true(robot, seen)
    assert_poses_are_true(robot, all_seen)
    assert_map_is_true(robot, all_seen)
    status = robot.status()
    assert (status['keyframes_dropped'], status['windows_failed']) == ('0', '1')
    # At once, once more, and in batches.
    assert status['out_of_memory'] == '3'


@pytest.mark.parametrize('module', [messages, publishers])
def test_what_was_reconstructed_is_published_where_memory_runs_out_then(
    launch, monkeypatch, module,
):
    robot = launch(ODOMETRY)
    all_seen = robot.explore(2)
    pack, failures = module.pack_points, [torch.OutOfMemoryError('CUDA out of memory')]

    def pack_points(*arguments: Any) -> torch.Tensor:
        if failures:
            raise failures.pop()
        return pack(*arguments)

    monkeypatch.setattr(module, 'pack_points', pack_points)
    with robot.warned('backend', 'no memory left for what comes after the network'):
        all_seen += robot.explore(1)
    assert not failures
    assert_keyframe_is_true(robot, all_seen[-1])
    assert_poses_are_true(robot, all_seen)
    assert_map_is_true(robot, all_seen)
    assert robot.status()['windows_failed'] == '0'


def test_each_step_is_in_the_log_however_soon_the_next_one_comes(launch, world, capfd):
    robot = launch({'window.size': 8, 'window.overlap': 2})
    send_one_by_one(robot, 7)
    world.memory_px = world.batched_memory_px = memory_for(2.5)
    send_one_by_one(robot, 1)
    robot.path(8)
    log = capfd.readouterr().err
    for step in ('8 keyframes; from now on the dense head', 'windows of 4', 'windows of 2'):
        assert step in log, log


def test_where_nothing_fits_the_node_says_so_and_maps_when_something_does(launch, world):
    robot = launch(ODOMETRY)
    world.memory_px = world.batched_memory_px = memory_for(0.5)
    with robot.warned('window_failed', 'too small for a window of 2', 'mapanything.size_px'):
        send_one_by_one(robot, 2)
    world.memory_px = world.batched_memory_px = float('inf')
    seen = robot.see()
    assert_keyframe_is_true(robot, seen)


# What cannot be loaded


def without_folder(weights: Path, patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(weights)


def without_weights(weights: Path, patch: pytest.MonkeyPatch) -> None:
    (weights / 'model.safetensors').unlink()


def with_a_pickle(weights: Path, patch: pytest.MonkeyPatch) -> None:
    (weights / 'model.safetensors').rename(weights / 'pytorch_model.bin')


def with_weights_cut_off(weights: Path, patch: pytest.MonkeyPatch) -> None:
    whole = (weights / 'model.safetensors').read_bytes()
    (weights / 'model.safetensors').write_bytes(whole[:-100])


def with_a_page_for_weights(weights: Path, patch: pytest.MonkeyPatch) -> None:
    (weights / 'model.safetensors').write_text('<html>not found</html>')


def with_a_tensor_missing(weights: Path, patch: pytest.MonkeyPatch) -> None:
    tensors = load_file(weights / 'model.safetensors')
    del tensors['encoder.model.gain']
    save_file(tensors, weights / 'model.safetensors')


def without_config(weights: Path, patch: pytest.MonkeyPatch) -> None:
    (weights / 'config.json').unlink()


def with_config_cut_off(weights: Path, patch: pytest.MonkeyPatch) -> None:
    (weights / 'config.json').write_text((weights / 'config.json').read_text()[:100])


def with_config_of_another_model(weights: Path, patch: pytest.MonkeyPatch) -> None:
    (weights / 'config.json').write_text('{"architectures": ["Bert"]}')


def with_another_version(weights: Path, patch: pytest.MonkeyPatch) -> None:
    folder = weights.parent / 'site' / 'mapanything-2.0.dist-info'
    folder.mkdir(parents=True)
    (folder / 'METADATA').write_text('Metadata-Version: 2.1\nName: mapanything\nVersion: 2.0\n')
    patch.syspath_prepend(folder.parent)


def without_a_requirement(weights: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, 'uniception', None)


@pytest.mark.parametrize(('spoil', 'words'), [
    (without_folder, ['no such folder', 'model.safetensors', 'mapanything.weights']),
    (without_weights, ['model.safetensors is missing', 'weights fetch']),
    (with_a_pickle, ['model.safetensors is missing', 'pytorch_model.bin can run code']),
    (with_weights_cut_off, ['model.safetensors is damaged', 'bytes', 'fetch it again']),
    (with_a_page_for_weights, ['model.safetensors is damaged', 'fetch it again']),
    (with_a_tensor_missing, ['do not fit', '1 missing (encoder.model.gain)', 'fetch them']),
    (without_config, ['config.json is missing', 'weights fetch']),
    (with_config_cut_off, ['config.json is damaged', 'fetch it again']),
    (with_config_of_another_model, ['config.json does not describe', 'fetch it again']),
    (with_another_version, ['mapanything is 2.0, but 1.1 is needed', 'make model']),
    (without_a_requirement, ['module uniception is missing', 'make model', 'colmap']),
])
def test_what_cannot_be_loaded_is_one_sentence_and_works_once_it_is_repaired(
    launch, weights, tmp_path, capfd, spoil, words,
):
    mine = tmp_path / 'weights'
    shutil.copytree(weights, mine)
    robot = launch({'mapanything.weights': str(mine)}, activate=False)
    with pytest.MonkeyPatch.context() as patch:
        spoil(mine, patch)
        assert not robot.change_state('configure')
    assert_refused(robot, capfd, words)
    shutil.copytree(weights, mine, dirs_exist_ok=True)
    assert_works(robot)


def test_an_id_that_was_not_fetched(launch, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    robot = launch({'mapanything.weights': 'facebook/map-anything-apache'}, activate=False)
    assert not robot.change_state('configure')
    assert_refused(robot, capfd, [
        'the weights facebook/map-anything-apache are neither a folder nor', 'in the cache',
        'weights fetch facebook/map-anything-apache'])


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU here')
def test_without_a_gpu_the_sentence_names_what_else_works(launch, capfd):
    robot = launch({'device': 'cuda'}, activate=False)
    assert not robot.change_state('configure')
    assert_refused(robot, capfd, [
        "device is 'cuda'", 'finds no GPU', "set device to 'cpu'", "'colmap'"])
    answer = robot.call(SetParameters, 'set_parameters', SetParameters.Request(
        parameters=[Parameter('device', value='cpu').to_parameter_msg()]))
    assert answer.results[0].successful
    assert_works(robot)


def assert_refused(robot: Robot, capfd: pytest.CaptureFixture, words: list[str]) -> None:
    """Check that the node lives, unconfigured, and has said why in one line."""
    assert robot.node._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED
    log = capfd.readouterr().err
    lines = [line for line in log.splitlines() if '[ERROR]' in line]
    assert len(lines) == 1, log
    assert 'cannot configure: ' in lines[0]
    for word in words:
        assert word in lines[0], lines[0]
    assert 'Traceback' not in log


def assert_works(robot: Robot) -> None:
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    robot.wait_for_connections()
    introduce(robot)
    for seen in robot.explore(2):
        assert_keyframe_is_true(robot, seen)
