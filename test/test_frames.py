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
from mapanything_ros.ros.depths import MAX_KEPT
from mapanything_ros.ros.frames import FrameAssembler, MAX_WAITING
from mapanything_ros.ros.reporter import Reporter

START_NS = 1_700_000_000_123_456_789
SECOND_NS = 10**9
MS = 10**6
DEPTH_FRAME = 'depth_optical'
DEPTH_K = np.array([[59.0, 0.0, 38.4], [0.0, 60.5, 30.8], [0.0, 0.0, 1.0]])
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

    def add_depth(self, stamp_ns: int, mm: int = 2500, frame_id: str = FRAME) -> None:
        message = image(np.full((120, 160), mm, np.uint16), '16UC1', stamp_ns)
        message.header.frame_id = frame_id
        self.assembler.add_depth(message)

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


@pytest.fixture
def with_depth(bench):
    """Give a bench that wants depth and has the calibration of the image."""
    bench = bench(use_depth=True)
    bench.assembler.add_camera_info(camera_info())
    return bench


def test_an_image_takes_depth_of_its_own_stamp_at_once(with_depth):
    with_depth.add(START_NS)
    with_depth.add_depth(START_NS - 33 * MS)
    assert with_depth.stamps() == []
    with_depth.add_depth(START_NS)
    [frame] = with_depth.assembler.frames()
    assert np.allclose(frame.keyframe(0).depth_m, 2.5)


@pytest.mark.parametrize(('offsets_ms', 'nearest'), [
    ([3], 0), ([-3, 30], 0), ([-16, 15], 1), ([-9, 9.5], 0), ([-16, -2, 1, 14], 2)])
def test_an_image_takes_the_nearest_depth_within_the_slop(with_depth, offsets_ms, nearest):
    with_depth.add(START_NS)
    for number, offset_ms in enumerate(offsets_ms):
        with_depth.add_depth(START_NS + round(offset_ms * MS), 1000 + number)
    [frame] = with_depth.assembler.frames()
    assert np.allclose(frame.keyframe(0).depth_m, 1 + nearest / 1000)


def test_depth_before_the_image_is_taken_when_newer_depth_or_none_comes(with_depth):
    """A nearer one may still be on its way."""
    with_depth.add_depth(START_NS - 3 * MS)
    with_depth.add(START_NS)
    assert with_depth.stamps() == []
    with_depth.add_depth(START_NS + 30 * MS)
    assert with_depth.stamps() == [START_NS]
    with_depth.add(START_NS + 33 * MS)
    assert with_depth.stamps() == []
    with_depth.clock_s += 1.01
    assert with_depth.stamps() == [START_NS + 33 * MS]
    assert not with_depth.reporter.counts


def test_an_image_between_two_depths_is_passed_over_at_once_and_counted(with_depth):
    with_depth.add_depth(START_NS)
    with_depth.add(START_NS + 33 * MS)
    with_depth.add(START_NS + 66 * MS)
    assert with_depth.stamps() == []
    with_depth.add_depth(START_NS + 67 * MS)
    assert with_depth.stamps() == [START_NS + 66 * MS]
    assert with_depth.assembler.without_depth == 1
    assert not with_depth.reporter.counts


