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

"""Images wait for what belongs to them, in order; nothing is decoded before it is asked for."""

from helpers import (
    BASE_FROM_CAMERA,
    camera_info,
    compressed,
    FRAME,
    header,
    image,
    K,
    ODOM_FROM_WORLD,
    transform,
)
import numpy as np
import pytest
from rclpy.logging import get_logger
from sensor_msgs.msg import Image
from tf2_ros import Buffer

from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.errors import InputError
from mapanything_ros.ros.frames import FrameAssembler, MAX_WAITING
from mapanything_ros.ros.reporter import Reporter

START_NS = 1_700_000_000_123_456_789
SECOND_NS = 10**9
WITH_ODOMETRY = {'pose_source': 'tf', 'tf.odom_frame': 'odom', 'tf.base_frame': 'base'}


class Bench:
    """An assembler, and hands to feed it; ``clock_s`` is the time that it waits by."""

    def __init__(self, **parameters: object) -> None:
        self.buffer = Buffer()
        self.reporter = Reporter(get_logger('test_frames'))
        self.assembler = FrameAssembler(
            from_values(Config, {'tf.timeout_s': 1.0, **parameters}), self.buffer, self.reporter,
            clock=lambda: self.clock_s)
        self.clock_s = 100.0

    def add(self, stamp_ns: int, message: Image | None = None) -> bool:
        picture = np.full((120, 160, 3), 50, np.uint8)
        return self.assembler.add_image(
            message or image(picture, 'rgb8', stamp_ns), START_NS + 3600 * SECOND_NS)

    def add_depth(self, stamp_ns: int) -> None:
        self.assembler.add_depth(
            image(np.full((120, 160), 2500, np.uint16), '16UC1', stamp_ns))

    def move(self, stamp_ns: int) -> None:
        self.buffer.set_transform(
            transform(ODOM_FROM_WORLD, header(stamp_ns, 'odom'), 'base'), 'test')

    def mount(self) -> None:
        self.buffer.set_transform_static(
            transform(BASE_FROM_CAMERA, header(1, 'base'), FRAME), 'test')

    def stamps(self) -> list[int]:
        return [frame.stamp_ns for frame in self.assembler.frames()]


@pytest.fixture
def bench():
    return Bench


def test_an_image_waits_for_its_calibration(bench):
    bench = bench()
    bench.add(START_NS)
    assert bench.stamps() == []
    bench.assembler.add_camera_info(camera_info())
    assert bench.stamps() == [START_NS]
    assert bench.stamps() == [], 'once'
    assert not bench.reporter.counts


def test_an_image_waits_for_its_depth_of_the_same_stamp(bench):
    bench = bench(use_depth=True)
    bench.assembler.add_camera_info(camera_info())
    bench.add(START_NS)
    bench.add_depth(START_NS + 1)
    assert bench.stamps() == []
    bench.add_depth(START_NS)
    [frame] = bench.assembler.frames()
    assert np.allclose(frame.keyframe(0).depth_m, 2.5)


def test_an_image_waits_for_its_transform(bench):
    bench = bench(use_camera_info=False, **WITH_ODOMETRY)
    bench.mount()
    bench.move(START_NS - SECOND_NS)
    bench.add(START_NS)
    assert bench.stamps() == [], 'nothing is extrapolated'
    bench.move(START_NS + SECOND_NS)
    [frame] = bench.assembler.frames()
    assert np.allclose(frame.odom_from_camera, ODOM_FROM_WORLD @ BASE_FROM_CAMERA)
    assert np.allclose(frame.keyframe(0).base_from_camera, BASE_FROM_CAMERA)


def test_images_keep_their_order_while_one_waits(bench):
    bench = bench(use_depth=True)
    bench.assembler.add_camera_info(camera_info())
    for step in range(3):
        bench.add(START_NS + step)
    bench.add_depth(START_NS + 1)
    bench.add_depth(START_NS + 2)
    assert bench.stamps() == []
    bench.add_depth(START_NS)
    assert bench.stamps() == [START_NS, START_NS + 1, START_NS + 2]


@pytest.mark.parametrize(('parameters', 'kind'), [
    ({}, 'no_camera_info'), ({'use_depth': True}, 'no_depth'),
    ({'use_camera_info': False, **WITH_ODOMETRY}, 'no_transform')])
def test_an_image_is_given_up_after_a_while_with_the_reason(bench, parameters, kind):
    bench = bench(**parameters)
    if kind != 'no_camera_info':
        bench.assembler.add_camera_info(camera_info())
    bench.add(START_NS)
    bench.clock_s += 0.99
    assert bench.stamps() == []
    assert not bench.reporter.counts
    bench.clock_s += 0.02
    assert bench.stamps() == []
    assert bench.reporter.counts == {kind: 1}


