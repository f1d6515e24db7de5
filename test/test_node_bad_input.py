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

"""Bad input over DDS: a clear warning, nothing lost, and the next good message works."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from helpers import (
    camera_info,
    compressed,
    halved,
    header,
    HEIGHT,
    image,
    K,
    pixels_of,
    stamp_of,
    transform,
    view_room,
    WIDTH,
)
import numpy as np
import pytest
from robot import ODOMETRY, Robot
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.config import Config
from mapanything_ros.core.errors import AlignmentError, ReconstructionError

SECOND_NS = 10**9


def prepared(robot: Robot) -> Robot:
    """Give the robot a map."""
    if 'tf.odom_frame' in robot.parameters:
        robot.mount()
    robot.calibrate()
    robot.explore(2)
    return robot


@pytest.fixture(scope='module')
def robot(start_shared) -> Robot:
    """Start a node with odometry that goes through all kinds of bad images in its life."""
    return prepared(start_shared(ODOMETRY))


@pytest.fixture(scope='module')
def jpeg_robot(start_shared) -> Robot:
    """Start a node that reads compressed images."""
    robot = start_shared({**ODOMETRY, 'image_transport': 'compressed'})
    robot.encode = lambda seen: compressed(seen.rgb, 'jpg', seen.stamp_ns)
    return prepared(robot)


@pytest.fixture(scope='module')
def depth_robot(start_shared) -> Robot:
    """Start a node that waits for depth."""
    return prepared(start_shared({**ODOMETRY, 'use_depth': True}))


@contextmanager
def nothing_lost(robot: Robot) -> Iterator[None]:
    """Check that the map stays and that the next good image goes into it."""
    known = {stamp_ns for stamp_ns, _ in robot.node._reconstructor.trajectory()}
    points = len(robot.node._reconstructor.map_points())
    maps = len(robot.heard['~/map'])
    assert known and points
    yield
    seen = robot.explore(1)[0]
    path = robot.wait_for(lambda: next((
        path for path in robot.heard['~/path'][::-1]
        if path.poses and stamp_of(path.poses[-1]) == seen.stamp_ns), None))
    assert known < {stamp_of(pose) for pose in path.poses}
    robot.wait_for(lambda: len(robot.heard['~/map']) > maps)
    assert robot.heard['~/map'][-1].width >= points


def good(robot: Robot) -> Image:
    """Look and return the image; odometry of its time is sent."""
    seen = robot.look()
    robot.move_to(seen)
    return image(seen.rgb, 'rgb8', seen.stamp_ns)


# Images


@pytest.mark.parametrize('encoding', ['nv24', '32FC1', '', 'no such thing'])
def test_an_unknown_encoding(robot, encoding):
    with nothing_lost(robot), robot.warned('image', repr(encoding), 'bgr8'):
        message = good(robot)
        message.encoding = encoding
        robot.images.publish(message)


@pytest.mark.parametrize('step', [0, 3 * WIDTH - 1, 1])
def test_a_step_that_is_too_small(robot, step):
    with nothing_lost(robot), robot.warned('image', f'step {step}'):
        message = good(robot)
        message.step = step
        robot.images.publish(message)


@pytest.mark.parametrize('step', [3 * WIDTH + 1, 2**31])
def test_a_step_that_is_too_large(robot, step):
    with nothing_lost(robot), robot.warned('image', str(3 * WIDTH * HEIGHT)):
        message = good(robot)
        message.step = step
        robot.images.publish(message)


@pytest.mark.parametrize('kept', [0, 1, -1])
def test_data_that_is_too_short(robot, kept):
    with nothing_lost(robot), robot.warned('image', 'bytes', str(3 * WIDTH * HEIGHT)):
        message = good(robot)
        message.data = message.data[:kept]
        robot.images.publish(message)


@pytest.mark.parametrize('size', [(0, 0), (WIDTH, 0), (0, HEIGHT)])
def test_an_empty_image(robot, size):
    with nothing_lost(robot), robot.warned('image', f'{size[0]}x{size[1]}'):
        message = good(robot)
        message.width, message.height = size
        message.data = b''
        robot.images.publish(message)


def test_a_size_that_changes_without_the_calibration(robot):
    with nothing_lost(robot), robot.warned('image', '80x60', '160x120'):
        message = good(robot)
        smaller = image(pixels_of(message)[::2, ::2], 'rgb8', stamp_of(message))
        robot.images.publish(smaller)


def test_a_size_that_changes_with_the_calibration(robot):
    half = halved(K)
    with nothing_lost(robot):
        robot.calibrate(camera_info(half, WIDTH // 2, HEIGHT // 2))
        seen = robot.look(intrinsics=half, width=WIDTH // 2, height=HEIGHT // 2)
        robot.send(seen)
        messages = robot.keyframe(seen.stamp_ns)
        truth = view_room(seen.world_from_camera, halved(half), WIDTH // 4, HEIGHT // 4)[1]
        assert np.allclose(np.nan_to_num(pixels_of(messages['depth'])), truth, atol=1e-6)
        assert np.allclose(np.array(messages['camera_info'].k).reshape(3, 3), halved(half))
        robot.calibrate()


def test_an_empty_frame_id(robot):
    with nothing_lost(robot), robot.warned('frame_id_empty', 'frame_id', 'driver'):
        message = good(robot)
        message.header.frame_id = ''
        robot.images.publish(message)


@pytest.mark.parametrize('frame_id', ['nowhere', '/camera_optical'])
def test_a_frame_that_tf_does_not_know(robot, frame_id):
    with nothing_lost(robot), robot.warned('no_transform', frame_id, 'odom'):
        message = good(robot)
        message.header.frame_id = frame_id
        robot.images.publish(message)


# Compressed images


@pytest.mark.parametrize('share', [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_jpeg(jpeg_robot, share):
    with nothing_lost(jpeg_robot), jpeg_robot.warned('image', 'bytes', 'cut off'):
        seen = jpeg_robot.look()
        jpeg_robot.move_to(seen)
        message = compressed(seen.rgb, 'jpg', seen.stamp_ns)
        message.data = message.data[:int(share * len(message.data))]
        jpeg_robot.compressed.publish(message)


@pytest.mark.parametrize('data', [b'', b'no picture at all', b'\xff\xd8\xff\xd9'])
def test_data_that_is_no_picture(jpeg_robot, data):
    with nothing_lost(jpeg_robot), jpeg_robot.warned('image', f'{len(data)} bytes'):
        seen = jpeg_robot.look()
        jpeg_robot.move_to(seen)
        message = compressed(seen.rgb, 'jpg', seen.stamp_ns)
        message.data = data
        jpeg_robot.compressed.publish(message)


def test_a_jpeg_with_bytes_behind_its_end(jpeg_robot):
    seen = jpeg_robot.look()
    message = compressed(seen.rgb, 'jpg', seen.stamp_ns)
    message.data = bytes(message.data) + bytes(100)
    jpeg_robot.send(seen, message)
    jpeg_robot.keyframe(seen.stamp_ns)


# Calibration


def changed(message: CameraInfo, **values: object) -> CameraInfo:
    for name, value in values.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(('bad', 'word'), [
    ({'k': [0.0] * 9, 'p': [0.0] * 12}, 'not calibrated'),
    ({'k': [float('nan')] * 9}, 'finite'),
    ({'k': [100.0, 0, 80, 0, 100, 60, 0, 0, 0], 'p': [0.0] * 12}, '0 0 1'),
    ({'d': [float('inf')] * 5}, 'finite'),
    ({'d': [0.1] * 3}, '3 distortion coefficients'),
    ({'distortion_model': 'crystal_ball'}, 'crystal_ball'),
    ({'distortion_model': 'equidistant', 'd': [0.1] * 2}, '2 distortion'),
    ({'width': 0, 'height': 0}, '0x0'),
])
def test_a_calibration_that_cannot_be_used(robot, bad, word):
    with nothing_lost(robot), robot.warned('camera_info', 'camera_info', word):
        robot.infos.publish(changed(camera_info(), **bad))


def test_a_calibration_of_another_size(robot):
    with nothing_lost(robot):
        robot.calibrate(camera_info(K, 2 * WIDTH, 2 * HEIGHT))
        with robot.warned('image', '160x120', '320x240'):
            robot.images.publish(good(robot))
        robot.calibrate()


def test_no_calibration_at_all(start):
    robot = start(ODOMETRY)
    robot.mount()
    with robot.warned('no_camera_info', 'remap camera_info'):
        robot.see()
    robot.calibrate()
    robot.explore(2)


# Depth


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, -2.0, 0.0])
def test_depth_without_one_good_pixel(depth_robot, value):
    robot = depth_robot
    with nothing_lost(robot), robot.warned('depth', 'depth', 'without depth'):
        seen = robot.look()
        bad = np.full((HEIGHT, WIDTH), value, np.float32)
        robot.send(seen, depth=image(bad, '32FC1', seen.stamp_ns))
        robot.keyframe(seen.stamp_ns)
        assert robot.backend.windows[-1][-1].depth_m is None


def test_depth_with_bad_pixels_loses_only_those(depth_robot):
    robot = depth_robot
    seen = robot.look()
    depth = seen.depth_m.copy()
    depth[10:40, 20:50] = np.random.default_rng(0).choice(
        [np.nan, np.inf, -np.inf, -1.0], (30, 30))
    robot.send(seen, depth=image(depth, '32FC1', seen.stamp_ns))
    robot.keyframe(seen.stamp_ns)
    expected = seen.depth_m.copy()
    expected[10:40, 20:50] = 0
    assert np.array_equal(robot.backend.windows[-1][-1].depth_m, expected)


@pytest.mark.parametrize(('encoding', 'kind'), [('8UC1', np.uint8), ('64FC1', np.float64)])
def test_depth_of_an_unknown_encoding(depth_robot, encoding, kind):
    robot = depth_robot
    with nothing_lost(robot), robot.warned('depth', repr(encoding), '32FC1', 'without depth'):
        seen = robot.look()
        robot.send(seen, depth=image(seen.depth_m.astype(kind), encoding, seen.stamp_ns))
        robot.keyframe(seen.stamp_ns)


def test_depth_of_another_size(depth_robot):
    robot = depth_robot
    with nothing_lost(robot), robot.warned('depth', '80x60', 'without depth'):
        seen = robot.look()
        half = np.ascontiguousarray(seen.depth_m[::2, ::2])
        robot.send(seen, depth=image(half, '32FC1', seen.stamp_ns))
        robot.keyframe(seen.stamp_ns)


def test_depth_of_another_time(depth_robot):
    robot = depth_robot
    with nothing_lost(robot), robot.warned('no_depth', 'depth_slop_s', 'use_depth'):
        seen = robot.look()
        robot.send(seen, depth=image(seen.depth_m, '32FC1', seen.stamp_ns - SECOND_NS // 20))


# Stamps


def test_a_stamp_that_comes_twice(robot):
    with nothing_lost(robot), robot.warned('stamp_repeated', 'same stamp'):
        seen = robot.explore(1)[0]
        robot.send(replace(seen, rgb=255 - seen.rgb))


def test_a_stamp_that_goes_back(robot):
    with nothing_lost(robot), robot.warned('stamp_backwards', 'older'):
        seen = robot.explore(1)[0]
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns - SECOND_NS))


def test_no_stamp(robot):
    with nothing_lost(robot), robot.warned('stamp_zero', 'no stamp'):
        message = good(robot)
        message.header.stamp.sec = message.header.stamp.nanosec = 0
        robot.images.publish(message)


@pytest.mark.parametrize('ahead_s', [10, 10**9])
def test_a_stamp_in_the_far_future(robot, ahead_s):
    with nothing_lost(robot), robot.warned('stamp_future', 'future', 'use_sim_time'):
        message = good(robot)
        now_s = robot.node.get_clock().now().nanoseconds // SECOND_NS
        message.header.stamp.sec = min(now_s + ahead_s, 2**31 - 1)
        robot.images.publish(message)


def test_a_bag_that_starts_again_without_a_clock(start):
    robot = prepared(start(ODOMETRY))
    robot.explore(3)
    before_ns = robot.next_ns
    robot.next_ns -= 40 * SECOND_NS
    for refused in (1, 2):
        robot.see()
        robot.wait_for(lambda n=refused: robot.warnings('stamp_backwards') == n)
    assert len(robot.heard['~/path'][-1].poses) == 5, 'two stray images do not end a map'
    robot.see()
    robot.wait_for_empty_map()
    robot.explore(3, anew=True)
    path = robot.path(3)
    assert all(stamp_of(pose) < before_ns for pose in path.poses)


# Transforms


def test_a_transform_that_does_not_come(robot):
    with nothing_lost(robot), robot.warned('no_transform', 'camera_optical', 'odom', '0.4 s'):
        seen = robot.look()
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))


def test_a_transform_that_comes_late(robot):
    with nothing_lost(robot):
        seen = robot.look()
        images = robot.node._images
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))
        robot.wait_for(lambda: robot.node._images > images)
        robot.move_to(seen)
        robot.keyframe(seen.stamp_ns)


@pytest.mark.parametrize('back_s', [3, 30])
def test_transforms_that_loop_in_time(robot, back_s):
    with nothing_lost(robot):
        for _ in range(5):
            seen = robot.look()
            robot.move_to(replace(seen, stamp_ns=seen.stamp_ns - back_s * SECOND_NS))


def test_a_transform_that_is_not_finite(robot):
    with nothing_lost(robot), robot.warned('no_transform', 'odom'):
        seen = robot.look()
        message = transform(np.eye(4), header(seen.stamp_ns, 'odom'), 'base')
        message.transform.translation.x = float('nan')
        robot.tf.publish(TFMessage(transforms=[message]))
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))


# Clocks


def test_a_clock_that_jumps_back(start):
    robot = start({**ODOMETRY, 'use_sim_time': True})
    robot.tick(robot.next_ns)
    prepared(robot)
    robot.explore(2)
    before_ns = robot.next_ns
    robot.next_ns -= 40 * SECOND_NS
    robot.tick(robot.next_ns)
    robot.wait_for_empty_map()
    robot.explore(3, anew=True)
    path = robot.path(3)
    assert all(stamp_of(pose) < before_ns for pose in path.poses)
    robot.wait_for(lambda: robot.status()['windows'] == '5')
    assert robot.warnings('new_segment') == 0, 'it was asked for'


def test_a_clock_that_does_not_come(start):
    robot = start({'use_sim_time': True})
    robot.wait_for(lambda: '/clock' in robot.status().get('message', ''), 'a diagnosis')
    assert 'play the bag with --clock' in robot.status()['message']
    with robot.warned('stamp_future'):
        seen = robot.look()
        robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))
    robot.tick(robot.next_ns)
    robot.calibrate()
    robot.explore(2)


# What nobody has thought of


def test_an_unexpected_error_is_traced_once_in_a_while(start, monkeypatch, capfd):
    robot = prepared(start(ODOMETRY))

    def fail(*arguments):
        raise ZeroDivisionError('on purpose')

    with nothing_lost(robot), monkeypatch.context() as patch:
        patch.setattr(robot.node._assembler, 'add_image', fail)
        for count in range(1, 6):
            with robot.warned('internal', "ZeroDivisionError('on purpose')"):
                robot.images.publish(good(robot))
            assert robot.warnings('internal') == count
    assert capfd.readouterr().err.count('Traceback') == 1


# Windows


@pytest.mark.parametrize(('failure', 'kind'), [
    (ReconstructionError('only 2 of 6 images could be matched'), 'window_failed'),
    (AlignmentError('the window does not fit'), 'window_rejected'),
    (RuntimeError('CUDA out of memory'), 'window_error'),
])
def test_a_window_that_fails(robot, failure, kind):
    with nothing_lost(robot):
        robot.backend.failure = failure
        with robot.warned(kind, str(failure)):
            robot.see()
        robot.backend.failure = None


@pytest.mark.parametrize('parameters', [ODOMETRY, {'keyframes.max_interval_s': 0.05}])
def test_a_scene_without_texture_through_the_real_backend(start, parameters):
    robot = start({**parameters, 'window.size': 3, 'window.overlap': 2})
    robot.backend.infer = create_backend(Config(backend='colmap', device='cpu')).infer
    if 'tf.odom_frame' in parameters:
        robot.mount()
    robot.calibrate()
    with robot.warned('window_failed', '3 keyframes failed'):
        for count in range(1, 4):
            seen = robot.look()
            robot.backend.seen[seen.stamp_ns] = replace(seen, rgb=np.full_like(seen.rgb, 128))
            robot.send(robot.backend.seen[seen.stamp_ns])
            robot.wait_for(lambda n=count: robot.keyframes_taken() == n)
    assert robot.status()['windows'] == '0'
    assert not robot.heard['~/points'], 'nothing is made up'
    del robot.backend.infer
    robot.explore(3)
