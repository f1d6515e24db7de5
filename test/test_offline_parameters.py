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

"""The node's parameter file means the same to the tools, and settings come after it."""

from pathlib import Path

import pytest

from mapanything_ros.core.config import Config
from mapanything_ros.core.errors import ConfigError
from mapanything_ros.offline.parameters import changed_values, load_config

FILE = Path(__file__).parent.parent / 'config' / 'mapanything.yaml'


def test_the_file_that_is_shipped_is_the_defaults():
    assert load_config(FILE, []) == load_config(None, []) == Config()
    assert changed_values(Config()) == {}


def test_settings_of_every_type_come_after_the_file(tmp_path):
    (tmp_path / 'a.yaml').write_text(
        '/**:\n  ros__parameters:\n    use_sim_time: true\n    map: {voxel_m: 0.5}\n'
        'mapanything:\n  ros__parameters:\n    map.max_points: 5000\n    window: {size: 4}\n'
        'other_node:\n  ros__parameters:\n    no_such: 3\n')
    config = load_config(tmp_path / 'a.yaml', [
        'map.voxel_m=1', 'use_depth=true', 'tf.odom_frame=no', 'device=cpu', 'window.size=5',
        'use_amp=false'])
    assert changed_values(config) == {
        'map.voxel_m': 1.0, 'map.max_points': 5000, 'use_depth': True, 'tf.odom_frame': 'no',
        'device': 'cpu', 'window.size': 5, 'use_amp': False}
    assert type(config.map.voxel_m) is float


@pytest.mark.parametrize(('text', 'sentence'), [
    ('{', 'is no YAML'),
    ('a: 1', "has nothing for the node 'mapanything'"),
    ('/**: 5', "has nothing for the node 'mapanything'"),
    ('- 1', "has nothing for the node 'mapanything'"),
    ('/**:\n  ros__parameters:\n    map: {voxel: 1.0}', 'unknown parameter: map.voxel'),
    ('/**:\n  ros__parameters:\n    map: {voxel_m: -1.0}', 'map.voxel_m must be between'),
    ('/**:\n  ros__parameters:\n    device: 3', 'device must be str, got 3'),
    ('/**:\n  ros__parameters:\n    window: {size: 2.5}', 'window.size must be int, got 2.5')])
def test_a_file_that_cannot_work_says_why(tmp_path, text, sentence):
    (tmp_path / 'a.yaml').write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / 'a.yaml', [])
    assert sentence in str(error.value)
