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

"""What takes long holds nobody up: neither TF, nor images, nor other services."""

from contextlib import contextmanager
from itertools import pairwise
from threading import Event

from helpers import stamp_of
import pytest
from robot import ODOMETRY
from std_srvs.srv import Trigger

STEADY = {**ODOMETRY, 'tf.rate_hz': 50.0}


@contextmanager
def held(monkeypatch, owner, name):
    """Keep a call from going on until the block is left; give the event that it has begun."""
    original, begun, free = getattr(owner, name), Event(), Event()

    def hold(*arguments):
        begun.set()
        assert free.wait(60)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, hold)
        try:
            yield begun
        finally:
            free.set()


def goes_on(robot, tree):
    """Check that TF and images come through."""
    count, taken = len(tree.sent()), robot.keyframes_taken()
    robot.see()
    robot.wait_for(lambda: robot.keyframes_taken() > taken, 'an image')
    robot.wait_for(lambda: len(tree.sent()) > count + 50, 'map->odom')
    stamps = [stamp_of(item) for item in tree.sent()]
    assert stamps == sorted(set(stamps))


def test_a_slow_save(start_with_tree, monkeypatch, tmp_path, record_property):
    robot, tree = start_with_tree({**STEADY, 'output.directory': str(tmp_path / 'maps')})
    robot.explore(3)
    with held(monkeypatch, robot.node._reconstructor, 'save') as begun:
        answer = robot.ask(Trigger, 'save')
        robot.wait_for(begun.is_set, 'the save')
        count = len(tree.sent())
        goes_on(robot, tree)
        assert not answer.done(), 'it answers when the file is there'
        assert robot.pause(True).success and robot.pause(False).success
    robot.wait_for(answer.done, 'the answer')
    assert answer.result().success and (tmp_path / 'maps' / 'map.ply').exists()
    stamps = [stamp_of(item) for item in tree.sent()][count:]
    gaps_s = [(b - a) * 1e-9 for a, b in pairwise(stamps)]
    record_property('worst_gap_s', max(gaps_s))
    print(f'worst gap of map->odom at 50 Hz: {max(gaps_s):.3f} s')


def test_a_reset_while_the_map_is_at_work(start_with_tree, monkeypatch):
    """As loop closing is: for seconds."""
    robot, tree = start_with_tree(STEADY)
    robot.explore(3)
    with held(monkeypatch, robot.node._reconstructor, '_close_loops') as begun:
        robot.see()
        robot.wait_for(begun.is_set, 'a window that is placed')
        answer = robot.ask(Trigger, 'reset')
        goes_on(robot, tree)
        assert not answer.done(), 'the old map is still there'
    robot.wait_for(answer.done, 'the answer')
    assert answer.result().success
    robot.wait_for_empty_map()
    robot.explore(2, anew=True)


@pytest.mark.parametrize('name', ['save', 'reset', 'reconstruct'])
def test_a_node_that_is_not_configured_says_so(start, name):
    robot = start(ODOMETRY, activate=False)
    answer = robot.trigger(name)
    assert not answer.success and answer.message == 'the node is not configured'