def test_one_image_that_is_given_up_does_not_hold_the_next(bench):
    bench = bench(use_depth=True)
    bench.assembler.add_camera_info(camera_info())
    bench.add(START_NS)
    bench.clock_s += 0.5
    bench.add(START_NS + 1)
    bench.add_depth(START_NS + 1)
    bench.clock_s += 0.6
    assert bench.stamps() == [START_NS + 1]


def test_not_too_many_images_wait_and_the_oldest_go(bench):
    bench = bench()
    for step in range(MAX_WAITING + 5):
        bench.add(START_NS + step)
    assert bench.reporter.counts == {'waiting_full': 5}
    bench.assembler.add_camera_info(camera_info())
    assert bench.stamps() == [START_NS + step for step in range(5, MAX_WAITING + 5)]


def test_not_too_much_depth_is_kept_and_the_oldest_goes(bench):
    bench = bench(use_depth=True)
    bench.assembler.add_camera_info(camera_info())
    for step in range(MAX_WAITING + 1):
        bench.add_depth(START_NS + step)
    bench.add(START_NS)
    bench.clock_s += 2
    assert bench.stamps() == []
    bench.add(START_NS + 1)
    assert bench.stamps() == [START_NS + 1]


@pytest.mark.parametrize(('message', 'kind'), [
    (image(np.zeros((1, 1), np.uint8), 'mono8', 0), 'stamp_zero'),
    (image(np.zeros((1, 1), np.uint8), 'mono8', START_NS + 7200 * SECOND_NS), 'stamp_future')])
def test_a_stamp_that_cannot_be_is_refused(bench, message, kind):
    bench = bench(use_camera_info=False)
    assert bench.add(0, message) is False
    assert bench.stamps() == []
    assert bench.reporter.counts == {kind: 1}


def test_time_that_is_set_back_is_told_and_what_waited_is_forgotten(bench):
    bench = bench()
    bench.add(START_NS + 100 * SECOND_NS)
    assert [bench.add(START_NS + step) for step in range(3)] == [False, False, True]
    bench.assembler.add_camera_info(camera_info())
    assert bench.stamps() == [START_NS + 2]


def test_reset_forgets_what_waits_but_not_the_calibration(bench):
    bench = bench(use_depth=True)
    bench.assembler.add_camera_info(camera_info())
    bench.add(START_NS + 1)
    bench.add_depth(START_NS)
    bench.assembler.reset()
    bench.add(START_NS)
    assert bench.stamps() == [], 'its depth was forgotten'
    bench.add_depth(START_NS)
    [frame] = bench.assembler.frames()
    assert np.array_equal(frame.keyframe(0).intrinsics, K)


def test_nothing_is_decoded_before_it_is_asked_for(bench):
    bench = bench(use_camera_info=False)
    message = image(np.zeros((4, 6, 3), np.uint8), 'rgb8', START_NS)
    message.encoding = 'broken'
    bench.add(START_NS, message)
    [frame] = bench.assembler.frames()
    with pytest.raises(InputError, match='broken'):
        frame.gray()
    with pytest.raises(InputError, match='broken'):
        frame.keyframe(0)


def test_a_keyframe_has_the_stamp_and_frame_of_its_image(bench):
    bench = bench()
    bench.assembler.add_camera_info(camera_info())
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    bench.add(START_NS, compressed(picture, 'png', START_NS))
    [frame] = bench.assembler.frames()
    keyframe = frame.keyframe(17)
    assert (keyframe.id, keyframe.stamp_ns, keyframe.frame_id) == (17, START_NS, FRAME)
    assert np.array_equal(keyframe.rgb, picture)
    assert keyframe.odom_from_camera is None and keyframe.depth_m is None


def test_a_bad_calibration_leaves_the_last_good_one(bench):
    bench = bench()
    bench.assembler.add_camera_info(camera_info())
    bad = camera_info()
    bad.k = [0.0] * 9
    bad.p = [0.0] * 12
    bench.assembler.add_camera_info(bad)
    bench.add(START_NS)
    [frame] = bench.assembler.frames()
    assert np.array_equal(frame.keyframe(0).intrinsics, K)
    assert bench.reporter.counts == {'camera_info': 1}


def test_a_new_calibration_counts_from_then_on(bench):
    bench = bench()
    for step, scale in enumerate((1.0, 1.1)):
        bench.assembler.add_camera_info(camera_info(K * [[scale], [scale], [1]]))
        bench.add(START_NS + step)
        [frame] = bench.assembler.frames()
        assert frame.keyframe(step).intrinsics[0, 0] == pytest.approx(scale * K[0, 0])
