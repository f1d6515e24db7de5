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

import numpy as np
import pytest

from mapanything_ros.core.config import WindowConfig
from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.core.frames.window import KeyframeWindow


def keyframe(number):
    return Keyframe(number, number, 'camera', np.zeros((2, 2, 3), np.uint8))


def ids(window):
    return [k.id for k in window.take()]


@pytest.fixture
def window():
    return KeyframeWindow(WindowConfig(size=4, overlap=2))


def test_windows_share_the_overlap_while_the_backend_keeps_up(window):
    taken = []
    for number in range(8):
        window.add(keyframe(number))
        if window.ready():
            taken.append(ids(window))
    assert taken == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert window.dropped == 0


def test_the_newest_win_and_each_lost_keyframe_is_counted_once(window):
    for number in range(4):
        window.add(keyframe(number))
    window.take()
    for number in range(4, 11):
        window.add(keyframe(number))
    assert ids(window) == [7, 8, 9, 10]
    assert window.dropped == 3  # 4, 5 and 6 were in no window; 0 to 3 were


def test_nothing_is_ready_without_enough_new_keyframes(window):
    for number in range(4):
        window.add(keyframe(number))
    window.take()
    window.add(keyframe(4))
    assert not window.ready()
    assert window.can_take()
    assert ids(window) == [1, 2, 3, 4]
    assert not window.can_take()


def test_one_image_alone_is_no_window(window):
    window.add(keyframe(0))
    assert not window.can_take()


def test_a_failed_window_is_tried_again_with_the_next_keyframe(window):
    for number in range(4):
        window.add(keyframe(number))
    window.take()
    window.retry()
    assert not window.ready()
    window.add(keyframe(4))
    assert window.ready()
    window.take()
    window.add(keyframe(5))
    assert not window.ready()


def refusing():
    """Give a window of 6, of which the map took 0 to 5 and refused 3 to 8."""
    window = KeyframeWindow(WindowConfig(size=6, overlap=3))
    filled(window, 6)
    window.placed(window.take())
    filled(window, 3, first=6)
    window.refused(window.take())
    return window


def test_between_two_windows_that_contradict_each_other_comes_a_third():
    window = refusing()
    judge = window.take()
    assert [k.id for k in judge] == [1, 2, 3, 4, 5, 6]
    assert not window.ready()
    window.placed(judge)
    filled(window, 1, first=9)
    # 7 and 8 were in no window that the map took.
    assert drained(window) == [[4, 5, 6, 7, 8, 9]]
    assert window.dropped == 0


def test_what_contradicts_the_judge_too_waits_for_the_next_keyframe():
    window = refusing()
    window.refused(window.take())
    assert not window.ready(), 'the same again tells nothing'
    filled(window, 1, first=9)
    assert drained(window) == [[4, 5, 6, 7, 8, 9]]


def test_nothing_is_judged_twice_however_long_the_robot_rests():
    window = refusing()
    taken = []
    for _ in range(5):
        while window.ready():
            keyframes = window.take()
            taken.append([k.id for k in keyframes])
            window.refused(keyframes)
        window.rest()
    assert taken == [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8]]


def test_a_row_of_windows_that_are_refused_comes_to_an_end():
    window = refusing()
    taken = []
    for number in range(9, 13):
        while window.ready():
            assert len(taken) < 20
            keyframes = window.take()
            taken.append([k.id for k in keyframes])
            window.refused(keyframes)
        filled(window, 1, first=number)
    assert taken == [
        [1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8, 9], [5, 6, 7, 8, 9, 10], [6, 7, 8, 9, 10, 11]]


def test_a_window_that_shares_nothing_has_no_judge(window):
    filled(window, 4)
    window.placed(window.take())
    filled(window, 4, first=4)
    window.refused(window.take())
    assert not window.ready()
    filled(window, 1, first=8)
    assert drained(window) == [[5, 6, 7, 8]]


def test_keyframes_of_a_refused_window_that_never_come_again_are_lost():
    window = refusing()
    window.placed(window.take())
    filled(window, 6, first=9)
    assert window.dropped == 2, '7 and 8'


def test_nothing_older_comes_after_a_newer_window():
    window = KeyframeWindow(WindowConfig(size=6, overlap=3))
    filled(window, 6)
    window.placed(window.take())
    filled(window, 3, first=6)
    contradicts = window.take()
    filled(window, 3, first=9)
    assert ids(window) == [6, 7, 8, 9, 10, 11]
    window.refused(contradicts)
    assert not window.ready()


def test_a_judge_is_no_larger_than_what_fits():
    window = KeyframeWindow(WindowConfig(size=6, overlap=3))
    filled(window, 6)
    window.placed(window.take())
    window.shrink(4, ())
    filled(window, 3, first=6)
    window.refused(window.take())
    assert ids(window) == [3, 4, 5, 6]


def test_nothing_old_judges_after_clear():
    window = refusing()
    window.clear()
    filled(window, 6, first=3)
    window.refused(window.take())
    assert not window.ready()


def test_clear_forgets_all(window):
    for number in range(5):
        window.add(keyframe(number))
    window.clear()
    assert not window.can_take()


def filled(window, count, first=0):
    for number in range(first, first + count):
        window.add(keyframe(number))


def drained(window):
    taken = []
    while window.ready():
        taken.append(ids(window))
    return taken


def test_a_window_that_was_too_large_comes_again_in_parts_that_overlap():
    window = KeyframeWindow(WindowConfig(size=6, overlap=2))
    filled(window, 6)
    window.shrink(3, window.take())
    assert drained(window) == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    filled(window, 1, first=6)
    assert drained(window) == [[4, 5, 6]], 'and so are the windows that follow'
    assert window.dropped == 0


def test_what_came_in_meanwhile_is_not_lost_either():
    window = KeyframeWindow(WindowConfig(size=6, overlap=3))
    filled(window, 6)
    taken = window.take()
    filled(window, 5, first=6)
    window.shrink(2, taken)
    pairs = drained(window)
    assert pairs == [[i, i + 1] for i in range(10)]
    assert window.dropped == 0


def test_a_part_that_is_still_too_large_is_split_before_the_others():
    window = KeyframeWindow(WindowConfig(size=8, overlap=3))
    filled(window, 8)
    window.shrink(4, window.take())
    window.shrink(2, window.take())
    assert {number for pair in drained(window) for number in pair} == set(range(8))


def test_parts_of_a_window_from_before_a_reset_do_not_come_again(window):
    filled(window, 4)
    window.take()
    window.clear()
    window.shrink(2, ())
    assert not window.ready()
    filled(window, 2, first=9)
    assert drained(window) == [[9, 10]]


def test_what_waits_at_a_rest_is_a_window_whatever_comes_before_it_is_taken(window):
    for number in range(3):
        window.add(keyframe(number))
    window.rest()
    window.rest()
    window.add(keyframe(3))
    assert window.ready() and ids(window) == [0, 1, 2]
    assert not window.ready()
    window.add(keyframe(4))
    assert ids(window) == [1, 2, 3, 4]


def test_a_rest_with_nothing_new_makes_no_window(window):
    window.rest()
    window.add(keyframe(0))
    window.rest()
    assert not window.ready(), 'one image alone is no window'
    window.add(keyframe(1))
    window.take()
    window.rest()
    assert not window.ready()
