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

"""Transitions, services and windows in flight: no crash, no hang, nothing of an old map."""

import gc
import threading
import weakref

from helpers import distance_to_room, ExactBackend, image, ODOM_FROM_WORLD, stamp_of, transformed
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import open3d
import pytest
from rcl_interfaces.msg import Log
from robot import DEADLINE_S, ODOMETRY, Robot
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from mapanything_ros.core.errors import BackendUnavailableError

INACTIVE, UNCONFIGURED, FINALIZED = (
    State.PRIMARY_STATE_INACTIVE, State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_FINALIZED)


def state_of(robot: Robot) -> int:
    return robot.node._state_machine.current_state[0]


def entities(robot: Robot) -> dict[str, int]:
    """Count what the node holds, and the threads of workers."""
    kinds = ('publishers', 'subscriptions', 'services', 'timers', 'guards', 'waitables')
    counts = {kind: len(list(getattr(robot.node, kind))) for kind in kinds}
    return {**counts, 'workers': workers()}


def workers() -> int:
    return sum(thread.name.startswith('mapanything_') for thread in threading.enumerate())


def prepared(robot: Robot) -> Robot:
    robot.mount()
    robot.calibrate()
    robot.explore(2)
    return robot


def in_flight(robot: Robot) -> int:
    """Let the backend wait in the middle of a window; return the window's newest stamp."""
    robot.backend.entered.clear()
    robot.backend.free.clear()
    seen = robot.see()
    robot.wait_for(robot.backend.entered.is_set, 'a window')
    return seen.stamp_ns


def outputs(robot: Robot) -> dict[str, int]:
    return {topic: len(messages) for topic, messages in robot.heard.items()
            if topic.startswith('~')}


def settle(robot: Robot, reports: int = 3) -> None:
    """Wait for a few diagnostics more, so that what was sent before them has come."""
    count = len(robot.heard['/diagnostics']) + reports
    robot.wait_for(lambda: len(robot.heard['/diagnostics']) >= count)


# Services


def test_reset_forgets_the_map_and_maps_on(start):
    robot = prepared(start(ODOMETRY))
    answer = robot.trigger('reset')
    assert answer.success
    robot.wait_for_empty_map()
    seen = robot.explore(2, anew=True)
    assert [stamp_of(pose) for pose in robot.path(2).poses] == [s.stamp_ns for s in seen]
    robot.wait_for(lambda: robot.status()['windows'] == '2')
    assert robot.warnings('new_segment') == 0


def test_reset_while_a_window_is_computed(start):
    robot = prepared(start(ODOMETRY))
    stamp_ns = in_flight(robot)
    assert robot.trigger('reset').success, 'reset does not wait for the window'
    robot.wait_for_empty_map()
    settle(robot)
    before = outputs(robot)
    robot.backend.free.set()
    settle(robot)
    assert outputs(robot) == before, 'nothing of the old window is published'
    assert stamp_ns not in [stamp_of(pose) for pose in robot.heard['~/pose']]
    robot.explore(2, anew=True)
    robot.path(2)


def test_a_window_that_ends_just_before_reset_is_not_published_after_it(start):
    """Stop the worker between the end of the computation and the publication."""
    robot = prepared(start(ODOMETRY))
    place = robot.node._reconstructor.place
    done, go = threading.Event(), threading.Event()

    def slow(inferred):
        submap = place(inferred)
        done.set()
        assert go.wait(DEADLINE_S)
        return submap

    robot.node._reconstructor.place = slow
    robot.see()
    robot.wait_for(done.is_set)
    before = outputs(robot)
    answer = robot.ask(Trigger, 'reset')
    robot.wait_for(lambda: robot.node._reconstructor._generation, 'the reset')
    robot.node._reconstructor.place = place
    go.set()
    robot.wait_for(answer.done, 'the answer')
    assert answer.result().success
    robot.wait_for_empty_map()
    settle(robot)
    # Map and path came once more, empty.
    for topic in ('~/map', '~/path', '~/map_updates'):
        before.pop(topic, None)
    assert before.items() <= outputs(robot).items()
    assert robot.heard['~/map'][-1].width == 0


def test_pause_ignores_images_and_goes_on(start):
    robot = prepared(start(ODOMETRY))
    assert robot.pause(True).success
    robot.wait_for(lambda: robot.status().get('message') == 'paused')
    images = int(robot.status()['images'])
    robot.see()
    robot.wait_for(lambda: int(robot.status()['images']) > images)
    assert robot.keyframes_taken() == 2
    assert robot.pause(False).success
    robot.explore(1)