@pytest.mark.parametrize('offset_ms', [50, -40])
def test_depth_that_never_fits_is_reported_with_its_distance(bench, offset_ms):
    bench = bench(use_depth=True)
    bench.assembler.add_camera_info(camera_info())
    for step in range(12):
        stamp_ns = START_NS + step * SECOND_NS // 2
        bench.add_depth(stamp_ns + offset_ms * MS)
        bench.add(stamp_ns)
        bench.add_depth(stamp_ns + offset_ms * MS + SECOND_NS // 4)
        assert bench.stamps() == []
    assert bench.reporter.counts == {'depth_apart': 1}
    assert f'{abs(offset_ms) / 1000:.3f} s off' in bench.reporter.latest
    assert 'depth_slop_s' in bench.reporter.latest


@pytest.mark.parametrize('wrong_ns', [10**18, -3600 * SECOND_NS])
def test_one_depth_image_with_a_wrong_stamp_does_no_harm_for_long(with_depth, wrong_ns):
    with_depth.add_depth(START_NS + wrong_ns)
    for step in range(2):
        with_depth.add_depth(START_NS + step * 33 * MS)
    with_depth.add(START_NS + 66 * MS)
    assert with_depth.stamps() == []
    with_depth.add_depth(START_NS + 67 * MS)
    assert with_depth.stamps() == [START_NS + 66 * MS]


def used(
    bench, *, image_hz=30, depth_hz=30, off_ms=0.0, jitter_ms=0.0, late_ms=5.0, images=300,
) -> tuple[int, float]:
    """
    Feed a stream; return how many images were used, and how many seconds they waited, on average.

    Depth is stamped ``off_ms`` (and jitter) after the image and comes ``late_ms`` after its own
    time; what waits is looked at for each image and every 20 ms, as the node does.
    """
    image_ns = [START_NS + round(step * 1e9 / image_hz) for step in range(images)]
    count = int(images * depth_hz / image_hz) + depth_hz
    offsets_ms = off_ms + np.random.default_rng(0).uniform(-jitter_ms, jitter_ms, count)
    depth_ns = [
        START_NS + round(step * 1e9 / depth_hz + offset_ms * MS)
        for step, offset_ms in enumerate(offsets_ms)]
    events = [(stamp_ns + round(late_ms * MS), 1, stamp_ns) for stamp_ns in depth_ns]
    events += [(stamp_ns + 5 * MS, 2, stamp_ns) for stamp_ns in image_ns]
    events += [(now_ns, 3, 0) for now_ns in range(START_NS, image_ns[-1] + SECOND_NS, 20 * MS)]
    waited_s = []
    for now_ns, kind, stamp_ns in sorted(events):
        bench.clock_s = (now_ns - START_NS) * 1e-9
        if kind == 1:
            bench.add_depth(stamp_ns)
            continue
        if kind == 2:
            bench.add(stamp_ns)
        waited_s += [(now_ns - 5 * MS - stamp) * 1e-9 for stamp in bench.stamps()]
    return len(waited_s), float(np.mean(waited_s))


@pytest.mark.parametrize(('stream', 'images', 'seconds'), [
    ({}, 300, 0.0),
    ({'off_ms': 1}, 300, 0.02), ({'off_ms': 3}, 300, 0.02),
    ({'off_ms': -1}, 300, 0.034), ({'off_ms': -3}, 300, 0.034),
    ({'off_ms': 3, 'jitter_ms': 5}, 300, 0.034),
    ({'late_ms': 105}, 300, 0.12), ({'late_ms': -20}, 300, 0.0),
    ({'off_ms': 3, 'late_ms': 105}, 300, 0.123),
    ({'depth_hz': 15}, 150, 0.0), ({'depth_hz': 15, 'off_ms': 3}, 150, 0.02),
    ({'depth_hz': 15, 'off_ms': 3, 'late_ms': 105}, 150, 0.123),
    ({'image_hz': 15, 'off_ms': 3}, 300, 0.02), ({'image_hz': 30, 'depth_hz': 6}, 60, 0.0)])
def test_depth_as_cameras_stamp_it_is_used_and_not_waited_for_in_vain(
        with_depth, stream, images, seconds):
    count, waited_s = used(with_depth, **stream)
    assert count == images
    assert waited_s <= seconds + 1e-6
    assert not with_depth.reporter.counts


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
    bench = bench(use_camera_info=False, **WITH_ODOMETRY)
    bench.mount()
    for step in range(3):
        bench.add(START_NS + step)
    bench.move(START_NS + 1)
    bench.move(START_NS + 2)
    assert bench.stamps() == []
    bench.move(START_NS)
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
    bench = bench(use_camera_info=False, **WITH_ODOMETRY)
    bench.mount()
    bench.add(START_NS)
    bench.clock_s += 0.5
    bench.add(START_NS + 1)
    bench.move(START_NS + 1)
    bench.clock_s += 0.6
    assert bench.stamps() == [START_NS + 1]


def test_not_too_many_images_wait_and_the_oldest_go(bench):
    bench = bench()
    for step in range(MAX_WAITING + 5):
        bench.add(START_NS + step)
    assert bench.reporter.counts == {'waiting_full': 5}
    bench.assembler.add_camera_info(camera_info())
    assert bench.stamps() == [START_NS + step for step in range(5, MAX_WAITING + 5)]


def test_not_too_much_depth_is_kept_and_the_oldest_goes(with_depth):
    for step in range(MAX_KEPT + 1):
        with_depth.add_depth(START_NS + step * 33 * MS)
    with_depth.add(START_NS)
    with_depth.add(START_NS + 33 * MS)
    assert with_depth.stamps() == [START_NS + 33 * MS]


def test_depth_of_another_frame_waits_for_its_calibration_and_transform(with_depth):
    """The wall is 2.5 m before the depth camera, which stands 0.3 m behind the image's."""
    with_depth.add(START_NS)
    with_depth.add_depth(START_NS, frame_id=DEPTH_FRAME)
    assert with_depth.stamps() == []
    with_depth.assembler.add_depth_camera_info(camera_info())
    assert with_depth.stamps() == [], "the calibration of the image's frame does not count"
    info = camera_info()
    info.header.frame_id = DEPTH_FRAME
    with_depth.assembler.add_depth_camera_info(info)
    assert with_depth.stamps() == []
    behind = np.eye(4)
    behind[2, 3] = -0.3
    with_depth.buffer.set_transform_static(
        transform(behind, header(1, FRAME), DEPTH_FRAME), 'test')
    [frame] = with_depth.assembler.frames()
    depth_m = frame.keyframe(0).depth_m
    assert depth_m.shape == (120, 160)
    assert np.allclose(depth_m[15:-15, 15:-15], 2.2)


@pytest.mark.parametrize(('calibrated', 'kind', 'words'), [
    (False, 'no_depth_camera_info', ('remap depth/camera_info', DEPTH_FRAME, FRAME)),
    (True, 'no_depth_transform', ('TF does not tie the two', DEPTH_FRAME, FRAME))])
def test_what_unregistered_depth_lacks_is_said(with_depth, calibrated, kind, words):
    with_depth.add(START_NS)
    with_depth.add_depth(START_NS, frame_id=DEPTH_FRAME)
    if calibrated:
        info = camera_info()
        info.header.frame_id = DEPTH_FRAME
        with_depth.assembler.add_depth_camera_info(info)
    with_depth.clock_s += 1.01
    assert with_depth.stamps() == []
    assert with_depth.reporter.counts == {kind: 1}
    for word in words:
        assert word in with_depth.reporter.latest


def test_depth_of_the_same_frame_and_half_the_size_is_enlarged(with_depth):
    with_depth.assembler.add_depth_camera_info(camera_info(DEPTH_K, 80, 60))
    with_depth.add(START_NS)
    with_depth.assembler.add_depth(image(np.full((60, 80), 2500, np.uint16), '16UC1', START_NS))
    [frame] = with_depth.assembler.frames()
    depth_m = frame.keyframe(0).depth_m
    assert depth_m.shape == (120, 160)
    assert np.allclose(depth_m, 2.5)


@pytest.mark.parametrize('calibration', [None, camera_info()])
def test_depth_of_another_size_without_calibration_is_reported(with_depth, calibration):
    if calibration:
        with_depth.assembler.add_depth_camera_info(calibration)
    with_depth.add(START_NS)
    with_depth.assembler.add_depth(image(np.full((60, 80), 2500, np.uint16), '16UC1', START_NS))
    [frame] = with_depth.assembler.frames()
    assert frame.keyframe(0).depth_m is None
    assert with_depth.reporter.counts == {'depth': 1}
    assert 'it is 80x60, but the image is 160x120' in with_depth.reporter.latest


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
