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

"""What the node publishes of each keyframe and of the map, against exact truth."""

from collections import Counter
from dataclasses import replace
import itertools
from unittest.mock import Mock

import cv2
from helpers import (
    back_projected,
    BASE_FROM_CAMERA,
    BODY_FROM_OPTICAL,
    camera_info,
    colour_of_room,
    compressed,
    distance_to_room,
    DISTORTION,
    FRAME,
    halved,
    HEIGHT,
    image,
    intrinsics_of,
    K,
    matrix_of,
    ODOM_FROM_WORLD,
    pixels_of,
    points_of,
    Seen,
    stamp_of,
    transformed,
    view_room,
    WIDTH,
)
from nav_msgs.msg import Path
import numpy as np
import pytest
from rclpy.qos import ReliabilityPolicy
from robot import LATCHED, ODOMETRY, OUTPUTS, Robot
from sensor_msgs.msg import Image, PointCloud2

from mapanything_ros.core.config import MapConfig
from mapanything_ros.ros import messages, publishers

LUMA = np.array([0.299, 0.587, 0.114])
# Where the colours of a Bayer cell's four pixels lie in RGB, row by row.
BAYER = {'rggb': (0, 1, 1, 2), 'bggr': (2, 1, 1, 0), 'gbrg': (1, 2, 0, 1), 'grbg': (1, 0, 2, 1)}


