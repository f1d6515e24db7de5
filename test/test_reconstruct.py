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

"""From a recording to a folder of results, and what is said where that cannot be."""

from dataclasses import replace
from pathlib import Path
import re

import cv2
from helpers import distance_to_room, Seen, transformed
import numpy as np
import open3d
import pytest
from recordings import (
    INTRINSICS,
    messages_of,
    Runs,
    seen_on_path,
    summary_of,
    write_bag,
    write_photos,
)
from rosbags.rosbag2 import StoragePlugin

from mapanything_ros.cli import reconstruct
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.core.reconstructor import Reconstructor
from mapanything_ros.offline.keyframe_store import KeyframeStore
from mapanything_ros.offline.mapping_run import read_tum

RESULTS = {'map.ply', 'trajectory.tum', 'summary.json', 'keyframes', 'depth', 'confidence'}


@pytest.fixture
def run(monkeypatch) -> Runs:
    return Runs(monkeypatch)


def world_from_map(output: Path, all_seen: list[Seen]) -> np.ndarray:
    """Return where the first camera of the map says that it is."""
    trajectory = read_tum(output / 'trajectory.tum')
    first = next(seen for seen in all_seen if seen.stamp_ns == trajectory.stamps_ns[0])
    return first.world_from_camera @ np.linalg.inv(trajectory.poses[0])


