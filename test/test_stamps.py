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

"""The gate that lets only stamps through that time can have made."""

import pytest

from mapanything_ros.ros.stamps import FUTURE_NS, LOOP_NS, StampGate

SECOND_NS = 10**9
NOW_NS = 1_700_000_000_123_456_789


@pytest.fixture
def gate() -> StampGate:
    gate = StampGate()
    assert gate.check(NOW_NS, NOW_NS) == 'good'
    return gate


def test_rising_stamps_are_good_to_the_nanosecond(gate):
    assert gate.check(NOW_NS + 1, NOW_NS + 1) == 'good'
    assert gate.check(NOW_NS + 2, NOW_NS + 1) == 'good'


def test_the_same_stamp_again_is_refused(gate):
    assert gate.check(NOW_NS, NOW_NS) == 'stamp_repeated'
    assert gate.check(NOW_NS + 1, NOW_NS) == 'good'


@pytest.mark.parametrize('stamp_ns', [0, -1])
def test_no_stamp_is_refused(gate, stamp_ns):
    assert gate.check(stamp_ns, NOW_NS) == 'stamp_zero'


def test_the_future_is_refused_and_does_not_shut_out_the_present(gate):
    assert gate.check(NOW_NS + FUTURE_NS + 1, NOW_NS) == 'stamp_future'
    assert gate.check(NOW_NS + FUTURE_NS, NOW_NS) == 'good', 'clocks differ a little'
    assert StampGate().check(NOW_NS, 0) == 'stamp_future', 'no /clock yet'


def test_stray_old_images_are_refused(gate):
    assert gate.check(NOW_NS - 1, NOW_NS) == 'stamp_backwards'
    assert gate.check(NOW_NS - 2, NOW_NS) == 'stamp_backwards'
    assert gate.check(NOW_NS + 1, NOW_NS) == 'good'
    assert gate.check(NOW_NS, NOW_NS) == 'stamp_backwards'


def test_a_stream_far_behind_is_a_loop_at_its_third_image(gate):
    start_ns = NOW_NS - 30 * SECOND_NS
    verdicts = [gate.check(start_ns + step, NOW_NS) for step in range(4)]
    assert verdicts == ['stamp_backwards', 'stamp_backwards', 'loop', 'good']


def test_a_stream_a_little_behind_goes_on_without_a_new_map(gate):
    start_ns = NOW_NS - LOOP_NS
    verdicts = [gate.check(start_ns + step, NOW_NS) for step in range(3)]
    assert verdicts == ['stamp_backwards', 'stamp_backwards', 'good']


def test_old_stamps_in_falling_order_are_no_loop(gate):
    for step in range(10):
        assert gate.check(NOW_NS - 30 * SECOND_NS - step, NOW_NS) == 'stamp_backwards'


def test_after_reset_any_stamp_is_good(gate):
    gate.reset()
    assert gate.check(NOW_NS - 3600 * SECOND_NS, NOW_NS) == 'good'
