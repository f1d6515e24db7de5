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

"""Each bad input is one clear sentence and exit code 1, and nothing half-written is left."""

from collections.abc import Iterator
import errno
import os
from pathlib import Path
import resource
import signal

from geometry_msgs.msg import PoseStamped
from helpers import header
import pytest
from rclpy.serialization import serialize_message
from recordings import (
    INTRINSICS,
    messages_of,
    Runs,
    seen_on_path,
    STEP_NS,
    summary_of,
    write_bag,
    write_photos,
)
from rosbags.rosbag2 import StoragePlugin

from mapanything_ros.cli import reconstruct
from mapanything_ros.offline.keyframe_store import KeyframeStore


@pytest.fixture
def run(monkeypatch) -> Runs:
    return Runs(monkeypatch)


@pytest.fixture
def refused(tmp_path, run, capsys):
    """Run where nothing can come out; return what was said."""
    def call(source: Path, *more: str, seen=()) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
        assert run(source, tmp_path / 'out', *more, seen=seen) == 1
        after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
        assert after == before, 'nothing is written and nothing left over'
        said = capsys.readouterr().err
        assert 'Traceback' not in said
        return said.splitlines()[-1]
    return call


def test_what_is_not_there(tmp_path, refused):
    assert 'there is no' in refused(tmp_path / 'nowhere')


def test_a_folder_with_neither_photos_nor_a_bag(tmp_path, refused):
    (tmp_path / 'notes').mkdir()
    assert 'holds no photos (.jpg,' in refused(tmp_path / 'notes')


def test_a_file_of_another_kind(tmp_path, refused):
    (tmp_path / 'notes.txt').write_text('hello')
    assert 'is no photo (.jpg,' in refused(tmp_path / 'notes.txt')


