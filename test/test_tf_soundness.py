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

"""The TF tree stays sound whatever happens: one parent a frame, no stamp back, whole numbers."""

import cv2
from geometry_msgs.msg import TransformStamped
from helpers import (
    camera_on_path,
    ExactBackend,
    halved,
    header,
    HEIGHT,
    K,
    matrix_of,
    ODOM_FROM_WORLD,
    rigid,
    Seen,
    transform,
    WIDTH,
)
import numpy as np
import pytest
from robot import ODOMETRY, Robot
from scenes import room
from scipy.spatial.transform import Rotation
from tf_tree import faults_of, SIMULATED
import torch

from mapanything_ros.core.datatypes import Keyframe, Prediction
from mapanything_ros.core.errors import ReconstructionError

# Keyframes once round, and in all; how far (radians) the backend turns each too far.
LAP, COUNT, BEND = 32, 36, 0.004
RADIANS_A_STEP = 0.125  # of camera_on_path


def moving(parent: str, child: str, stamp_ns: int) -> TransformStamped:
    return transform(ODOM_FROM_WORLD, header(stamp_ns, parent), child)


SOUND = [moving('map', 'odom', 1), moving('odom', 'base', 1), moving('map', 'odom', 2)]


def spoilt(axis: str, value: float) -> TransformStamped:
    item = moving('map', 'odom', 3)
    setattr(item.transform.rotation, axis, value)
    return item


def test_a_sound_tree_has_no_faults():
    assert not list(faults_of(SOUND, [moving('base', 'camera', 1)]))


@pytest.mark.parametrize(('more', 'fixed', 'word'), [
    (moving('world', 'odom', 3), [], 'parents'), (moving('map', 'odom', 2), [], 'after'),
    (moving('map', 'odom', 1), [], 'after'), (moving('odom', 'map', 1), [], 'roots'),
    (moving('hat', 'rabbit', 1), [], 'roots'), (spoilt('w', np.nan), [], 'finite'),
    (spoilt('w', 2.0), [], 'unit'),
    (moving('odom', 'base', 2), [moving('odom', 'base', 1)], 'fixed')])
def test_each_fault_of_a_tree_is_found(more, fixed, word):
    faults = list(faults_of([*SOUND, more], fixed))
    assert any(word in fault for fault in faults), faults


@pytest.mark.parametrize('mode', [
    ODOMETRY, {'tf.base_frame': 'base'}, {}, {**ODOMETRY, 'tf.mode': 'none'}],
    ids=['map_to_odom', 'map_to_base', 'map_to_camera', 'none'])
def test_failures_and_resets_leave_the_tree_sound(start_with_tree, mode):
    robot, tree = start_with_tree({**mode, **SIMULATED})
    robot.explore(3)
    robot.backend.failure = ReconstructionError('as the test wants it')
    with robot.warned('window_failed', 'as the test wants it'):
        robot.see()
    robot.backend.failure = None
    robot.explore(2)
    assert robot.trigger('reset').success
    reports = len(robot.heard['/diagnostics'])
    # The clock stands still meanwhile.
    robot.wait_for(lambda: len(robot.heard['/diagnostics']) > reports + 1, 'a pause')
    robot.explore(3, anew=True)
    if mode.get('tf.mode') != 'none':
        assert len(tree.sent()) >= 6
    tree.assert_sound()


class Bending(ExactBackend):
    """Knows the furnished room, but turns each camera a little too far after the one before."""

    def _predict(self, keyframe: Keyframe, first_from_world: np.ndarray) -> Prediction:
        seen, half = self.seen[keyframe.stamp_ns], (WIDTH // 2, HEIGHT // 2)
        rgb, depth_m = (
            torch.from_numpy(cv2.resize(picture, half, interpolation=cv2.INTER_AREA))
            for picture in (seen.rgb, seen.depth_m))
        turns = sum(other.id < keyframe.id for other in self.windows[-1])
        bend = rigid(Rotation.from_euler('z', BEND * turns), [0, 0, 0])
        first = np.linalg.inv(first_from_world)
        place = rigid(Rotation.identity(), first[:3, 3])
        bent = place @ bend @ np.linalg.inv(place) @ seen.world_from_camera
        angle = 2 * np.pi * keyframe.id / LAP
        looks = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)
        return Prediction(
            keyframe.id, rgb, depth_m, torch.ones(depth_m.shape), depth_m > 0, halved(K),
            first_from_world @ bent, looks)


def look(robot: Robot, number: int) -> Seen:
    """Look at the furnished room, from the same height and heading each time round."""
    pose = camera_on_path(2 * np.pi / RADIANS_A_STEP * number / LAP)
    view = room().render(pose, K, WIDTH, HEIGHT)
    seen = Seen(robot.next_stamp(), pose, view.rgb, view.depth_m)
    robot.backend.seen[seen.stamp_ns] = seen
    return seen


def test_a_loop_moves_map_to_odom_and_leaves_the_tree_sound(start_with_tree):
    robot, tree = start_with_tree({
        **ODOMETRY, **SIMULATED, 'pose_use': 'prior', 'loop_closure.enabled': True,
        'loop_closure.min_gap_m': 4.5, 'window.size': 4, 'window.overlap': 2,
        'map.voxel_m': 0.1}, Bending())
    off_m = []
    for number in range(COUNT):
        seen = look(robot, number)
        robot.send(seen)
        robot.wait_for(lambda n=number: robot.keyframes_taken() > n, 'a keyframe')
        if number >= 3 and number % 2:
            robot.keyframe(seen.stamp_ns)
            robot.tick(seen.stamp_ns + 1)
            correction = tree.map_from('odom', seen.stamp_ns + 1)
            odometry = ODOM_FROM_WORLD @ seen.world_from_camera
            newest = robot.path(number + 1).poses[-1].pose
            assert np.allclose(
                matrix_of(newest.position, newest.orientation), correction @ odometry, atol=1e-6)
            off_m.append(np.linalg.norm((correction @ odometry - odometry)[:3, 3]))
    assert max(off_m) > 0.08, 'odometry is exact, and the backend bends the path'
    assert off_m[-1] < 0.25 * max(off_m), 'map->odom moved when the loop was closed'
    robot.wait_for(lambda: int(robot.status()['loop_corrections']) > 0, 'a loop')
    tree.assert_sound()