def test_reconstruct_runs_on_what_is_buffered(start):
    robot = start({**ODOMETRY, 'window.size': 6, 'window.overlap': 3})
    robot.mount()
    robot.calibrate()
    for count in range(1, 4):
        seen = robot.see()
        robot.wait_for(lambda n=count: robot.keyframes_taken() == n)
    answer = robot.trigger('reconstruct')
    assert answer.success
    assert '3 of 3 keyframes' in answer.message
    robot.keyframe(seen.stamp_ns)
    again = robot.trigger('reconstruct')
    assert (again.success, again.message) == (False, 'nothing new to reconstruct')


def test_two_reconstruct_requests_at_once(start):
    robot = prepared(start({**ODOMETRY}))
    in_flight(robot)
    both = [robot.ask(Trigger, 'reconstruct') for _ in range(2)]
    settle(robot)
    assert not any(future.done() for future in both)
    robot.backend.free.set()
    robot.wait_for(lambda: all(future.done() for future in both), 'answers')
    assert all(future.result().success for future in both)
    robot.explore(1)


def test_the_node_does_its_other_work_while_reconstruct_waits(start):
    robot = prepared(start(ODOMETRY))
    robot.listen(TFMessage, '/tf')
    in_flight(robot)
    answer = robot.ask(Trigger, 'reconstruct')
    settle(robot)
    transforms, images = len(robot.heard['/tf']), robot.node._images
    robot.see()
    robot.wait_for(lambda: robot.node._images > images, 'an image')
    robot.wait_for(lambda: len(robot.heard['/tf']) > transforms + 3, 'map->odom')
    assert robot.trigger('reset').success
    assert not answer.done()
    robot.backend.free.set()
    robot.wait_for(answer.done)


def test_save_writes_the_map_and_the_path(start, tmp_path):
    folder = tmp_path / 'new' / 'folder'
    robot = prepared(start({**ODOMETRY, 'output.directory': str(folder)}))
    answer = robot.trigger('save')
    assert answer.success
    assert str(folder / 'map.ply') in answer.message
    cloud = open3d.io.read_point_cloud(str(folder / 'map.ply'))
    points = np.asarray(cloud.points)
    assert len(points) == robot.newest('~/map').width
    world = transformed(np.linalg.inv(ODOM_FROM_WORLD), points)
    assert np.percentile(distance_to_room(world), 95) < 1e-4
    lines = (folder / 'trajectory.tum').read_text().splitlines()
    stamps = [stamp_of(pose) for pose in robot.path(2).poses]
    assert [line.split()[0] for line in lines] == [
        f'{stamp // 10**9}.{stamp % 10**9:09d}' for stamp in stamps]


def test_save_into_a_folder_that_cannot_be(start, tmp_path):
    (tmp_path / 'file').write_text('not a folder')
    folder = tmp_path / 'file' / 'folder'
    robot = prepared(start({**ODOMETRY, 'output.directory': str(folder)}))
    answer = robot.trigger('save')
    assert not answer.success
    assert str(folder) in answer.message and 'cannot be written' in answer.message
    assert (tmp_path / 'file').read_text() == 'not a folder'
    robot.explore(1)


def test_save_into_the_home_of_nobody(start):
    robot = prepared(start({**ODOMETRY, 'output.directory': '~who_is_not_here/maps'}))
    answer = robot.trigger('save')
    assert not answer.success
    assert "'~who_is_not_here/maps'" in answer.message and 'give a folder' in answer.message
    robot.explore(1)


@pytest.mark.parametrize(('name', 'part'), [('save', 'save'), ('reset', 'clear')])
def test_a_service_that_breaks_does_not_end_the_node(start, monkeypatch, name, part):
    robot = prepared(start(ODOMETRY))

    def fail(*arguments):
        raise ValueError('on purpose')

    with monkeypatch.context() as patch:
        patch.setattr(robot.node._reconstructor, part, fail)
        answer = robot.trigger(name)
    assert not answer.success
    assert answer.message == "it failed: ValueError('on purpose')"
    robot.explore(2, anew=True)


# Transitions


def test_nothing_is_read_or_sent_before_activation(start):
    robot = start(activate=False)
    assert state_of(robot) == UNCONFIGURED
    assert robot.change_state('configure')
    assert state_of(robot) == INACTIVE
    assert not [s for s in robot.node.subscriptions if 'image' in s.topic_name]
    robot.wait_for(lambda: robot.status().get('message') == 'inactive')
    assert robot.change_state('activate')
    robot.wait_for_connections()
    robot.calibrate()
    robot.explore(2)


