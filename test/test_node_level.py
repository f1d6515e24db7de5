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

"""An IMU levels the map of the node, over DDS, and the same map of a bag."""

from functools import partial

from helpers import BASE_FROM_CAMERA, matrix_of, rigid, stamp_of
import imu
from imu import (
    CALIBRATED,
    CheapImu,
    G,
    mounted,
    OFFSET,
    tilt_of_map_deg,
    tilted_camera_on_path,
)
import numpy as np
import pytest
from recordings import messages_of, Runs, seen_on_path, START_NS, summary_of, write_bag
import robot
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Imu
from tf2_msgs.msg import TFMessage

from mapanything_ros.offline.tum import read_tum

USE_IMU = {'use_imu': True}


@pytest.fixture(autouse=True)
def tilted(monkeypatch):
    """Tilt the cameras of robots and recordings."""
    for module in ('robot', 'recordings'):
        monkeypatch.setattr(f'{module}.camera_on_path', tilted_camera_on_path)


class Level:
    """A robot with an IMU at 200 Hz."""

    def __init__(self, start, parameters=None, mount=True, **sensor):
        self.robot = start({**USE_IMU, **(parameters or {})})
        self.sensor = CheapImu(np.random.default_rng(1), **{'offset': CALIBRATED, **sensor})
        self.messages = self.robot.peer.create_publisher(Imu, 'imu', 1000)
        self.robot.calibrate()
        self.connect()
        if mount:
            self.mount()

    def connect(self):
        self.robot.wait_for(self.messages.get_subscription_count, 'the node on imu')

    def disconnected(self):
        self.robot.wait_for(
            lambda: self.messages.get_subscription_count() == 0, 'the node off imu')

    def mount(self):
        self.robot.tf_static.publish(TFMessage(transforms=[mounted()]))
        self.robot.wait_for(
            lambda: imu.FRAME in self.robot.node._buffer.all_frames_as_string(), 'the mounting')

    def rest(self):
        """Stand still where the next image is taken, and send a second of the IMU."""
        pose = robot.camera_on_path(self.robot.index)
        end_ns = self.robot.next_ns + 100_000_000
        for message in self.sensor.second(end_ns, pose):
            self.messages.publish(message)
            self.robot.wait_for(partial(self.has, stamp_of(message)), 'the message')

    def has(self, stamp_ns):
        """Say whether the node has a message, or has refused it."""
        detector = self.robot.node._assembler.level._detector
        samples = detector._samples
        return samples[-1][0] == stamp_ns if samples else 'finite' in detector.problem

    def take(self, count):
        """See, and wait until that is a keyframe."""
        seen = self.robot.see()
        self.robot.wait_for(lambda: self.robot.keyframes_taken() == count, f'keyframe {count}')
        return seen

    def tilt_deg(self, all_seen):
        path = self.robot.path(len(all_seen))
        found = [matrix_of(p.pose.position, p.pose.orientation) for p in path.poses]
        return max(
            tilt_of_map_deg(map_from_camera, seen.world_from_camera)
            for map_from_camera, seen in zip(found, all_seen, strict=True))


def test_the_map_of_a_tilted_camera_is_level_and_nobody_listens_any_more(start):
    level = Level(start)
    level.rest()
    all_seen = level.robot.explore(4)
    assert level.tilt_deg(all_seen) < 0.6
    first = level.robot.path(4).poses[0].pose
    assert np.allclose([first.position.x, first.position.y, first.position.z], 0)
    ahead = matrix_of(first.position, first.orientation)[:3, 2]
    assert abs(ahead[1]) < 0.01 and ahead[0] > 0.5, 'the first camera looks along x'
    level.disconnected()
    level.robot.wait_for(lambda: level.robot.status()['levelled'] == '1', 'the diagnostics')
    assert level.robot.warnings('window_doubtful') == 0


def test_without_an_imu_the_same_map_is_not_level(start):
    blind = start()
    blind.calibrate()
    all_seen = blind.explore(2)
    pose = blind.path(2).poses[0].pose
    tilt = tilt_of_map_deg(
        matrix_of(pose.position, pose.orientation), all_seen[0].world_from_camera)
    assert tilt == pytest.approx(22.3, abs=0.1)


def test_an_imu_as_it_comes_from_the_factory_is_off_by_its_offset(start):
    level = Level(start, offset=OFFSET)
    level.rest()
    assert 2 < level.tilt_deg(level.robot.explore(3)) < 6.5


def test_a_base_that_is_on_a_ramp_is_levelled_about_its_origin(start):
    level = Level(start, {'tf.base_frame': 'base'})
    level.robot.mount()
    level.rest()
    all_seen = level.robot.explore(3)
    assert level.tilt_deg(all_seen) < 0.6
    first = level.robot.path(3).poses[0].pose
    camera = matrix_of(first.position, first.orientation)
    assert np.allclose((camera @ np.linalg.inv(BASE_FROM_CAMERA))[:3, 3], 0, atol=1e-6)


