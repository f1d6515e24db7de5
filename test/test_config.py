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

from pathlib import Path

import pytest
import yaml

from mapanything_ros.core.config import Config, from_values, options
from mapanything_ros.core.errors import ConfigError

REPOSITORY = Path(__file__).parents[1]


def test_defaults_are_accepted_by_their_own_checks():
    assert from_values(Config, {}) == Config()


def test_every_parameter_has_a_description():
    assert all(len(item.metadata['description']) > 10 for _, item in options(Config))


def test_dotted_names_reach_their_section_and_nothing_else():
    config = from_values(Config, {'window.size': 9, 'map.voxel_m': 0.5})
    assert (config.window.size, config.map.voxel_m) == (9, 0.5)
    assert config.keyframes == Config().keyframes


@pytest.mark.parametrize(('values', 'text'), [
    ({'window.size': 0}, 'window.size must be between 1 and 1000, got 0'),
    ({'window.size': 1, 'window.overlap': 0, 'backend': 'colmap'}, 'window.size must be at least'),
    ({'use_depth': True, 'use_camera_info': False}, 'use_depth needs use_camera_info'),
    ({'mapanything.size_px': 500}, 'mapanything.size_px must be a multiple of 14, got 500'),
    ({'amp_dtype': 'int8'}, 'amp_dtype must be one of bf16, fp16, fp32'),
    ({'confidence_percentile': 101.0}, 'confidence_percentile must be between'),
    ({'window.size': 3, 'window.overlap': 3}, 'window.overlap must be less than window.size'),
    ({'map.voxel_m': 1}, 'map.voxel_m must be float, got 1'),
    ({'map.voxel_m': float('nan')}, 'map.voxel_m must be a finite number'),
    ({'use_depth': 1}, 'use_depth must be bool'),
    ({'backend': 'magic'}, "backend must be one of mapanything, colmap; got 'magic'"),
    ({'pose_source': 'tf'}, 'needs tf.odom_frame'),
    ({'tf.mode': 'map_to_odom', 'tf.odom_frame': 'odom'}, 'needs tf.odom_frame and tf.base_frame'),
    ({'colmap.min_depth_m': 5.0, 'colmap.max_depth_m': 4.0}, 'must be less than'),
    ({'vowel_m': 0.1}, 'unknown parameter: vowel_m'),
])
def test_a_bad_value_is_refused_by_name(values, text):
    with pytest.raises(ConfigError) as error:
        from_values(Config, values)
    assert text in str(error.value)


def test_tf_mode_follows_the_odometry_frame():
    assert Config().tf_mode == 'map_to_camera'
    assert from_values(Config, {'tf.odom_frame': 'odom', 'tf.base_frame': 'base_link'}
                       ).tf_mode == 'map_to_odom'
    assert from_values(Config, {'tf.mode': 'none'}).tf_mode == 'none'


def test_the_parameter_file_holds_every_parameter_with_its_default():
    text = (REPOSITORY / 'config' / 'mapanything.yaml').read_text()
    tree = yaml.safe_load(text)['/**']['ros__parameters']
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f'{name}.{key}': leaf for key, leaf in value.items()})
        else:
            flat[name] = value
    defaults = {name: item.default for name, item in options(Config)}
    assert flat == defaults
    assert {name: type(value) for name, value in flat.items()} == {
        name: type(value) for name, value in defaults.items()}


def test_the_parameters_page_has_every_parameter_with_its_default():
    page = (REPOSITORY / 'docs' / 'parameters.md').read_text()
    for name, item in options(Config):
        default = str(item.default).lower() if isinstance(item.default, bool) else item.default
        text = repr(default) if isinstance(item.default, str) else str(default)
        assert f'| `{name}` | `{text}` | {item.metadata["description"]} |' in page
