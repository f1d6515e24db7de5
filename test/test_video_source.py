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

"""A video gives its pictures in order, each at its time."""

from pathlib import Path

import cv2
from helpers import camera_on_path, view_room
import numpy as np
import pytest

from mapanything_ros.core.config import Config
from mapanything_ros.core.errors import InputError
from mapanything_ros.offline.calibration import parse_calibration
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.source import open_source, Source, TopicNames

COUNT, RATE_HZ = 12, 8.0


def write_video(path: Path) -> list[np.ndarray]:
    """Write a video with MJPEG, of which each picture stands for itself."""
    pictures = [view_room(camera_on_path(i))[0] for i in range(COUNT)]
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'MJPG'), RATE_HZ, pictures[0].shape[1::-1])
    assert writer.isOpened()
    for rgb in pictures:
        writer.write(np.ascontiguousarray(rgb[..., ::-1]))
    writer.release()
    return pictures


def open_video(path: Path, notices: Notices, intrinsics: str = 'none') -> Source:
    return open_source([path], Config(), TopicNames(), parse_calibration(intrinsics), notices)


def test_the_pictures_come_in_order_at_their_times(tmp_path):
    pictures = write_video(tmp_path / 'walk.avi')
    notices = Notices(print)
    video = open_video(tmp_path / 'walk.avi', notices, '118,121,77.3,62.1')
    frames = list(video.frames())
    assert video.kind == 'video' and video.total == video.read == len(frames) == COUNT
    for index, (frame, rgb) in enumerate(zip(frames, pictures, strict=True)):
        assert frame.stamp_ns == 10**9 + index * 125_000_000
        keyframe = frame.keyframe(index)
        assert np.abs(keyframe.rgb.astype(float) - rgb).mean() < 8, 'MJPEG loses a little'
        gray = frame.gray()
        assert gray.shape == (120, 160)
        assert np.abs(gray.astype(float) - cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)).mean() < 8
        np.testing.assert_array_equal(
            keyframe.intrinsics, [[118, 0, 77.3], [0, 121, 62.1], [0, 0, 1]])
    assert video.name(frames[4].stamp_ns) == '0.500 s'
    assert notices.summary() == []
    again = [frame.keyframe(0).rgb for frame in video.frames()]
    np.testing.assert_array_equal(again[-1], frames[-1].keyframe(0).rgb)


def test_a_video_that_was_cut_off_says_so(tmp_path):
    path = tmp_path / 'walk.avi'
    write_video(path)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) * 2 // 3])
    notices = Notices(print)
    video = open_video(path, notices)
    frames = list(video.frames())
    assert 3 <= len(frames) < COUNT
    if video.total > len(frames):
        assert 'it may be cut off or damaged' in notices.first['video_cut_off']


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / 'walk.mp4').write_bytes(b'no video at all')
    with pytest.raises(InputError, match='cannot be read as a video'):
        open_video(tmp_path / 'walk.mp4', Notices(print))