def test_an_empty_bag(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', [])
    assert 'holds no messages' in refused(bag)


def test_a_corrupt_bag(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    next(bag.glob('*.mcap')).write_bytes(os.urandom(4096))
    assert 'cannot be read, it may be damaged or cut off' in refused(bag)


def test_a_bag_that_was_cut_off(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    file = next(bag.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:100_000])
    assert 'cannot be read, it may be damaged or cut off' in refused(bag)


def test_a_bag_without_its_metadata(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    (bag / 'metadata.yaml').unlink()
    assert 'has no metadata.yaml: give one of its .mcap' in refused(bag)


def test_a_bag_that_breaks_off_gives_what_came_before_and_says_so(tmp_path, run, capsys):
    seen = seen_on_path(12)
    bag = write_bag(tmp_path / 'bag', messages_of(seen), StoragePlugin.SQLITE3)
    file = next(bag.glob('*.db3'))
    data = bytearray(file.read_bytes())
    # Pages in the middle of the file; the tables and the first images stay good.
    data[600_000:700_000] = b'\xff' * 100_000
    file.write_bytes(data)
    assert run(bag, tmp_path / 'out', seen=seen) == 1
    said = capsys.readouterr().err
    assert 'this is a part' in said and 'may be damaged or cut off' in said
    summary = summary_of(tmp_path / 'out')
    assert 'may be damaged or cut off' in summary['ended']
    assert 3 <= summary['keyframes_in_map'] < 12
    assert summary['keyframes_in_map'] == summary['images_read'], 'the last window is partial'


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_messages_that_are_damaged_are_left_out(tmp_path, run, capsys, monkeypatch, storage):
    seen = seen_on_path(8)
    messages = messages_of(seen)
    damaged = {('/cam/image', seen[3].stamp_ns), ('/tf', seen[2].stamp_ns + 20 * STEP_NS)}
    broken = {id(message) for topic, time_ns, message in messages if (topic, time_ns) in damaged}

    def half(message: object) -> bytes:
        data = serialize_message(message)
        return data[:len(data) // 2] if id(message) in broken else data

    monkeypatch.setattr('recordings.serialize_message', half)
    bag = write_bag(tmp_path / 'bag', messages, storage)
    options = ['--odom-frame', 'odom', '--base-frame', 'base']
    assert run(bag, tmp_path / 'out', *options, seen=seen) == 0
    said = capsys.readouterr().err
    assert 'a message on /tf is damaged and left out' in said
    warnings = {warning['kind']: warning for warning in summary_of(tmp_path / 'out')['warnings']}
    assert warnings['message_damaged']['times'] == 2
    mapped = {record.stamp_ns for record in KeyframeStore.open(tmp_path / 'out/keyframes')}
    assert seen[3].stamp_ns not in mapped and seen[-1].stamp_ns in mapped


def test_a_missing_topic(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    said = refused(bag, '--image-topic', '/front')
    assert 'has no topic /front' in said and '/cam/image [sensor_msgs/msg/Image]' in said


def test_several_topics_of_images(tmp_path, refused):
    messages = messages_of(seen_on_path(3))
    more = [('/other' + name, time, message) for name, time, message in messages
            if name == '/cam/image']
    bag = write_bag(tmp_path / 'bag', messages + more)
    said = refused(bag)
    assert '/cam/image' in said and '/other/cam/image' in said
    assert 'choose with --image-topic' in said


def test_a_topic_of_another_type(tmp_path, refused):
    pose = PoseStamped(header=header(1))
    bag = write_bag(tmp_path / 'bag', [*messages_of(seen_on_path(3)), ('/pose', 10**18, pose)])
    assert 'has no topic /pose of type' in refused(bag, '--image-topic', '/pose')


def test_a_bag_without_images(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3), leave_out=['/cam/image']))
    assert 'choose with --image-topic' in refused(bag)


def test_a_bag_without_camera_info(tmp_path, run, refused):
    seen = seen_on_path(6)
    bag = write_bag(tmp_path / 'bag', messages_of(seen, leave_out=['/cam/camera_info']))
    said = refused(bag)
    assert '--camera-info-topic' in said and '--set use_camera_info=false' in said
    assert run(bag, tmp_path / 'out', '--set', 'use_camera_info=false', seen=seen) == 0


def test_a_bag_without_odometry_that_is_wanted(tmp_path, refused):
    messages = messages_of(seen_on_path(3), leave_out=['/tf', '/tf_static'])
    bag = write_bag(tmp_path / 'bag', messages)
    assert 'has neither /tf nor /tf_static' in refused(bag, '--odom-frame', 'odom')


def test_odometry_under_another_name(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    said = refused(bag, '--odom-frame', 'odometry')
    assert 'no transform from camera_optical to odometry' in said


def test_a_bag_without_depth_that_is_wanted(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3), leave_out=['/cam/depth']))
    assert 'has no depth images: set use_depth to false' in refused(
        bag, '--set', 'use_depth=true')


def test_images_of_an_unknown_encoding(tmp_path, refused):
    messages = messages_of(seen_on_path(4))
    for topic, _, message in messages:
        if topic == '/cam/image':
            message.encoding = 'yuv999'
    bag = write_bag(tmp_path / 'bag', messages)
    assert "encoding 'yuv999' is not understood" in refused(bag)


def test_one_photo(tmp_path, refused):
    write_photos(tmp_path / 'photos', 1)
    said = refused(tmp_path / 'photos')
    assert '1 of 1 images became keyframes, and a window takes 2 at least' in said


def test_an_unreadable_photo_among_good_ones_is_left_out(tmp_path, run, capsys):
    seen = write_photos(tmp_path / 'photos', 7)
    path = tmp_path / 'photos/photo_4.png'
    path.write_bytes(path.read_bytes()[:3000])
    (tmp_path / 'photos/photo_5.png').write_text('no picture at all')
    assert run(tmp_path / 'photos', tmp_path / 'out', seen=seen) == 0
    summary = summary_of(tmp_path / 'out')
    assert summary['keyframes_in_map'] == 5
    said = capsys.readouterr().err
    for warning, name in zip(summary['warnings'], ('photo_4.png', 'photo_5.png'), strict=True):
        assert warning['times'] == 1
        assert f'an image is left out: {name} cannot be used' in warning['text']
        assert said.count(warning['text']) == 1


def test_only_unreadable_photos(tmp_path, refused):
    (tmp_path / 'photos').mkdir()
    for number in range(3):
        (tmp_path / f'photos/{number}.jpg').write_text('no picture at all')
    said = refused(tmp_path / 'photos')
    assert 'not one of 3 images could be used' in said and 'MapAnything takes' not in said


def test_photos_have_neither_odometry_nor_topics(tmp_path, refused):
    write_photos(tmp_path / 'photos', 3)
    assert 'bring neither depth nor transforms' in refused(
        tmp_path / 'photos', '--odom-frame', 'odom')
    assert 'only a bag has topics' in refused(tmp_path / 'photos', '--image-topic', '/image')


@pytest.mark.parametrize(('intrinsics', 'sentence'), [
    ('1,2,3', 'four numbers fx,fy,cx,cy are needed, got 3'),
    ('0,100,50,50', 'focal lengths must be above 0, got 0 and 100'),
    ('nowhere.yaml', 'is no calibration as ROS writes it')])
def test_intrinsics_that_are_none(tmp_path, refused, intrinsics, sentence):
    write_photos(tmp_path / 'photos', 3)
    assert sentence in refused(tmp_path / 'photos', '--intrinsics', intrinsics)


def test_photos_that_do_not_tell_their_focal_length(tmp_path, refused):
    write_photos(tmp_path / 'photos', 3)
    assert 'no focal length in its EXIF data' in refused(
        tmp_path / 'photos', '--intrinsics', 'exif')


def test_photos_without_intrinsics_for_a_backend_that_needs_them(tmp_path, capsys):
    write_photos(tmp_path / 'photos', 3)
    assert reconstruct.main([
        str(tmp_path / 'photos'), '--output', str(tmp_path / 'out'), '--backend', 'colmap',
        '--device', 'cpu']) == 1
    assert 'give --intrinsics' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['photos']


def test_a_bag_brings_its_own_calibration(tmp_path, refused):
    bag = write_bag(tmp_path / 'bag', messages_of(seen_on_path(3)))
    assert 'a bag brings camera_info' in refused(bag, '--intrinsics', INTRINSICS)


@pytest.mark.parametrize(('options', 'sentence'), [
    (['--set', 'no.such=1'], 'unknown parameter: no.such'),
    (['--set', 'window.size'], 'it needs NAME=VALUE'),
    (['--set', 'window.size=many'], 'window.size must be int'),
    (['--params', 'nowhere.yaml'], 'the parameter file nowhere.yaml cannot be read')])
def test_parameters_that_cannot_work(tmp_path, refused, options, sentence):
    write_photos(tmp_path / 'photos', 3)
    assert sentence in refused(tmp_path / 'photos', *options)


def test_a_gpu_that_is_not_there(tmp_path, capsys):
    write_photos(tmp_path / 'photos', 3)
    assert reconstruct.main([
        str(tmp_path / 'photos'), '--output', str(tmp_path / 'out'), '--backend', 'colmap',
        '--device', 'cuda', '--intrinsics', INTRINSICS]) == 1
    assert "set device to 'cpu'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['photos']


def test_a_backend_that_fails_in_every_window_says_why(tmp_path, capsys):
    write_photos(tmp_path / 'photos', 4)
    assert reconstruct.main([
        str(tmp_path / 'photos'), '--output', str(tmp_path / 'out'), '--backend', 'colmap',
        '--device', 'cpu', '--set', 'window.size=3', '--set', 'window.overlap=1',
        '--intrinsics', INTRINSICS]) == 1
    said = capsys.readouterr().err
    assert 'no map came out of 2 windows: failed: no two images of the window match' in said
    assert [path.name for path in tmp_path.iterdir()] == ['photos']


def test_an_output_folder_that_exists(tmp_path, run, capsys):
    seen = write_photos(tmp_path / 'photos', 4)
    output = tmp_path / 'out'
    assert run(tmp_path / 'photos', output, seen=seen) == 0
    (output / 'mine.txt').write_text('precious')
    assert run(tmp_path / 'photos', output, seen=seen) == 1
    assert 'exists: choose another --output, or replace it with --overwrite' in (
        capsys.readouterr().err)
    assert (output / 'mine.txt').exists()
    assert run(tmp_path / 'photos', output, '--overwrite', seen=seen) == 0
    assert not (output / 'mine.txt').exists()


def test_what_is_no_folder_of_results_is_never_replaced(tmp_path, refused):
    write_photos(tmp_path / 'photos', 3)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/thesis.tex').write_text('ten years of work')
    for more in ([], ['--overwrite'], ['--resume']):
        assert 'holds something else than results' in refused(tmp_path / 'photos', *more)


def test_an_output_that_is_a_file(tmp_path, refused):
    write_photos(tmp_path / 'photos', 3)
    (tmp_path / 'out').write_text('a file')
    assert 'is a file: choose another --output' in refused(tmp_path / 'photos', '--overwrite')


def test_an_output_that_cannot_be_replaced(refused, tmp_path, run, capsys, monkeypatch):
    write_photos(tmp_path / 'photos', 3)
    (tmp_path / 'out').mkdir()
    monkeypatch.setattr(os.path, 'ismount', lambda path: Path(path) == tmp_path / 'out')
    assert 'a disk is mounted there: give a folder below it' in refused(tmp_path / 'photos')
    monkeypatch.undo()
    run = Runs(monkeypatch)
    assert run(tmp_path / 'photos', Path('/')) == 1
    assert 'a disk is mounted there' in capsys.readouterr().err


def test_results_that_cannot_be_put_in_place_are_not_lost(tmp_path, run, capsys, monkeypatch):
    seen = write_photos(tmp_path / 'photos', 4)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / 'out':
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', refuse)
    assert run(tmp_path / 'photos', tmp_path / 'out', seen=seen) == 1
    work = tmp_path / '.out.part'
    assert f'could not be put in place: Device or resource busy; the results are in {work}' in (
        capsys.readouterr().err)
    assert summary_of(work)['ended'] == 'complete' and (work / 'map.ply').is_file()


def test_results_go_where_a_link_leads(tmp_path, run):
    seen = write_photos(tmp_path / 'photos', 4)
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'out').symlink_to(tmp_path / 'disk/maps')
    for more in ([], ['--overwrite']):
        assert run(tmp_path / 'photos', tmp_path / 'out', *more, seen=seen) == 0
        assert (tmp_path / 'out').is_symlink()
        assert summary_of(tmp_path / 'disk/maps')['keyframes_in_map'] == 4
        assert [path.name for path in (tmp_path / 'disk').iterdir()] == ['maps']


def test_a_name_that_no_disk_takes(refused):
    assert 'File name too long' in refused(Path('x' * 300))


def test_an_output_below_a_file(tmp_path, run, capsys):
    write_photos(tmp_path / 'photos', 3)
    (tmp_path / 'file').write_text('a file')
    assert run(tmp_path / 'photos', tmp_path / 'file/out') == 1
    assert 'cannot be written to: Not a directory' in capsys.readouterr().err


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Let no file grow beyond 60 kB, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_no_results(tmp_path, run, capsys, small_disk):
    seen = write_photos(tmp_path / 'photos', 4)
    assert run(tmp_path / 'photos', tmp_path / 'out', seen=seen) == 1
    assert 'could not be written: File too large' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['photos']


def test_a_disk_that_fills_up_while_the_map_is_written_leaves_no_results(
        tmp_path, run, capsys, small_disk, monkeypatch):
    # The windows fit, the map does not.
    monkeypatch.setattr(
        'mapanything_ros.offline.window_cache.CachedBackend._write', lambda *_: None)
    seen = write_photos(tmp_path / 'photos', 4)
    assert run(tmp_path / 'photos', tmp_path / 'out', seen=seen) == 1
    assert 'map.ply could not be written: ' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
