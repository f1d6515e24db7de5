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

"""What the core logs reaches the node's log, and warnings its diagnostics."""

import logging

import pytest

from mapanything_ros.core.errors import BackendUnavailableError
from mapanything_ros.ros.core_log import CORE, CoreLog
from mapanything_ros.ros.reporter import Reporter

BACKEND = logging.getLogger('mapanything_ros.core.backends.mapanything.backend')


class Log:
    """A node's logger, as far as it is used."""

    def __init__(self):
        self.lines = []

    def info(self, text):
        self.lines.append(('info', text))

    def warning(self, text):
        self.lines.append(('warning', text))


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def reporter(log):
    return Reporter(log)


@pytest.fixture
def core_log(log, reporter):
    made = CoreLog(log, reporter)
    yield made
    made.close()


def test_information_is_logged_and_is_no_problem(log, reporter, core_log):
    BACKEND.info('a window of %d views takes %.2f s', 8, 0.1)
    assert log.lines == [('info', 'a window of 8 views takes 0.10 s')]
    assert not reporter.counts


@pytest.mark.parametrize('level', [logging.WARNING, logging.ERROR, logging.CRITICAL])
def test_a_warning_is_logged_once_counted_and_diagnosed(log, reporter, core_log, level):
    BACKEND.log(level, 'the GPU is too small for a window of %d keyframes', 8)
    text = 'the GPU is too small for a window of 8 keyframes'
    assert log.lines == [('warning', text)]
    assert reporter.counts == {'backend': 1}
    assert reporter.latest == text
    assert reporter.age_s() < 60


def test_one_warning_does_not_keep_another_out_of_the_log(log, reporter, core_log):
    BACKEND.warning('the licence of %s is %s', 'facebook/map-anything', 'CC-BY-NC-4.0')
    for count in (8, 4):
        BACKEND.warning('the memory is too small for a window of %d keyframes', count)
    assert [text for _, text in log.lines] == [
        'the licence of facebook/map-anything is CC-BY-NC-4.0',
        'the memory is too small for a window of 8 keyframes'], 'the same, within seconds, is not'
    assert reporter.counts == {'backend': 3}


def test_a_sentence_is_counted_by_itself(log, reporter, monkeypatch):
    now_s = iter([0.0, 1.0, 2.0, 10.0])
    monkeypatch.setattr('mapanything_ros.ros.reporter.time.monotonic', lambda: next(now_s))
    for fits in ('fits 4', 'fits 2', 'fits 2', 'fits 2'):
        reporter.warn('window_failed', f'it is too large; {fits}', fits)
    assert [text for _, text in log.lines] == [
        'it is too large; fits 4', 'it is too large; fits 2',
        'it is too large; fits 2 (3 times so far)']
    assert reporter.counts == {'window_failed': 4}


def test_details_are_left_out(log, core_log):
    BACKEND.debug('only for who develops it')
    assert log.lines == []


def test_others_do_not_speak_in_the_nodes_name(log, reporter, core_log):
    for name in ('huggingface_hub', 'mapanything', 'root', 'mapanything_ros_other'):
        logging.getLogger(name).warning('something of no concern')
    assert log.lines == []
    assert not reporter.counts


def test_after_closing_nothing_is_handed_on(log, reporter, core_log):
    core_log.close()
    BACKEND.warning('the node was cleaned up')
    assert log.lines == []
    assert not reporter.counts


def test_configured_again_everything_is_said_once(log, reporter, core_log):
    core_log.close()
    again = CoreLog(log, reporter)
    BACKEND.warning('out of memory')
    again.close()
    assert log.lines == [('warning', 'out of memory')]
    assert reporter.counts == {'backend': 1}


def test_two_nodes_in_a_process_hear_it_both(log, core_log):
    other = Log()
    second = CoreLog(other, Reporter(other))
    BACKEND.info('loaded')
    second.close()
    BACKEND.info('loaded again')
    assert other.lines == [('info', 'loaded')]
    assert log.lines == [('info', 'loaded'), ('info', 'loaded again')]


def test_a_node_that_could_not_be_configured_or_was_cleaned_up_hears_nothing(start, monkeypatch):
    def fail(config):
        raise BackendUnavailableError('on purpose')

    before = list(logging.getLogger(CORE).handlers)
    robot = start(activate=False)
    with monkeypatch.context() as patch:
        patch.setattr('mapanything_ros.ros.node.create_backend', fail)
        assert not robot.change_state('configure')
    assert logging.getLogger(CORE).handlers == before
    assert robot.change_state('configure')
    assert len(logging.getLogger(CORE).handlers) == len(before) + 1
    BACKEND.warning('the GPU is small')
    robot.wait_for(lambda: robot.warnings('backend') == 1)
    assert robot.change_state('cleanup')
    assert logging.getLogger(CORE).handlers == before