def check_geometry(output: Path, all_seen: list[Seen]) -> None:
    """Hold map, path and depth against the room."""
    to_world = world_from_map(output, all_seen)
    points = np.asarray(open3d.io.read_point_cloud(output / 'map.ply').points)
    assert len(points) > 5000
    # A voxel's mean lies inside of an edge of the room by its own size at most.
    distances = distance_to_room(transformed(to_world, points))
    assert np.median(distances) < 1e-3 and distances.max() < 0.02
    trajectory = read_tum(output / 'trajectory.tum')
    truth = {seen.stamp_ns: seen for seen in all_seen}
    for stamp_ns, pose in zip(trajectory.stamps_ns.tolist(), trajectory.poses, strict=True):
        np.testing.assert_allclose(to_world @ pose, truth[stamp_ns].world_from_camera, atol=1e-5)
    for record in KeyframeStore.open(output / 'keyframes'):
        seen = truth[record.stamp_ns]
        height, width = record.depth_m.shape
        np.testing.assert_allclose(
            record.depth_m[np.isfinite(record.depth_m)].mean(),
            seen.depth_m[seen.depth_m > 0].mean(), rtol=0.01)
        depth_mm = cv2.imread(str(output / f'depth/{record.id:06d}.png'), cv2.IMREAD_UNCHANGED)
        assert depth_mm.dtype == np.uint16
        np.testing.assert_array_equal(
            depth_mm, np.rint(np.nan_to_num(record.depth_m) * 1000).astype(np.uint16))
        confidence = cv2.imread(
            str(output / f'confidence/{record.id:06d}.png'), cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(confidence / 65535, record.confidence, atol=1e-5)
        assert confidence.shape == (height, width)


def test_photos_become_a_folder_of_results_that_is_true(tmp_path, run, capsys):
    seen = write_photos(tmp_path / 'photos', 8)
    assert run(tmp_path / 'photos', tmp_path / 'out', '--intrinsics', INTRINSICS, seen=seen) == 0
    assert {path.name for path in (tmp_path / 'out').iterdir()} == RESULTS
    assert [path.name for path in sorted(tmp_path.iterdir())] == ['out', 'photos']
    check_geometry(tmp_path / 'out', seen)
    summary = summary_of(tmp_path / 'out')
    assert summary['ended'] == 'complete' and summary['metric'] is True
    assert summary['images_read'] == summary['keyframes_in_map'] == 8, 'every photo is a keyframe'
    assert [window['keyframes'] for window in summary['windows']] == [3, 3, 3, 3]
    assert sum(window['new_keyframes'] for window in summary['windows']) == 8
    assert summary['parameters']['window.size'] == 3 and summary['warnings'] == []
    names = [record.name for record in KeyframeStore.open(tmp_path / 'out/keyframes')]
    assert names == [f'photo_{n}.png' for n in range(1, 9)]
    assert 'points of 8 keyframes, in metres' in capsys.readouterr().out


@pytest.mark.parametrize(('form', 'storage'), [
    ('', StoragePlugin.MCAP), ('png', StoragePlugin.SQLITE3), ('jpg', StoragePlugin.MCAP)])
def test_a_bag_becomes_a_folder_of_results_that_is_true(tmp_path, run, form, storage):
    run.backend.colour_tolerance = 6.0
    seen = seen_on_path(12)
    bag = write_bag(tmp_path / 'bag', messages_of(seen, form), storage)
    assert run(
        bag, tmp_path / 'out', '--odom-frame', 'odom', '--base-frame', 'base', seen=seen) == 0
    check_geometry(tmp_path / 'out', seen)
    summary = summary_of(tmp_path / 'out')
    assert summary['images_read'] == 12 and summary['warnings'] == []
    assert summary['statistics']['frames_first'] == 1, 'the first image counts: TF is known'
    assert summary['inputs']['odometry'] == 'odom'


def test_depth_and_odometry_reach_the_backend(tmp_path, run):
    seen = seen_on_path(8)
    bag = write_bag(tmp_path / 'bag', messages_of(seen))
    options = ['--odom-frame', 'odom', '--base-frame', 'base', '--set', 'use_depth=true']
    assert run(bag, tmp_path / 'out', *options, seen=seen) == 0
    keyframes = [keyframe for window in run.backend.windows for keyframe in window]
    truth = {view.stamp_ns: view for view in seen}
    for keyframe in keyframes:
        np.testing.assert_array_equal(keyframe.depth_m, truth[keyframe.stamp_ns].depth_m)
        assert keyframe.odom_from_camera is not None and keyframe.base_from_camera is not None


def test_two_runs_are_equal_to_the_byte(tmp_path, run):
    seen = seen_on_path(12)
    bag = write_bag(tmp_path / 'bag', messages_of(seen))
    for name in ('a', 'b'):
        assert run(bag, tmp_path / name, seen=seen) == 0
    for name in ('map.ply', 'trajectory.tum', 'keyframes/index.json', 'keyframes/000002.npz'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes(), name


@pytest.mark.parametrize('more', [
    {}, {'pose_use': 'prior', 'loop_closure.enabled': True},
    {'pose_source': 'none', 'map.max_points': 3000}])
def test_the_map_is_that_of_the_node_fed_with_the_same_keyframes(tmp_path, run, start, more):
    robot = start({
        'pose_source': 'tf', 'tf.odom_frame': 'odom', 'tf.base_frame': 'base',
        'window.size': 3, 'window.overlap': 2, 'output.directory': str(tmp_path / 'node'), **more})
    robot.calibrate()
    robot.mount()
    for _ in range(8):
        known = robot.keyframes_taken()
        seen = robot.see()
        robot.wait_for(lambda known=known: robot.keyframes_taken() > known, 'a keyframe')
        if robot.keyframes_taken() >= 3:
            robot.keyframe(seen.stamp_ns)
    assert robot.trigger('save').success
    all_seen = list(robot.backend.seen.values())
    bag = write_bag(tmp_path / 'bag', messages_of(all_seen))
    settings = [
        item for name, value in robot.parameters.items() if name != 'output.directory'
        for item in ('--set', f'{name}={value}')]
    assert run(bag, tmp_path / 'offline', *settings, seen=all_seen) == 0
    for name in ('map.ply', 'trajectory.tum'):
        node = (tmp_path / 'node' / name).read_bytes()
        assert node == (tmp_path / 'offline' / name).read_bytes(), name


def test_formats_and_finishing_are_written_beside_the_map(tmp_path, run, capsys):
    seen = write_photos(tmp_path / 'photos', 4)
    out = tmp_path / 'out'
    assert run(
        tmp_path / 'photos', out, '--formats', 'pcd,mesh.glb', '--normals', '--outliers',
        '--voxel', '0.05', '--scale-reference', '0,0,0,0,1,0=2', seen=seen) == 0
    assert {path.name for path in out.iterdir()} == RESULTS | {'map.pcd', 'mesh.glb'}
    cloud = open3d.io.read_point_cloud(out / 'map.ply')
    assert cloud.has_normals()
    np.testing.assert_allclose(
        np.asarray(open3d.io.read_point_cloud(out / 'map.pcd').points), cloud.points, atol=1e-6)
    # What was a metre is two.
    trajectory = read_tum(out / 'trajectory.tum')
    step_m = np.linalg.norm(trajectory.poses[1][:3, 3] - trajectory.poses[0][:3, 3])
    truth_m = np.linalg.norm((seen[1].world_from_camera - seen[0].world_from_camera)[:3, 3])
    np.testing.assert_allclose(step_m, 2 * truth_m, rtol=1e-5)
    poses = [record.map_from_camera for record in KeyframeStore.open(out / 'keyframes')]
    np.testing.assert_allclose(poses[1], trajectory.poses[1], atol=1e-8)
    summary = summary_of(out)
    assert summary['formats'] == ['pcd', 'mesh.glb'] and summary['finishing']['voxel_m'] == 0.05
    assert summary['metric'] and any('outliers' in note for note in summary['notes'])
    assert summary['points'] == len(cloud.points)
    assert 'multiplied by 2.0000' in capsys.readouterr().out


def test_34_photos_become_a_clean_cloud_by_the_documented_command(
        tmp_path, run, monkeypatch):
    text = (Path(__file__).parent.parent / 'docs' / 'offline.md').read_text()
    name, *command = re.search(r'^ +(reconstruct photos .*)$', text, re.MULTILINE)[1].split()
    assert name == 'reconstruct' and '--outliers' in command
    monkeypatch.chdir(tmp_path)
    run.backend.seen = {seen.stamp_ns: seen for seen in write_photos(Path('photos'), 34)}
    assert reconstruct.main([*command, '--device', 'cpu', '--no-report']) == 0
    summary = summary_of(Path('out/photos'))
    assert [window['new_keyframes'] for window in summary['windows']] == [34], 'all in one window'
    assert re.fullmatch(r'[1-9]\d* of \d+ points were outliers', summary['notes'][0])
    cloud = open3d.io.read_point_cloud('out/photos/map.ply')
    assert len(cloud.points) == summary['points'] > 5000
    assert np.ptp(np.asarray(cloud.colors), axis=0).min() > 0.2
    check_geometry(Path('out/photos'), list(run.backend.seen.values()))


def test_a_format_that_is_none_lists_those_that_are(tmp_path, run, capsys):
    write_photos(tmp_path / 'photos', 3)
    with pytest.raises(SystemExit) as error:
        run(tmp_path / 'photos', tmp_path / 'out', '--formats', 'dwg')
    assert error.value.code == 2 and 'choose among pcd, xyz' in capsys.readouterr().err


def test_a_window_that_is_lost_costs_only_itself(tmp_path, run):
    seen = write_photos(tmp_path / 'photos', 9)
    infer = run.backend.infer

    def sometimes(keyframes):
        if keyframes[0].id == 2:
            raise ZeroDivisionError('somebody made a mistake')
        if keyframes[0].id == 4:
            raise ReconstructionError('too dark')
        return infer(keyframes)

    run.backend.infer = sometimes
    options = ['--set', 'window.overlap=2']
    assert run(tmp_path / 'photos', tmp_path / 'out', *options, seen=seen) == 0
    summary = summary_of(tmp_path / 'out')
    problems = [window['problem'] for window in summary['windows']]
    assert problems == ['', '', "failed: ZeroDivisionError('somebody made a mistake')", '',
                        'failed: too dark', '', '']
    assert summary['keyframes_in_map'] == 9 and summary['pieces'] == 1
    assert [warning['kind'] for warning in summary['warnings']] == ['window_failed']
    check_geometry(tmp_path / 'out', seen)


def test_of_a_path_in_pieces_the_longest_is_kept(tmp_path, run):
    seen = write_photos(tmp_path / 'photos', 12)
    infer = run.backend.infer

    def broken(keyframes):
        # The picture that ties two windows cannot be reconstructed.
        made = infer(keyframes)
        views = made.views[1:] if keyframes[0].id == 8 else made.views
        return replace(made, views=tuple(
            replace(view, world_from_camera=np.linalg.inv(views[0].world_from_camera)
                    @ view.world_from_camera) for view in views))

    run.backend.infer = broken
    assert run(tmp_path / 'photos', tmp_path / 'out', seen=seen) == 0
    summary = summary_of(tmp_path / 'out')
    assert summary['pieces'] == 2 and summary['keyframes_in_map'] == 9
    text = summary['warnings'][-1]['text']
    assert 'nothing ties the path together in 1 places' in text and '3 keyframes of others' in text
    assert {path.name for path in (tmp_path / 'out').iterdir()} == RESULTS
    assert len(read_tum(tmp_path / 'out/trajectory.tum').stamps_ns) == 9
    check_geometry(tmp_path / 'out', seen)


def test_a_piece_after_two_that_were_joined_leaves_their_keyframes_alone(
    tmp_path, run, monkeypatch,
):
    """A loop joins the first two of three pieces: what it would find is put in its mouth."""
    seen = write_photos(tmp_path / 'photos', 24)
    infer, place, views = run.backend.infer, Reconstructor.place, Reconstructor.map_from_views
    first = {}

    def broken(keyframes):
        made = infer(keyframes)
        kept = made.views[1:] if keyframes[0].id in (8, 18) else made.views
        return replace(made, views=tuple(
            replace(view, world_from_camera=np.linalg.inv(kept[0].world_from_camera)
                    @ view.world_from_camera) for view in kept))

    def placed(self, inferred):
        before = views(self)
        submap = place(self, inferred)
        if submap.new_segment and not first:
            first.update(before)
        return replace(submap, moved=self.statistics()['segments'] == 2)

    run.backend.infer = broken
    monkeypatch.setattr(Reconstructor, 'place', placed)
    monkeypatch.setattr(Reconstructor, 'map_from_views', lambda self: (
        first if self.statistics()['segments'] == 2 else {}) | views(self))
    assert run(tmp_path / 'photos', tmp_path / 'out', seen=seen) == 0
    assert summary_of(tmp_path / 'out')['pieces'] == 2
    records = list(KeyframeStore.open(tmp_path / 'out/keyframes'))
    assert [record.name for record in records] == [f'photo_{n}.png' for n in range(1, 20)]
    assert all(np.isfinite(record.depth_m).any() for record in records)
