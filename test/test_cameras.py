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


"""The presets of cameras, and the launch arguments that set parameters."""

from launch_file import CAMERAS, constant, preset
import pytest

from mapanything_ros.core.config import Config, from_values, options

PRESETS = sorted(file.stem for file in CAMERAS.glob('*.yaml'))


@pytest.mark.parametrize('camera', PRESETS)
def test_a_preset_names_inputs_by_topics_that_follow_the_namespace(camera):
    topics = preset(camera)['topics']
    assert {'image', 'camera_info'} <= set(topics) <= set(constant('INPUTS'))
    assert not any(topic.startswith('/') for topic in topics.values())


@pytest.mark.parametrize('camera', PRESETS)
def test_a_preset_makes_a_valid_configuration(camera):
    assert set(preset(camera)) == {'topics', 'parameters'}
    config = from_values(Config, preset(camera)['parameters'])
    assert not config.use_depth or 'depth' in preset(camera)['topics']


@pytest.mark.parametrize('camera', PRESETS)
def test_a_preset_says_where_it_is_from(camera):
    text = (CAMERAS / f'{camera}.yaml').read_text()
    assert text.startswith('#') and 'From ' in text


def test_each_argument_sets_a_parameter_and_names_its_choices():
    known = dict(options(Config))
    for parameter, description in constant('PARAMETERS').values():
        if parameter == 'use_sim_time':
            continue
        for choice in known[parameter].metadata['choices']:
            assert choice in description, f'{parameter}: {choice}'
