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

"""The linters of ament, as the build farm runs them; they come with a ROS 2 from apt."""

from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ('mapanything_ros', 'launch', 'test', 'setup.py')


@pytest.mark.parametrize('linter, arguments', [
    ('ament_copyright', PYTHON),
    ('ament_flake8', ('--config', str(ROOT / 'setup.cfg'), *PYTHON)),
    ('ament_pep257', PYTHON),
    ('ament_xmllint', ('package.xml',)),
])
def test_a_linter_has_nothing_to_say(
    linter: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = linter.replace('_', '-')
    main = pytest.importorskip(
        f'{linter}.main', reason=f'not installed: apt-get install ros-$ROS_DISTRO-{package}')
    monkeypatch.chdir(ROOT)
    assert main.main(argv=list(arguments)) == 0
