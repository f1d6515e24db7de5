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

"""What went wrong is said once, or each where each concerns something else, and counted."""

from mapanything_ros.offline.notices import MOST, Notices


def test_the_first_of_a_kind_is_said_and_all_are_counted():
    said = []
    notices = Notices(said.append)
    for text in ('no transform at 1', 'no transform at 2', 'no transform at 1'):
        notices.warn('no_transform', text)
    notices.warn('other', 'something else')
    assert said == ['no transform at 1', 'something else']
    assert notices.counts == {'no_transform': 3, 'other': 1}
    assert notices.first == {'no_transform': 'no transform at 1', 'other': 'something else'}
    notices.repeat()
    assert said[2:] == ['3 times: no transform at 1']


def test_what_concerns_each_something_else_is_said_of_each_until_it_is_too_much():
    said = []
    notices = Notices(said.append)
    for number in range(MOST + 5):
        notices.warn('image', f'photo {number}', each=True)
    notices.warn('image', 'photo 3', each=True)
    assert said == [f'photo {number}' for number in range(MOST)]
    assert [entry['times'] for entry in notices.summary()] == [
        1, 1, 1, 2, *[1] * (MOST - 5), 6]
    assert notices.counts == {'image': MOST + 6}