def encoded(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """Return the picture as a camera of this encoding sends it."""
    if encoding.startswith('bayer'):
        mosaic = np.empty(rgb.shape[:2], np.uint8)
        cells = itertools.product(range(2), range(2))
        for (row, column), channel in zip(cells, BAYER[encoding[6:10]], strict=True):
            mosaic[row::2, column::2] = rgb[row::2, column::2, channel]
        return mosaic
    if encoding == 'mono8':
        return np.rint(rgb @ LUMA).astype(np.uint8)
    order = {'rgb': [0, 1, 2], 'bgr': [2, 1, 0]}[encoding[:3]]
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    picture = rgb[..., order]
    return np.concatenate([picture, alpha], axis=2) if 'a8' in encoding else picture


def as_received(seen: Seen, encoding: str) -> Seen:
    if encoding != 'mono8':
        return seen
    return replace(seen, rgb=np.repeat(encoded(seen.rgb, 'mono8')[..., None], 3, axis=2))


def colour_error(keyframe: dict, seen: Seen) -> np.ndarray:
    published = pixels_of(keyframe['image']).astype(float)
    size = published.shape[1::-1]
    return np.abs(published - cv2.resize(seen.rgb, size, interpolation=cv2.INTER_AREA))


@pytest.fixture(scope='module')
def robot(start_shared) -> Robot:
    """Start a robot with odometry that has seen six keyframes."""
    robot = start_shared(ODOMETRY)
    robot.mount()
    robot.calibrate()
    robot.first_seen = robot.explore(6)
    robot.path(6)
    return robot


@pytest.mark.parametrize('encoding', [
    'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', *(f'bayer_{name}8' for name in BAYER)])
def test_a_raw_image_keeps_its_colours(robot, encoding):
    seen = robot.look()
    robot.backend.seen[seen.stamp_ns] = expected = as_received(seen, encoding)
    robot.send(seen, image(encoded(seen.rgb, encoding), encoding, seen.stamp_ns))
    error = colour_error(robot.keyframe(seen.stamp_ns), expected)
    # Only a mosaic has to be guessed in between.
    assert error.max() <= 1 if 'bayer' not in encoding else np.percentile(error, 95) <= 3


def test_rows_may_be_padded(robot):
    seen = robot.look()
    padded = np.full((HEIGHT, WIDTH + 5, 3), 99, np.uint8)
    padded[:, :WIDTH] = seen.rgb
    message = image(padded, 'rgb8', seen.stamp_ns)
    message.width = WIDTH
    robot.send(seen, message)
    assert colour_error(robot.keyframe(seen.stamp_ns), seen).max() <= 1


@pytest.mark.parametrize(('form', 'tolerance'), [('png', 1), ('jpg', 12)])
def test_a_compressed_image_keeps_its_colours(start, form, tolerance):
    robot = start({'image_transport': 'compressed'})
    robot.calibrate()
    robot.encode = lambda seen: compressed(seen.rgb, form, seen.stamp_ns)
    for seen in robot.explore(2):
        error = colour_error(robot.keyframe(seen.stamp_ns), seen)
        assert error.max() <= tolerance
        assert error.mean() < 2


def test_a_keyframe_is_one_set_with_the_stamp_and_frame_of_its_image(robot):
    for seen in robot.first_seen:
        messages = robot.keyframe(seen.stamp_ns)
        assert {stamp_of(message) for message in messages.values()} == {seen.stamp_ns}
        assert {message.header.frame_id for message in messages.values()} == {FRAME}
        sizes = {
            (messages[name].width, messages[name].height)
            for name in ('image', 'camera_info', 'depth', 'confidence')}
        assert sizes == {(WIDTH // 2, HEIGHT // 2)}
        info = messages['camera_info']
        assert np.allclose(intrinsics_of(info), halved(K))
        assert np.allclose(np.array(info.p).reshape(3, 4)[:, :3], halved(K))
        assert not any(info.d)
        assert np.array_equal(np.array(info.r).reshape(3, 3), np.eye(3))


def test_depth_is_exact_and_nan_where_there_is_none(robot):
    missing = 0
    for seen in robot.first_seen:
        messages = robot.keyframe(seen.stamp_ns)
        depth = pixels_of(messages['depth'])
        truth = view_room(seen.world_from_camera, halved(K), WIDTH // 2, HEIGHT // 2)[1]
        assert messages['depth'].encoding == '32FC1'
        assert np.array_equal(np.isnan(depth), truth == 0)
        assert np.allclose(depth[truth > 0], truth[truth > 0])
        confidence = pixels_of(messages['confidence'])
        assert np.allclose(confidence[truth > 0], 1 / (1 + truth[truth > 0]))
        missing += np.isnan(depth).sum()
    assert missing > 100


def test_depth_and_calibration_of_two_keyframes_agree_by_reprojection(robot):
    poses = {stamp_of(p): matrix_of(p.pose.position, p.pose.orientation)
             for p in robot.heard['~/pose']}
    a, b = robot.first_seen[1], robot.first_seen[3]
    in_a, in_b = robot.keyframe(a.stamp_ns), robot.keyframe(b.stamp_ns)
    points = back_projected(pixels_of(in_a['depth']), intrinsics_of(in_a['camera_info']))
    points = transformed(np.linalg.inv(poses[b.stamp_ns]) @ poses[a.stamp_ns], points)
    pixels = points @ intrinsics_of(in_b['camera_info']).T
    u, v = (pixels[:, :2] / pixels[:, 2:]).T
    inside = (u > 0) & (v > 0) & (u < WIDTH // 2 - 1) & (v < HEIGHT // 2 - 1)
    sampled = cv2.remap(
        pixels_of(in_b['depth']), u[inside].astype(np.float32)[None],
        v[inside].astype(np.float32)[None], cv2.INTER_LINEAR)[0]
    error = np.abs(sampled - points[inside, 2])
    assert inside.mean() > 0.5
    # Depth bends within a pixel, in the room's corners more so.
    assert np.nanmedian(error) < 1e-3
    assert np.nanpercentile(error, 99) < 0.04


def test_keyframe_points_are_the_depth_image_in_the_sensor_frame(robot):
    for seen in robot.first_seen:
        messages = robot.keyframe(seen.stamp_ns)
        depth, k = pixels_of(messages['depth']), intrinsics_of(messages['camera_info'])
        xyz, rgb = points_of(messages['points'])
        assert np.allclose(xyz, back_projected(depth, k), atol=1e-5)
        assert np.array_equal(rgb, pixels_of(messages['image'])[np.isfinite(depth)])
        assert messages['points'].is_dense and messages['points'].height == 1


def test_axes_of_keyframe_points_are_optical(robot):
    seen = robot.first_seen[2]
    xyz, _ = points_of(robot.keyframe(seen.stamp_ns)['points'])
    assert (xyz[:, 2] > 0).all()
    world = transformed(seen.world_from_camera, xyz)
    floor = world[:, 2] < 1e-4
    assert floor.any()
    assert xyz[floor, 1].min() > 0.3, 'the floor is below the camera: y points down'
    assert distance_to_room(world).max() < 1e-4


def test_points_of_the_newest_window_lie_on_the_surfaces_in_the_map(robot):
    seen = robot.see()
    robot.keyframe(seen.stamp_ns)
    cloud = robot.wait_for(lambda: next(
        (c for c in robot.heard['~/points'] if stamp_of(c) == seen.stamp_ns), None))
    assert cloud.header.frame_id == 'map'
    xyz, _ = points_of(cloud)
    window = robot.backend.windows[-1]
    sizes = [np.isfinite(pixels_of(robot.keyframe(k.stamp_ns)['depth'])).sum() for k in window]
    assert len(xyz) == sum(sizes)
    # With odometry, the map starts where odometry did.
    assert distance_to_room(transformed(np.linalg.inv(ODOM_FROM_WORLD), xyz)).max() < 1e-4


def test_the_map_lies_on_the_surfaces_with_z_up(robot):
    cloud = robot.newest('~/map')
    assert cloud.header.frame_id == 'map'
    xyz, _ = points_of(cloud)
    world = transformed(np.linalg.inv(ODOM_FROM_WORLD), xyz)
    # Points of one voxel are averaged, in corners across two walls.
    assert np.percentile(distance_to_room(world), 95) < 1e-4
    assert distance_to_room(world).max() < 0.02
    on_floor = world[:, 2] < 1e-3
    assert on_floor.sum() > 100
    assert np.allclose(xyz[on_floor, 2], ODOM_FROM_WORLD[2, 3], atol=2e-3)
    assert xyz[:, 2].min() > ODOM_FROM_WORLD[2, 3] - 1e-3


def test_the_map_keeps_the_colours_of_the_scene(robot):
    xyz, rgb = points_of(robot.newest('~/map'))
    world = transformed(np.linalg.inv(ODOM_FROM_WORLD), xyz)
    assert np.median(np.abs(rgb - colour_of_room(world))) < 4


def test_path_and_pose_are_the_camera_in_the_map(robot):
    poses = {stamp_of(pose): pose for pose in robot.heard['~/pose']}
    path = {stamp_of(pose): pose for pose in robot.heard['~/path'][-1].poses}
    for seen in robot.first_seen:
        truth = ODOM_FROM_WORLD @ seen.world_from_camera
        for message in (poses[seen.stamp_ns], path[seen.stamp_ns]):
            assert message.header.frame_id == 'map'
            found = matrix_of(message.pose.position, message.pose.orientation)
            assert np.allclose(found, truth, atol=1e-6)
    assert list(path) == sorted(path)


def test_a_path_that_grows_is_converted_once(monkeypatch):
    convert = Mock(wraps=messages.to_pose)
    monkeypatch.setattr(messages, 'to_pose', convert)
    poses = [np.eye(4) for _ in range(3)]
    for number, pose in enumerate(poses):
        pose[0, 3] = number
    maker = messages.PathMaker('map')
    maker.message(list(enumerate(poses[:2])), 9)
    assert convert.call_count == 2
    # A loop has moved the first one.
    poses[0] = poses[0] + 5.0 * np.eye(4, k=3)
    path = maker.message(list(enumerate(poses)), 10)
    assert convert.call_count == 4
    assert [pose.pose.position.x for pose in path.poses] == [5.0, 1.0, 2.0]
    assert [stamp_of(pose) for pose in path.poses] == [0, 1, 2]
    assert maker.message([], 11).poses == []


def test_a_path_has_changed_when_a_pose_is_new_gone_or_moved():
    path = [(number, np.eye(4)) for number in range(3)]
    maker = messages.PathMaker('map')
    assert maker.changed([]), 'nothing was told'
    maker.message(path, 9)
    assert not maker.changed(path)
    assert not maker.changed([(stamp_ns, pose.copy()) for stamp_ns, pose in path])
    moved = path[0][1] + 0.001 * np.eye(4, k=3)
    for other in (path[:2], [*path, (3, np.eye(4))], [(0, moved), *path[1:]], [
            *path[:2], (7, path[2][1])], []):
        assert maker.changed(other)


def test_a_path_that_stays_is_not_sent_again(start):
    robot = start(ODOMETRY)
    robot.mount()
    robot.calibrate()
    robot.explore(3)
    robot.path(3)
    told = len(robot.heard['~/path'])
    robot.node._mapper.publish_map()
    robot.explore(1)
    robot.path(4)
    assert len(robot.heard['~/path']) == told + 1
    assert robot.trigger('reset').success
    robot.wait_for_empty_map()


def test_updates_add_up_to_the_map(robot):
    def added_up():
        points = {}
        for update in robot.heard['~/map_updates']:
            assert update.header.frame_id == 'map'
            rows = np.hstack(points_of(update))
            voxels = np.floor(rows[:, :3].astype(float) / MapConfig().voxel_m).astype(int)
            points.update(zip(map(tuple, voxels), map(tuple, rows), strict=True))
        whole = set(map(tuple, np.hstack(points_of(robot.newest('~/map')))))
        # A mean on the side of its voxel may be rounded out of it.
        return len(whole & set(points.values())) > 0.999 * max(len(whole), len(points))

    robot.wait_for(added_up, 'the same map')


def test_the_whole_map_is_sent_seldom_and_its_changes_at_once(start):
    robot = start({**ODOMETRY, 'map.full_period_s': 3600.0})
    robot.mount()
    robot.calibrate()
    robot.explore(2)
    first = robot.newest('~/map').width
    robot.explore(3)
    robot.path(5)
    updates = robot.wait_for(lambda: len(robot.heard['~/map_updates']) == 4 and (
        robot.heard['~/map_updates']))
    assert [message.width for message in robot.heard['~/map']] == [first]
    whole = len(robot.node._reconstructor.map_points())
    assert updates[0].width == first < whole
    assert all(0 < update.width < whole for update in updates)
    assert robot.trigger('reset').success
    robot.wait_for_empty_map()


def test_a_map_that_starts_again_is_sent_as_a_whole(start):
    # No keyframe and no odometry ties one window to another.
    robot = start({'window.size': 2, 'window.overlap': 0, 'map.full_period_s': 3600.0})
    robot.mount()
    robot.calibrate()
    for count in (1, 2, 3):
        while robot.keyframes_taken() < 2 * count:
            taken = robot.keyframes_taken()
            robot.see()
            robot.wait_for(lambda taken=taken: robot.keyframes_taken() > taken, 'a keyframe')
        robot.wait_for(lambda count=count: len(robot.heard['~/map']) == count, 'a new map')
    robot.wait_for(lambda: robot.warnings('new_segment') == 2, 'new segments')
    assert robot.heard['~/map'][-1].width == len(robot.node._reconstructor.map_points())


def test_a_map_that_nobody_hears_is_not_made_until_somebody_does(start, monkeypatch):
    robot = start(ODOMETRY)
    for topic in ('~/map', '~/map_updates'):
        robot.deafen(topic)
    reconstructor = robot.node._reconstructor
    points, updates = (Mock(wraps=make) for make in (
        reconstructor.map_points, reconstructor.map_updates))
    monkeypatch.setattr(reconstructor, 'map_points', points)
    monkeypatch.setattr(reconstructor, 'map_updates', updates)
    robot.mount()
    robot.calibrate()
    robot.explore(3)
    robot.path(3)
    assert not points.called
    robot.listen(PointCloud2, '~/map')
    assert robot.newest('~/map').width > 1000
    assert points.called
    assert not updates.called


def test_of_what_nobody_hears_nothing_is_made(start, monkeypatch):
    """No pixel is packed; what is asked for is made, and no more; a late path is whole."""
    robot = start(ODOMETRY)
    for topic in OUTPUTS:
        if topic.startswith('~'):
            robot.deafen(topic)
    made = Counter()

    def counted(module, name):
        make = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: (
            made.update([name]) or make(*arguments)))

    for module, name in (
            (messages, 'to_image'), (messages, 'to_camera_info'), (messages, 'pack_points'),
            (messages, 'pack_cloud'), (messages, 'to_pose'), (publishers, 'pack_points'),
            (publishers, 'to_pose'), (publishers, 'to_cloud')):
        counted(module, name)
    robot.mount()
    robot.calibrate()

    def explore(windows: int) -> None:
        robot.see()
        robot.wait_for(lambda: int(robot.status().get('windows', 0)) >= windows, 'a window')

    robot.see()
    robot.wait_for(lambda: robot.keyframes_taken() == 1)
    explore(1)
    explore(2)
    assert not made, 'nobody listens'
    robot.listen(Image, '~/keyframe/depth')
    explore(3)
    robot.wait_for(lambda: robot.heard['~/keyframe/depth'], 'depth')
    assert made == {'to_image': 1}
    robot.listen(Path, '~/path')
    robot.path(4)
    assert made == {'to_image': 1, 'to_pose': 4}


def test_a_late_subscriber_gets_the_map(robot):
    robot.listen(PointCloud2, '/mapanything/map', LATCHED)
    assert robot.newest('/mapanything/map').width == robot.newest('~/map').width > 1000


def test_a_distorted_image_is_rectified(start):
    robot = start(ODOMETRY)
    robot.mount()
    projection = K * [[0.9], [0.95], [1.0]]
    robot.calibrate(camera_info(distortion=DISTORTION, projection=projection))
    robot.backend.colour_tolerance = 3.0
    stamps = []
    for _ in range(2):
        distorted = robot.look(distortion=DISTORTION)
        rgb, depth_m = view_room(distorted.world_from_camera, projection)
        robot.backend.seen[distorted.stamp_ns] = seen = replace(
            distorted, rgb=rgb, depth_m=depth_m)
        robot.send(seen, image(distorted.rgb, 'rgb8', seen.stamp_ns))
        stamps.append(seen.stamp_ns)
    messages = robot.keyframe(stamps[1])
    error = colour_error(messages, seen)
    # The corners saw nothing of what they show now.
    assert np.percentile(error[6:-6, 8:-8], 99) < 6
    assert np.abs(distorted.rgb.astype(float) - rgb).mean() > 20, 'the test would see no effect'
    assert np.allclose(intrinsics_of(messages['camera_info']), halved(projection))
    assert not any(messages['camera_info'].d)


def test_an_image_that_is_rectified_already_stays(start):
    robot = start({**ODOMETRY, 'rectified': True})
    robot.mount()
    # image_proc leaves K and D of the raw image in camera_info.
    robot.calibrate(camera_info(K * [[1.3], [1.3], [1]], distortion=DISTORTION, projection=K))
    seen = robot.explore(2)[1]
    messages = robot.keyframe(seen.stamp_ns)
    assert colour_error(messages, seen).max() <= 1
    assert np.allclose(intrinsics_of(messages['camera_info']), halved(K))


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_depth_reaches_the_backend_in_metres(start, encoding):
    robot = start({**ODOMETRY, 'use_depth': True})
    robot.mount()
    robot.calibrate()
    for _ in range(2):
        seen = robot.look()
        if encoding == '16UC1':
            depth = image(np.rint(seen.depth_m * 1000).astype(np.uint16), '16UC1', seen.stamp_ns)
        else:
            holes = np.where(seen.depth_m == 0, np.nan, seen.depth_m).astype(np.float32)
            depth = image(holes, '32FC1', seen.stamp_ns)
        robot.send(seen, depth=depth)
    robot.keyframe(seen.stamp_ns)
    received = robot.backend.windows[-1][-1].depth_m
    assert np.array_equal(received == 0, seen.depth_m == 0)
    assert np.abs(received - seen.depth_m).max() <= (0.00051 if encoding == '16UC1' else 0)


def test_depth_is_rectified_as_the_image_is(start):
    robot = start({**ODOMETRY, 'use_depth': True})
    robot.mount()
    robot.calibrate(camera_info(distortion=DISTORTION))
    robot.backend.colour_tolerance = 3.0
    for _ in range(2):
        distorted = robot.look(distortion=DISTORTION)
        rgb, depth_m = view_room(distorted.world_from_camera)
        robot.backend.seen[distorted.stamp_ns] = seen = replace(
            distorted, rgb=rgb, depth_m=depth_m)
        robot.send(
            seen, image(distorted.rgb, 'rgb8', seen.stamp_ns),
            image(distorted.depth_m, '32FC1', seen.stamp_ns))
    robot.keyframe(seen.stamp_ns)
    received = robot.backend.windows[-1][-1].depth_m
    both = (received > 0) & (depth_m > 0)
    assert both.sum() > 0.9 * (depth_m > 0)[12:-12, 16:-16].sum()
    # The nearest pixel is taken, so that a slope shifts by half a pixel at most.
    assert np.percentile(np.abs(received - depth_m)[both] / depth_m[both], 99) < 0.01
    assert np.abs(distorted.depth_m - depth_m)[both].max() > 0.1, 'the test would see no effect'


def test_without_odometry_the_map_starts_level_with_the_camera(start):
    robot = start()
    robot.calibrate()
    first, second = robot.explore(2)
    poses = robot.path(2).poses
    found = matrix_of(poses[1].pose.position, poses[1].pose.orientation)
    world_from_map = first.world_from_camera @ np.linalg.inv(BODY_FROM_OPTICAL)
    assert np.allclose(world_from_map @ found, second.world_from_camera, atol=1e-6)
    assert robot.backend.windows[0][0].odom_from_camera is None


def test_with_a_base_frame_alone_the_map_starts_at_the_base(start):
    robot = start({'tf.base_frame': 'base'})
    robot.mount()
    robot.calibrate()
    first, second = robot.explore(2)
    poses = robot.path(2).poses
    found = matrix_of(poses[1].pose.position, poses[1].pose.orientation)
    world_from_map = first.world_from_camera @ np.linalg.inv(BASE_FROM_CAMERA)
    assert np.allclose(world_from_map @ found, second.world_from_camera, atol=1e-6)


def test_without_calibration_the_backend_is_given_none(start):
    robot = start({'use_camera_info': False})
    seen = robot.explore(2)[1]
    robot.keyframe(seen.stamp_ns)
    assert [keyframe.intrinsics for keyframe in robot.backend.windows[-1]] == [None, None]


def test_geometry_without_metric_scale_is_marked(start):
    robot = start()
    robot.backend.scale = 0.5
    robot.calibrate()
    seen = robot.explore(2)[1]
    depth = pixels_of(robot.keyframe(seen.stamp_ns)['depth'])
    truth = view_room(seen.world_from_camera, halved(K), WIDTH // 2, HEIGHT // 2)[1]
    assert np.allclose(depth[truth > 0], 0.5 * truth[truth > 0])
    status = robot.wait_for(
        lambda: 'not metres' in robot.status().get('message', '') and robot.status())
    assert status['scale_source'] == 'none'


def test_sensors_may_send_best_effort(start):
    robot = start(ODOMETRY, reliability=ReliabilityPolicy.BEST_EFFORT)
    robot.mount()
    robot.calibrate()
    robot.explore(2)
