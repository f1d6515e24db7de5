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

import json
import os
import subprocess
import sys
import time
from xml.etree import ElementTree

from domain_coordinator import domain_id
import numpy as np
import open3d as o3d
import pytest

from mapanything_ros.cli.demo import main
from mapanything_ros.cli.sample import write_sample
from mapanything_ros.core.config import WindowConfig
from mapanything_ros.offline.mapping_run import Pace, read_tum, remappings_of
from mapanything_ros.offline.node_process import (
    DemoError,
    NodeProcess,
    private_domain,
    ros_arguments,
    use_large_shared_memory,
)
from mapanything_ros.offline.truth import Topics

# Small and quick; what is tested here is the way through the node, not the backend.
QUICK = ['--set', 'colmap.width_px=96', '--set', 'colmap.planes=48', '--set', 'map.voxel_m=0.05']


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo') / 'sample'
    write_sample(folder, frames=60)
    return folder


def demo(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mapanything_ros.cli.demo', *map(str, arguments)],
        capture_output=True, text=True, timeout=600)


def test_the_demo_maps_a_bag_through_the_real_node(sample, tmp_path):
    done = demo('--bag', sample, '--output', tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr
    assert 'NOT MapAnything' in done.stdout.splitlines()[0]
    assert 'odometry from /tf, no depth' in done.stdout
    for name in ('map_top.png', 'map_view.png', 'keyframes.png', 'node.log'):
        assert (tmp_path / name).stat().st_size > 0
        assert str(tmp_path / name) in done.stdout

    summary = json.loads((tmp_path / 'summary.json').read_text())
    trajectory = read_tum(tmp_path / 'trajectory.tum')
    points = np.asarray(o3d.io.read_point_cloud(tmp_path / 'map.ply').points)
    assert summary['missing'] == {}
    assert summary['backend'] == 'colmap'
    assert summary['scale']['source'] == 'odometry'
    assert summary['images_played'] == 60
    assert summary['images_received'] <= 60
    assert summary['keyframes'] == len(trajectory.stamps_ns) >= 6
    # On a busy machine images are lost, and with them keyframes for a second window.
    assert summary['windows'] >= 1
    assert summary['dropped'] == {'keyframes': 0, 'windows': 0}
    assert summary['points'] == len(points) > 500
    assert summary['depth_abs_rel'] < 0.1
    assert summary['kept_fraction'] > 0.15
    # The poses of trusted odometry come out as they went in.
    assert summary['position_rmse_m']['unaligned'] == pytest.approx(
        summary['odometry']['position_rmse_m']['unaligned'], abs=0.02)
    # Inside the sample's room, which is 5 x 4 m.
    assert (np.percentile(points, 99, axis=0) - np.percentile(points, 1, axis=0)).max() < 6


def test_the_demo_maps_without_odometry_with_the_scale_of_depth(sample, tmp_path):
    done = demo('--bag', sample, '--output', tmp_path, '--no-odometry', '--use-depth', *QUICK)
    assert done.returncode == 0, done.stderr
    assert 'no odometry, depth from /camera/aligned_depth_to_color/image_raw' in done.stdout
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['scale']['source'] in ('depth', 'map')
    assert summary['odometry_used'] is False
    assert summary['depth_used'] is True
    assert summary['position_rmse_m']['frame'] == 'first keyframe'
    assert summary['position_rmse_m']['alignment'] == 'SE3'


def test_a_node_that_does_not_start_is_reported_with_its_log(sample, tmp_path):
    done = demo('--bag', sample, '--output', tmp_path, '--set', 'colmap.width_px=1')
    assert done.returncode == 1
    assert 'the node ended with exit code' in done.stderr
    assert 'colmap.width_px' in done.stderr
    assert not (tmp_path / 'summary.json').exists()


def test_a_run_without_a_map_fails_and_leaves_no_old_results(sample, tmp_path):
    (tmp_path / 'map.ply').write_text('of an earlier run')
    done = demo('--bag', sample, '--output', tmp_path, '--set', 'colmap.min_kept=1.0',
                '--rate', 5, *QUICK)
    assert done.returncode == 1
    assert 'no map came out' in done.stderr
    assert not (tmp_path / 'summary.json').exists()


def test_a_folder_that_is_no_bag_is_refused_in_one_line(tmp_path):
    (tmp_path / 'map.ply').write_text('of an earlier run')
    done = demo('--bag', tmp_path / 'nothing', '--output', tmp_path)
    assert done.returncode == 1
    assert (tmp_path / 'map.ply').exists()
    assert done.stderr.startswith('demo: ')
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('given', ['colmap.planes', 'pose_source=tf'])
def test_parameters_that_make_no_sense_are_refused(given, capsys):
    with pytest.raises(SystemExit):
        main(['--set', given])
    assert f'--set {given.split("=")[0]}' in capsys.readouterr().err


def test_parameters_become_yaml_that_ros_reads_as_meant():
    arguments = ros_arguments(
        {'use_depth': True, 'tf.odom_frame': '', 'size': 6}, {'image': '/camera/image'})
    assert arguments == [
        '--ros-args', '-p', 'use_depth:=true', '-p', "tf.odom_frame:=''", '-p', 'size:=6',
        '-r', 'image:=/camera/image']


@pytest.mark.parametrize(('topics', 'expected'), [
    (Topics('/c/raw', False, '/c/camera_info', '/d/raw'),
     {'image': '/c/raw', 'camera_info': '/c/camera_info', 'depth': '/d/raw'}),
    (Topics('/c/jpeg', True, '/c/camera_info', '/d/png', True, '/d/camera_info'),
     {'image/compressed': '/c/jpeg', 'camera_info': '/c/camera_info',
      'depth/compressedDepth': '/d/png', 'depth/camera_info': '/d/camera_info'}),
    (Topics('/c/raw', False, '/c/camera_info', None),
     {'image': '/c/raw', 'camera_info': '/c/camera_info'})])
def test_the_node_is_given_the_topics_of_the_bag_by_its_own_names(topics, expected):
    assert remappings_of(topics, use_depth=True) == expected
    assert not [name for name in remappings_of(topics, use_depth=False) if 'depth' in name]


def test_demos_share_no_domain_with_each_other_or_with_tests_of_ros(monkeypatch):
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    with private_domain() as first, private_domain() as second:
        assert first != second
        with domain_id(iter([first, second, *range(1, 101)]).__next__) as third:
            assert third not in (first, second)
        assert os.environ['ROS_DOMAIN_ID'] == str(second)
        assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'


def test_large_messages_get_room_unless_the_user_has_set_up_dds(monkeypatch, tmp_path):
    clean = {key: value for key, value in os.environ.items() if 'PROFILES_FILE' not in key}
    monkeypatch.setattr(os, 'environ', clean)
    use_large_shared_memory(tmp_path / 'new' / 'fastdds.xml')
    profile = ElementTree.parse(os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'])
    assert int(profile.find('.//{*}segment_size').text) >= 64 * 2**20
    os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = 'mine.xml'
    use_large_shared_memory(tmp_path / 'other.xml')
    assert os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] == 'mine.xml'


def test_the_death_of_a_process_is_told_with_the_end_of_its_log(tmp_path):
    process = NodeProcess('json.tool', ['no such file'], tmp_path / 'node.log')
    with process, pytest.raises(DemoError, match='No such file'):
        for _ in range(600):
            process.check()
            time.sleep(0.1)


def test_stamps_in_a_trajectory_stay_exact(tmp_path):
    path = tmp_path / 'trajectory.tum'
    path.write_text('1700000000.000000001 1 2 3 0 0 0.70710678118 0.70710678118\n'
                    '1700000000.123456789 4 5 6 0 0 0 1\n')
    trajectory = read_tum(path)
    assert trajectory.stamps_ns.tolist() == [1700000000000000001, 1700000000123456789]
    np.testing.assert_allclose(trajectory.poses[0, :3, 0], [0, 1, 0], atol=1e-9)
    np.testing.assert_array_equal(trajectory.positions[1], [4, 5, 6])


class Busy:
    """A recorder's view of a node that is done with a window each third time it is asked."""

    map_points = 0

    def __init__(self, keyframes, windows=0):
        self.keyframes, self.windows, self.asked = keyframes, windows, 0

    def stamps(self):
        return set()

    def counts(self):
        self.asked += 1
        return self.keyframes, self.windows + self.asked // 3


@pytest.mark.parametrize(('keyframes', 'asked'), [(8, 1), (9, 3), (11, 3)])
def test_the_bag_waits_while_a_window_is_in_flight_and_the_next_is_full(keyframes, asked):
    node = Busy(keyframes)
    said = []
    pace = Pace(node, lambda: None, said.append, WindowConfig(size=6, overlap=3))
    pace(1.0, 2.0)
    assert node.asked == asked
    assert (pace.waited_s > 0) == (asked > 1)
    assert said == ['  1.0 of 2.0 s played, 0 keyframes mapped, 0 points']


def test_a_node_that_dies_ends_the_wait():
    def check():
        raise DemoError('dead')
    with pytest.raises(DemoError, match='dead'):
        Pace(Busy(99), check, print, WindowConfig())(1.0, 2.0)
