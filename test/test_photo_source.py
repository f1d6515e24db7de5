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

"""Photos are read in order, upright, with what is known of the camera."""

from pathlib import Path

from helpers import camera_on_path, K, view_room
import numpy as np
from PIL import Image
import pytest
from recordings import write_calibration

from mapanything_ros.core.config import Config
from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.calibration import FILM_DIAGONAL_MM, parse_calibration
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.photo_source import PhotoSource
from mapanything_ros.offline.source import open_source, TopicNames

ORIENTATION, FOCAL_35MM, EXIF_IFD = 0x0112, 0xA405, 0x8769


def photo(width: int = 12, height: int = 8, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def source(paths: list[Path], intrinsics: str = 'none') -> PhotoSource:
    return PhotoSource(paths, parse_calibration(intrinsics), Notices(print))


def test_the_order_is_that_of_people_and_each_photo_is_a_second(tmp_path):
    names = ['IMG_2.png', 'img_10.PNG', 'IMG_1.png', 'IMG_1b.png']
    for seed, name in enumerate(names):
        photo(seed=seed).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no photo')
    photos = source([tmp_path])
    frames = list(photos.frames())
    assert [photos.name(frame.stamp_ns) for frame in frames] == [
        'IMG_1.png', 'IMG_1b.png', 'IMG_2.png', 'img_10.PNG']
    assert [frame.stamp_ns for frame in frames] == [n * 10**9 for n in (1, 2, 3, 4)]
    np.testing.assert_array_equal(frames[2].keyframe(5).rgb, np.asarray(photo(seed=0)))
    assert frames[2].keyframe(5).id == 5 and photos.read == photos.total == 4
    given = source([tmp_path / name for name in names])
    assert [given.name(frame.stamp_ns) for frame in given.frames()] == [
        photos.name(frame.stamp_ns) for frame in frames]


def test_pictures_of_a_kind_that_cannot_be_read_are_named(tmp_path):
    for name in ('IMG_1.JPG', 'IMG_2.HEIC', 'IMG_3.heic'):
        photo().save(tmp_path / name, format='jpeg')
    notices = Notices(print)
    photos = PhotoSource([tmp_path], None, notices)
    assert [photos.name(frame.stamp_ns) for frame in photos.frames()] == ['IMG_1.JPG']
    assert '2 pictures like IMG_2.HEIC are left out' in notices.first['other_pictures']


def test_names_may_hold_anything(tmp_path):
    names = ['1²3.png', '1 a\nb.png', '٣.png', 'Straße 10.png', 'straße 9.png', '-.png']
    for name in names:
        photo().save(tmp_path / name)
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'gone.png').symlink_to('nowhere')
    photos = source([tmp_path])
    assert [photos.name(frame.stamp_ns) for frame in photos.frames()] == [
        '1 a\nb.png', '1²3.png', '٣.png', '-.png', 'folder.png', 'gone.png', 'straße 9.png',
        'Straße 10.png']
    assert sorted(name for name, _, _ in photos.fingerprint()['files']) == sorted(names)
    with pytest.raises(InputError, match=r'gone\.png cannot be used'):
        list(photos.frames())[5].keyframe(0)


def test_photos_are_read_when_they_are_needed_and_not_before(tmp_path):
    for number in range(3):
        photo().save(tmp_path / f'{number}.png')
    frames = list(source([tmp_path]).frames())
    photo(seed=9).save(tmp_path / '1.png')
    np.testing.assert_array_equal(frames[1].keyframe(0).rgb, np.asarray(photo(seed=9)))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_photos_are_turned_upright(tmp_path, orientation):
    upright = np.zeros((24, 36, 3), np.uint8)
    upright[:12, :12] = 255, 0, 0
    upright[12:, 24:] = 0, 0, 255
    # What the sensor saw, so that undoing the orientation gives the picture above.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(
            1, 0, 2), 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(EXIF_IFD)[FOCAL_35MM] = 28
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / 'a.png', exif=exif)
    keyframe = next(source([tmp_path], 'exif').frames()).keyframe(0)
    np.testing.assert_array_equal(keyframe.rgb, upright)
    # A lens that draws 28 mm from its centre on film of 24x36 mm has these angles of view.
    focal_px = 28 / FILM_DIAGONAL_MM * np.hypot(36, 24)
    np.testing.assert_allclose(
        keyframe.intrinsics, [[focal_px, 0, 17.5], [0, focal_px, 11.5], [0, 0, 1]])


