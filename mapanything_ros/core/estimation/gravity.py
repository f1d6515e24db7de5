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

"""Which way is up, from an accelerometer at rest."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from mapanything_ros.core.datatypes import Array

GRAVITY = 9.81
# Gravity is the mean over this long at rest: noise of 0.06 m/s^2 a sample leaves 0.03 degrees.
REST_NS = 10**9
# Samples farther apart than this are not one rest: nobody knows what was between them.
MAX_GAP_NS = REST_NS // 5
# Whether it rests is looked at so often: at 400 samples a second once in twenty.
CHECK_NS = REST_NS // 20
# The spread of the accelerations at rest, root mean square. The noise of a cheap IMU (MPU-6050:
# 400 ug/sqrt(Hz), 260 Hz) is 0.11 in all three axes; turning by 6 degrees in the second makes 0.3.
MAX_SPREAD = 0.3
# rad/s, as imu_tools' complementary filter has it for a steady state. Its 0.1 m/s^2 about g is
# for calibrated sensors: an MPU-6050 as it comes may be off by 0.05 g, 0.05 g and 0.08 g in its
# axes, and by 3 %.
MAX_RATE = 0.2
MAX_OFF_GRAVITY = 1.4


@dataclass(frozen=True, eq=False)
class Rest:
    """A second at rest: from when to when, and the unit vector (3,) up in the sensor's frame."""

    start_ns: int
    end_ns: int
    up: Array


class RestDetector:
    """
    Finds out which way is up while an IMU does not move.

    Samples are as REP-145 has them: m/s^2 with gravity, so that at rest they point up, and rad/s.
    ``rest`` is the second up to now where that was at rest, else None, and ``problem`` says then
    why it is not known; it is empty until there was a second to judge by.
    """

    def __init__(self) -> None:
        self.problem = ''
        self.rest: Rest | None = None
        self._samples: deque[tuple[int, Array, Array]] = deque()
        self._checked_ns = 0

    def add(self, stamp_ns: int, acceleration: Array, rate: Array) -> None:
        """Take a sample: (3,) acceleration and (3,) turn rate, zeros where that is unknown."""
        if not (np.isfinite(acceleration).all() and np.isfinite(rate).all()):
            self._start_again()
            self.problem = 'the IMU sends numbers that are not finite: its driver is at fault'
            return
        if self._samples and not 0 < stamp_ns - self._samples[-1][0] <= MAX_GAP_NS:
            self._start_again()
            self.problem = (
                f'the IMU sends no second without a gap of {MAX_GAP_NS * 1e-9:g} s, or its stamps '
                'do not rise: check its driver and the network')
        self._samples.append((stamp_ns, acceleration, rate))
        while len(self._samples) > 1 and stamp_ns - self._samples[1][0] >= REST_NS:
            self._samples.popleft()
        whole = stamp_ns - self._samples[0][0] >= REST_NS
        if whole and stamp_ns - self._checked_ns >= CHECK_NS:
            self._checked_ns = stamp_ns
            self._check()

    def _start_again(self) -> None:
        self._samples.clear()
        self._checked_ns = 0
        self.rest = None

    def _check(self) -> None:
        accelerations = np.array([sample[1] for sample in self._samples])
        mean = accelerations.mean(axis=0)
        spread = float(np.sqrt(accelerations.var(axis=0).sum()))
        turning = float(np.linalg.norm(np.mean([sample[2] for sample in self._samples], axis=0)))
        size = float(np.linalg.norm(mean))
        self.problem = _objection(size, spread, turning)
        self.rest = None if self.problem else Rest(
            self._samples[0][0], self._samples[-1][0], mean / size)


def _objection(size: float, spread: float, turning: float) -> str:
    """Return why this is no rest, or no gravity; empty where it is both."""
    if spread > MAX_SPREAD or turning > MAX_RATE:
        return (
            f'the IMU is not at rest (its accelerations spread by {spread:.2f} m/s^2, it turns by '
            f'{turning:.2f} rad/s; at most {MAX_SPREAD:g} and {MAX_RATE:g} are rest): keep the '
            'robot still for a second')
    if abs(size - GRAVITY) <= MAX_OFF_GRAVITY:
        return ''
    if abs(size - 1.0) <= MAX_OFF_GRAVITY / GRAVITY:
        return (
            f'the IMU sends {size:.2f} at rest: it seems to count in g, but REP-145 wants m/s^2; '
            'mend its driver')
    if size <= MAX_OFF_GRAVITY:
        return (
            f'the IMU sends {size:.2f} m/s^2 at rest: REP-145 wants accelerations with gravity; '
            'take its raw topic, and the one that has accelerations')
    return (
        f'the IMU sends {size:.2f} m/s^2 at rest, but gravity is {GRAVITY}: calibrate it, or mend '
        'its driver')


def levelled(start: Array, up_in_camera: Array) -> Array:
    """
    Turn a camera's pose (4,4) about the origin until ``up_in_camera`` (3,) is up, along z.

    What was forward, along x, points to x again as far as that is level; where it is plumb, what
    was up (down) is forward.
    """
    z = start[:3, :3] @ up_in_camera
    steep = abs(z[0]) > 0.99
    forward = np.array([0.0, 0.0, -np.sign(z[0])]) if steep else np.array([1.0, 0.0, 0.0])
    x = forward - (forward @ z) * z
    x /= np.linalg.norm(x)
    turn = np.eye(4)
    turn[:3, :3] = np.stack([x, np.cross(z, x), z])
    return turn @ start