def test_deactivate_keeps_the_map(start):
    robot = prepared(start(ODOMETRY))
    assert robot.change_state('deactivate')
    assert state_of(robot) == INACTIVE
    assert robot.change_state('activate')
    robot.wait_for_connections()
    robot.explore(1)
    robot.path(3)


@pytest.mark.parametrize('parameters', [ODOMETRY, {'tf.mode': 'map_to_camera'}])
def test_deactivate_while_a_window_is_computed(start, parameters):
    robot = start(parameters)
    robot.listen(TFMessage, '/tf')
    robot.calibrate()
    if 'tf.odom_frame' in parameters:
        robot.mount()
    robot.explore(2)
    stamp_ns = in_flight(robot)
    assert robot.change_state('deactivate'), 'deactivate does not wait for the window'
    settle(robot)
    before, transforms = outputs(robot), len(robot.heard['/tf'])
    robot.backend.free.set()
    robot.wait_for(lambda: robot.status()['windows'] == '2')
    settle(robot)
    assert outputs(robot) == before, 'an inactive node is silent'
    assert len(robot.heard['/tf']) == transforms
    assert robot.change_state('activate')
    path = robot.path(3)
    assert stamp_of(path.poses[-1]) == stamp_ns, 'the window went into the map'
    robot.wait_for_connections()
    robot.explore(1)


@pytest.mark.parametrize('reconstructing', [False, True])
def test_cleanup_while_a_window_is_computed(start, reconstructing):
    robot = prepared(start(ODOMETRY))
    in_flight(robot)
    answer = robot.ask(Trigger, 'reconstruct') if reconstructing else None
    settle(robot)
    assert robot.change_state('deactivate')
    cleanup = ChangeState.Request()
    cleanup.transition.label = 'cleanup'
    future = robot.ask(ChangeState, 'change_state', cleanup)
    robot.backend.free.set()
    robot.wait_for(future.done, 'cleanup')
    assert future.result().success
    assert state_of(robot) == UNCONFIGURED
    if answer:
        robot.wait_for(answer.done, 'the answer of reconstruct')
        assert 'cleaned up' in answer.result().message or answer.result().success
    late = robot.trigger('reconstruct')
    assert (late.success, late.message) == (False, 'the node is not configured')
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    robot.wait_for_connections()
    robot.mount()
    robot.calibrate()
    robot.explore(2, anew=True)
    robot.path(2)


def test_shutdown_while_a_window_is_computed(start):
    robot = prepared(start(ODOMETRY))
    in_flight(robot)
    request = ChangeState.Request()
    request.transition.id = 7  # TRANSITION_ACTIVE_SHUTDOWN
    future = robot.ask(ChangeState, 'change_state', request)
    robot.backend.free.set()
    robot.wait_for(future.done, 'shutdown')
    assert future.result().success
    assert state_of(robot) == FINALIZED
    assert workers() == 0


def test_ten_lives_leave_nothing_behind(start):
    robot = start(ODOMETRY, activate=False)
    counts = []
    for _ in range(10):
        counts.append(entities(robot))
        for label in ('configure', 'activate', 'deactivate', 'cleanup'):
            assert robot.change_state(label)
            seen = robot.look()
            robot.move_to(seen)
            robot.images.publish(image(seen.rgb, 'rgb8', seen.stamp_ns))
    assert all(count == counts[0] for count in counts), counts


def test_cleanup_lets_the_backend_go(start):
    made = []

    def create(config):
        backend = ExactBackend()
        backend.circle = backend  # as there are in models
        made.append(weakref.ref(backend))
        return backend

    robot = start(ODOMETRY, create=create, activate=False)
    for label in ('configure', 'activate', 'deactivate', 'cleanup'):
        assert robot.change_state(label)
    assert made[0]() is None


@pytest.mark.parametrize('error', [
    BackendUnavailableError('no GPU here'), RuntimeError('cudnn is broken')])
def test_a_backend_that_cannot_be_loaded(start, monkeypatch, capfd, error):
    robot = start(activate=False)

    def refuse(config):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr('mapanything_ros.ros.node.create_backend', refuse)
        assert not robot.change_state('configure')
    assert str(error) in capfd.readouterr().err, 'the reason is logged'
    assert state_of(robot) == UNCONFIGURED