def test_a_large_photo_is_made_smaller_and_its_intrinsics_with_it(tmp_path):
    pose = camera_on_path(0)
    large = K.copy()
    large[:2] *= 20
    large[:2, 2] += 9.5  # a pixel of before now has 20 from -0.5 to 19.5
    rgb, _ = view_room(pose, large, 3200, 2400)
    Image.fromarray(rgb).save(tmp_path / 'large.png')
    text = f'{large[0, 0]},{large[1, 1]},{large[0, 2]},{large[1, 2]}'
    keyframe = next(source([tmp_path], text).frames()).keyframe(0)
    assert keyframe.rgb.shape == (1200, 1600, 3)
    expected, _ = view_room(pose, keyframe.intrinsics, 1600, 1200)
    assert np.abs(keyframe.rgb.astype(float) - expected).mean() < 1.0
    shifted = keyframe.intrinsics + [[0, 0, 3], [0, 0, 3], [0, 0, 0]]
    wrong, _ = view_room(pose, shifted, 1600, 1200)
    assert np.abs(keyframe.rgb.astype(float) - wrong).mean() > 1.0, 'the test sees such errors'


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_gray_photos_of_16_bits_keep_their_contrast(tmp_path, suffix):
    values = np.linspace(0, 65535, 24 * 36).reshape(24, 36).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f'a.{suffix}')
    rgb = next(source([tmp_path]).frames()).keyframe(0).rgb
    np.testing.assert_array_equal(rgb, np.repeat((values // 256)[..., None], 3, axis=2))


def test_photos_of_other_colours_become_rgb(tmp_path):
    plain = Image.new('RGB', (12, 8), (204, 102, 51))
    for name, mode in (('a.png', 'RGBA'), ('b.png', 'P'), ('c.jpg', 'CMYK'), ('d.png', 'L')):
        plain.convert(mode).save(tmp_path / name)
    Image.new('F', (12, 8), 0.5).save(tmp_path / 'e.tif')
    *good, bad = source([tmp_path]).frames()
    gray = [round(0.299 * 204 + 0.587 * 102 + 0.114 * 51)] * 3
    for frame, expected in zip(good, ([204, 102, 51],) * 3 + (gray,), strict=True):
        np.testing.assert_allclose(
            frame.keyframe(0).rgb, np.broadcast_to(expected, (8, 12, 3)), atol=3)
    with pytest.raises(InputError, match=r'e\.tif cannot be used: its pixels are floating'):
        bad.keyframe(0)


def test_photos_of_mixed_sizes_keep_theirs(tmp_path):
    photo(12, 8).save(tmp_path / '1.png')
    photo(8, 12).save(tmp_path / '2.png')
    photo(20, 20).convert('L').save(tmp_path / '3.png')
    shapes = [frame.keyframe(0).rgb.shape for frame in source([tmp_path]).frames()]
    assert shapes == [(8, 12, 3), (12, 8, 3), (20, 20, 3)]


def test_intrinsics_fit_photos_of_one_size_alone(tmp_path):
    photo(12, 8).save(tmp_path / '1.png')
    photo(8, 12).save(tmp_path / '2.png')
    frames = list(source([tmp_path], '10,10,5.5,3.5').frames())
    assert frames[0].keyframe(0).intrinsics[0, 0] == 10
    with pytest.raises(InputError, match=r'2\.png cannot be used: it is 8x12, but .* 12x8'):
        frames[1].keyframe(1)


def test_distortion_from_a_calibration_file_is_undone(tmp_path):
    rgb, _ = view_room(camera_on_path(0), distortion=(-0.2, 0.05, 0.0, 0.0, 0.0))
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    write_calibration(tmp_path / 'ost.yaml', K, (-0.2, 0.05, 0.0, 0.0, 0.0))
    photos = source([tmp_path / 'a.png'], str(tmp_path / 'ost.yaml'))
    keyframe = next(photos.frames()).keyframe(0)
    expected, _ = view_room(camera_on_path(0))
    inside = keyframe.rgb.any(axis=2)
    assert inside.mean() > 0.8
    error = np.abs(keyframe.rgb.astype(float) - expected)[inside]
    assert np.median(error) < 2.0
    np.testing.assert_array_equal(keyframe.intrinsics, K)


def test_photos_may_be_given_one_by_one_but_not_with_something_else(tmp_path):
    photo().save(tmp_path / '1.png')
    (tmp_path / 'more').mkdir()
    with pytest.raises(InputError, match='one bag, one video, one folder of photos, or several'):
        open_source(
            [tmp_path / '1.png', tmp_path / 'more'], Config(), TopicNames(), None, Notices(print))
