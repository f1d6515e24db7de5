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

import cv2
import numpy as np
import pytest

from mapanything_ros.core.config import KeyframesConfig
from mapanything_ros.core.datatypes import Frame
from mapanything_ros.core.frames.keyframes import FlowTracker, KeyframeSelector, sharpness

RANDOM = np.random.default_rng(1)
TEXTURE = cv2.GaussianBlur(RANDOM.integers(0, 255, (400, 700), np.uint8), (0, 0), 2)
TEXTURE = cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX)
PLAIN = np.full((240, 320), 90, np.uint8)


def view(shift_px):
    """Look at the texture through a 320x240 window, moved to the right."""
    return np.ascontiguousarray(TEXTURE[80:320, 100 + shift_px:420 + shift_px])


def undecodable():
    raise AssertionError('the image was decoded, but nobody needed it')


def frame(stamp_s, gray=undecodable, x_m=None, yaw_deg=0.0):
    pose = None
    if x_m is not None:
        yaw = np.radians(yaw_deg)
        pose = np.eye(4)
        pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        pose[0, 3] = x_m
    return Frame(int(stamp_s * 1e9), gray if callable(gray) else lambda: gray, undecodable, pose)


def run(selector, *frames):
    reasons = []
    for item in frames:
        decision = selector.decide(item)
        if decision.accepted:
            selector.accept(item)
        reasons.append(decision.reason)
    return reasons


def test_odometry_decides_without_decoding():
    selector = KeyframeSelector(KeyframesConfig(
        min_translation_m=0.2, min_rotation_deg=10.0, min_sharpness=0.0))
    assert run(
        selector, frame(0, x_m=0.0), frame(1, x_m=0.19), frame(2, x_m=0.21),
        frame(3, x_m=0.21, yaw_deg=9.9), frame(4, x_m=0.21, yaw_deg=10.1),
        frame(5, x_m=0.3, yaw_deg=10.0),
    ) == ['first', 'parked', 'translation', 'parked', 'rotation', 'parked']
    assert selector.counts == {'first': 1, 'parked': 3, 'translation': 1, 'rotation': 1}


def test_a_parked_camera_makes_one_keyframe_with_and_without_odometry():
    selector = KeyframeSelector(KeyframesConfig(max_interval_s=1.0))
    assert run(selector, *[frame(t, view(0), x_m=1.0) for t in range(20)]).count('first') == 1
    selector = KeyframeSelector(KeyframesConfig(max_interval_s=1.0))
    noisy = [np.clip(view(0) + RANDOM.normal(0, 2, (240, 320)), 0, 255).astype(np.uint8)
             for _ in range(20)]
    assert run(selector, *[frame(t, gray) for t, gray in enumerate(noisy)]) == (
        ['first'] + ['parked'] * 19)


@pytest.mark.parametrize('shift_px', [1, 7, 40, 100])
def test_flow_measures_the_shift_of_a_picture(shift_px):
    tracker = FlowTracker(view(0))
    for step in np.linspace(0, shift_px, 10).astype(int):
        measured = tracker.track(view(step))
    assert measured * 320 == pytest.approx(shift_px, abs=0.1)


def test_without_odometry_parallax_decides():
    selector = KeyframeSelector(KeyframesConfig(min_parallax=0.05))
    shifts = [0, 8, 15, 17, 25, 34]  # 0.05 of 320 pixels are 16
    assert run(selector, *[frame(t, view(x)) for t, x in enumerate(shifts)]) == [
        'first', 'parked', 'parked', 'parallax', 'parked', 'parallax']


def test_a_lost_view_makes_a_keyframe():
    selector = KeyframeSelector(KeyframesConfig())
    other = np.ascontiguousarray(TEXTURE[:240, 380:700][::-1, ::-1])
    assert run(selector, frame(0, view(0)), frame(1, other)) == ['first', 'parallax']


def test_time_decides_only_where_there_is_nothing_to_track():
    config = KeyframesConfig(max_interval_s=2.0, min_sharpness=0.0)
    plain = [frame(t, PLAIN) for t in (0.0, 1.0, 1.99, 2.0)]
    assert run(KeyframeSelector(config), *plain) == ['first', 'parked', 'parked', 'time']
    never = KeyframesConfig(max_interval_s=0.0, min_sharpness=0.0)
    assert run(KeyframeSelector(never), frame(0, PLAIN), frame(100, PLAIN)) == ['first', 'parked']


def test_a_blurred_frame_waits_for_the_next_sharp_one():
    selector = KeyframeSelector(KeyframesConfig(min_translation_m=0.1, min_sharpness=0.5))
    blurred = cv2.GaussianBlur(view(30), (0, 0), 5)
    assert sharpness(blurred) < 0.5 * sharpness(view(30))
    assert run(
        selector, frame(0, view(0), x_m=0.0), frame(1, view(20), x_m=0.2),
        frame(2, blurred, x_m=0.4), frame(3, view(40), x_m=0.45),
    ) == ['first', 'translation', 'blurred', 'translation']


def test_a_plain_scene_is_not_taken_for_blur_for_ever():
    selector = KeyframeSelector(KeyframesConfig(min_translation_m=0.1, min_sharpness=0.5))
    sharp = [frame(t, view(t), x_m=0.2 * t) for t in range(5)]
    plain = [frame(t, cv2.GaussianBlur(view(t), (0, 0), 6), x_m=0.2 * t) for t in range(5, 30)]
    reasons = run(selector, *sharp, *plain)
    assert reasons[5] == 'blurred'
    assert reasons[-1] == 'translation'


def test_reset_makes_the_next_frame_the_first():
    selector = KeyframeSelector(KeyframesConfig(min_sharpness=0.0))
    run(selector, frame(5, x_m=0.0))
    selector.reset()
    assert run(selector, frame(1, x_m=0.0)) == ['first']