def test_a_map_that_begins_while_the_robot_moves_says_that_it_is_not_level(start):
    level = Level(start, shaking=2.0)
    level.rest()
    with level.robot.warned('imu', 'not at rest', 'keep the robot still'):
        level.robot.see()
    with level.robot.warned('window_doubtful', 'not level'):
        all_seen = level.robot.explore(2)
    level.disconnected()
    assert level.robot.status()['levelled'] == '0'
    assert len(all_seen) == 2


def test_a_rest_before_the_first_window_counts_and_what_was_seen_before_is_left_out(start):
    level = Level(start, {'window.size': 3, 'window.overlap': 1})
    for count in (1, 2):
        level.take(count)
    level.rest()
    all_seen = [level.take(count) for count in (3, 4, 5)]
    assert level.tilt_deg(all_seen) < 0.6
    assert level.robot.newest('~/path').poses[0].header.stamp.nanosec == (
        all_seen[0].stamp_ns % 10**9)


def test_after_a_reset_gravity_is_measured_anew(start, monkeypatch):
    level = Level(start)
    level.rest()
    level.robot.explore(2)
    level.robot.path(2)
    level.disconnected()
    assert level.robot.trigger('reset').success
    level.connect()
    level.robot.wait_for_empty_map()
    # Somebody has turned the camera meanwhile; what was measured before would be wrong.
    turned = rigid(Rotation.from_euler('x', 35, degrees=True), [0, 0, 0])
    monkeypatch.setattr(robot, 'camera_on_path', lambda i: tilted_camera_on_path(i) @ turned)
    level.rest()
    assert level.tilt_deg(level.robot.explore(2, anew=True)) < 0.6


@pytest.mark.parametrize(('sensor', 'words'), [
    ({'unit': 1 / G}, ('count in g', 'm/s^2')),
    ({'unit': float('nan')}, ('not finite',)),
])
def test_an_imu_that_is_wrong_is_told_what_is_wrong(start, sensor, words):
    level = Level(start, **sensor)
    level.rest()
    with level.robot.warned('imu', *words):
        level.robot.see()


def test_an_imu_that_nothing_ties_to_the_camera_is_reported(start):
    level = Level(start, mount=False)
    level.rest()
    with level.robot.warned('imu', 'TF does not tie', imu.FRAME):
        level.robot.see()


def test_an_imu_with_another_clock_is_reported(start):
    level = Level(start)
    level.rest()
    level.robot.next_ns += 50 * 10**9
    with level.robot.warned('imu', 'synchronise the clocks'):
        level.robot.see()


# The same of a bag


def record(tmp_path, **sensor):
    """Record twenty images after a second at rest, with an IMU on the camera."""
    seen = seen_on_path(20)
    cheap = CheapImu(np.random.default_rng(2), **{'offset': CALIBRATED, **sensor})
    still = [
        ('/imu', stamp_of(message), message)
        for message in cheap.second(START_NS, seen[0].world_from_camera)]
    return seen, write_bag(tmp_path / 'bag', [
        ('/tf_static', START_NS - 2 * 10**9, TFMessage(transforms=[mounted()])), *still,
        *messages_of(seen, leave_out=['/tf', '/tf_static'])])


def test_reconstruct_levels_the_map_of_a_bag(tmp_path, monkeypatch):
    seen, bag = record(tmp_path)
    run = Runs(monkeypatch)
    assert run(bag, tmp_path / 'out', '--set', 'use_imu=true', seen=seen) == 0
    path = read_tum(tmp_path / 'out' / 'trajectory.tum')
    truth = {view.stamp_ns: view.world_from_camera for view in seen}
    tilts = [
        tilt_of_map_deg(pose, truth[stamp_ns])
        for stamp_ns, pose in zip(path.stamps_ns.tolist(), path.poses, strict=True)]
    assert len(tilts) > 5 and max(tilts) < 0.6
    assert summary_of(tmp_path / 'out')['statistics']['levelled'] == 1


def test_reconstruct_says_that_a_map_is_not_level(tmp_path, monkeypatch, capsys):
    seen, bag = record(tmp_path, shaking=2.0)
    assert Runs(monkeypatch)(bag, tmp_path / 'out', '--set', 'use_imu=true', seen=seen) == 0
    said = capsys.readouterr().err
    assert 'the map is not level' in said and 'not at rest' in said


def test_a_bag_without_an_imu_is_refused(tmp_path, monkeypatch, capsys):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    assert Runs(monkeypatch)(bag, tmp_path / 'out', '--set', 'use_imu=true') == 1
    assert 'use_imu to false' in capsys.readouterr().err