def test_a_configuration_that_breaks_half_way_gives_everything_back(start, monkeypatch):
    robot = start(ODOMETRY, activate=False)
    made = []

    def create(config):
        backend = ExactBackend()
        backend.circle = backend
        made.append(weakref.ref(backend))
        return backend

    monkeypatch.setattr('mapanything_ros.ros.node.create_backend', create)
    for label in ('configure', 'cleanup'):
        assert robot.change_state(label)
    before = entities(robot)
    with monkeypatch.context() as patch:
        patch.setattr('mapanything_ros.ros.node.Diagnostics', None)
        assert not robot.change_state('configure')
    assert state_of(robot) == UNCONFIGURED
    assert entities(robot) == before
    gc.collect()
    assert [reference() for reference in made] == [None, None]
    for label in ('configure', 'activate'):
        assert robot.change_state(label)


def test_the_newest_window_wins_and_drops_are_counted(start):
    robot = prepared(start(ODOMETRY))
    in_flight(robot)
    for count in range(4, 9):
        seen = robot.see()
        robot.wait_for(lambda n=count: robot.keyframes_taken() == n)
    robot.backend.free.set()
    robot.keyframe(seen.stamp_ns)
    robot.wait_for(lambda: robot.status()['windows'] == '3')
    assert robot.status()['keyframes_dropped'] == '3'
    assert len(robot.path(5).poses) == 5


def test_the_next_window_is_computed_while_the_last_one_is_published(start, monkeypatch):
    robot = prepared(start(ODOMETRY))
    publishers = robot.node._mapper._publishers
    publish, here, go = publishers.publish_window, threading.Event(), threading.Event()

    def slow(submap, keyframes):
        here.set()
        assert go.wait(DEADLINE_S)
        publish(submap, keyframes)

    monkeypatch.setattr(publishers, 'publish_window', slow)
    first = robot.see()
    robot.wait_for(here.is_set, 'the publication')
    robot.backend.entered.clear()
    second = robot.see()
    try:
        robot.wait_for(robot.backend.entered.is_set, 'the next window')
        assert second.stamp_ns in [k.stamp_ns for k in robot.backend.windows[-1]]
        stamps = [stamp_of(pose) for pose in robot.heard['~/pose']]
        assert first.stamp_ns not in stamps
    finally:
        go.set()
    robot.wait_for(lambda: [stamp_of(pose) for pose in robot.heard['~/pose'][-2:]] == [
        first.stamp_ns, second.stamp_ns], 'both, in order')


def test_an_error_in_the_worker_does_not_end_it(start, monkeypatch):
    robot = prepared(start(ODOMETRY))

    def fail():
        raise MemoryError('full')

    monkeypatch.setattr(robot.node._reconstructor, 'map_points', fail)
    with robot.warned('window_error', 'a window of 2 keyframes failed: MemoryError'):
        robot.explore(1)
    settle(robot)
    with robot.warned('window_error', 'publishing the map failed: MemoryError'):
        robot.node._mapper._whole_changed = True
        robot.node._worker.wake()
    monkeypatch.undo()
    robot.explore(1)
    robot.path(4)


def test_a_warning_is_logged_once_in_a_while(start):
    # The end of an earlier node of the same name would take this one off /rosout.
    gc.collect()
    robot = start(ODOMETRY)
    robot.listen(Log, '/rosout')
    for count in range(1, 11):
        seen = robot.look()
        robot.move_to(seen)
        message = image(seen.rgb, 'rgb8', seen.stamp_ns)
        message.header.frame_id = ''
        robot.images.publish(message)
        robot.wait_for(lambda n=count: robot.warnings('frame_id_empty') >= n)
    robot.wait_for(lambda: robot.heard['/rosout'], 'a warning')
    settle(robot)
    lines = [log for log in robot.heard['/rosout'] if 'frame_id' in log.msg]
    assert len(lines) == 1
    assert (lines[0].name, lines[0].level) == ('mapanything', 30), 'a warning'


# A manager of lifecycle nodes


STATE_AFTER = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: State.PRIMARY_STATE_FINALIZED}


def test_a_manager_as_nav2_s_brings_the_node_up_pauses_resumes_and_ends_it(start):
    """By numbers, and with the state asked for after each (nav2_lifecycle_manager)."""
    robot = start(ODOMETRY, activate=False)

    def change(*transitions: int) -> None:
        for number in transitions:
            request = ChangeState.Request(transition=Transition(id=number))
            assert robot.call(ChangeState, 'change_state', request).success
            state = robot.call(GetState, 'get_state').current_state
            assert state.id == STATE_AFTER[number]

    change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    robot.wait_for_connections()
    prepared(robot)
    robot.path(2)
    # Pause and resume.
    change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)
    robot.wait_for_connections()
    robot.explore(1)
    robot.path(3)
    # Reset, startup and shutdown.
    change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    robot.wait_for_connections()
    prepared(robot)
    robot.wait_for(lambda: len(robot.newest('~/path').poses) == 2, 'the new map')
    change(
        Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
