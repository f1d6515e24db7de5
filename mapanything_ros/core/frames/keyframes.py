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

"""Decides which frames are worth reconstructing."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
import math
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.config import KeyframesConfig
from mapanything_ros.core.datatypes import Array, Frame

Gray = NDArray[np.uint8]

# Fewer tracked corners than this say nothing about the motion between two images.
MIN_CORNERS = 12
MAX_RETURN_PX = 1.0
# Why a frame is none that has seen nothing new.
PARKED = 'parked'
# Sharpness is compared with this many frames before.
PEERS = 15


@dataclass(frozen=True)
class Decision:
    """Whether a frame becomes a keyframe, and why (a key of KeyframeSelector.counts)."""

    accepted: bool
    reason: str


class Selector(Protocol):
    """Decides which frames become keyframes; ``counts`` says how often each reason decided."""

    counts: Counter[str]

    def reset(self) -> None:
        """Forget the last keyframe; the counts stay."""
        ...

    def decide(self, frame: Frame) -> Decision:
        """Say whether the frame should become a keyframe."""
        ...

    def accept(self, frame: Frame) -> None:
        """Take note that the frame has become a keyframe."""
        ...


class EveryFrame:
    """Accepts all frames: pictures that somebody has chosen."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def reset(self) -> None:
        """Forget nothing: there is nothing to forget."""

    def decide(self, frame: Frame) -> Decision:
        """Accept the frame."""
        self.counts['chosen'] += 1
        return Decision(True, 'chosen')

    def accept(self, frame: Frame) -> None:
        """Take note of nothing."""


class KeyframeSelector:
    """
    Accepts frames that saw something new: by odometry, else by optical flow, else by time.

    A frame is decoded only as far as the decision needs: with odometry nothing is decoded until
    the camera has moved. ``counts`` says how often each reason decided.
    """

    def __init__(self, config: KeyframesConfig) -> None:
        self._config = config
        self.counts: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget the last keyframe; the counts stay."""
        self._last_stamp_ns: int | None = None
        self._last_pose: Array | None = None
        self._flow: FlowTracker | None = None
        self._sharpness: deque[float] = deque(maxlen=PEERS)

    def decide(self, frame: Frame) -> Decision:
        """Say whether the frame should become a keyframe."""
        decision = self._decide(frame)
        self.counts[decision.reason] += 1
        return decision

    def accept(self, frame: Frame) -> None:
        """Compare later frames with this one from now on."""
        self._last_stamp_ns = frame.stamp_ns
        self._last_pose = frame.odom_from_camera
        self._flow = FlowTracker(frame.gray()) if frame.odom_from_camera is None else None

    def _decide(self, frame: Frame) -> Decision:
        reason = self._motion(frame)
        if reason is None:
            return Decision(False, PARKED)
        if self._blurred(frame):
            return Decision(False, 'blurred')
        return Decision(True, reason)

    def _motion(self, frame: Frame) -> str | None:
        """Return what moved enough since the last keyframe, or None."""
        if self._last_stamp_ns is None:
            return 'first'
        if frame.odom_from_camera is not None and self._last_pose is not None:
            return self._odometry_motion(self._last_pose, frame.odom_from_camera)
        parallax = self._flow.track(frame.gray()) if self._flow else math.nan
        if parallax >= self._config.min_parallax:
            return 'parallax'
        waited_s = (frame.stamp_ns - self._last_stamp_ns) * 1e-9
        if math.isnan(parallax) and 0 < self._config.max_interval_s <= waited_s:
            return 'time'
        return None

    def _odometry_motion(self, last: Array, pose: Array) -> str | None:
        if np.linalg.norm(pose[:3, 3] - last[:3, 3]) >= self._config.min_translation_m:
            return 'translation'
        cosine = (np.trace(last[:3, :3].T @ pose[:3, :3]) - 1.0) / 2.0
        angle_deg = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
        return 'rotation' if angle_deg >= self._config.min_rotation_deg else None

    def _blurred(self, frame: Frame) -> bool:
        """Compare with the recent frames, so that a plain wall is not taken for blur for long."""
        if self._config.min_sharpness == 0:
            return False
        value = sharpness(frame.gray())
        peers = list(self._sharpness)
        self._sharpness.append(value)
        return bool(peers) and value < self._config.min_sharpness * float(np.median(peers))


def sharpness(gray: Gray) -> float:
    """Return the deviation of the Laplacian, which falls with blur (Pech-Pacheco et al. 2000)."""
    return float(cv2.Laplacian(gray, cv2.CV_32F).std())


class FlowTracker:
    """Follows corners of one image (h,w) through the images after it (pyramidal Lucas-Kanade)."""

    def __init__(self, gray: Gray) -> None:
        self._start_gray = gray
        self._start = cv2.goodFeaturesToTrack(gray, 150, 0.01, 7)
        self._guess = self._start

    def track(self, gray: Gray) -> float:
        """
        Return the median flow since the first image as a share of the width.

        It is infinite where the view is lost and nan where the first image has no texture. The
        last answer is the first guess of the next, so that flow larger than the pyramid is found.
        """
        if self._start is None or len(self._start) < MIN_CORNERS:
            return math.nan
        if gray.shape != self._start_gray.shape:
            return math.inf
        found, there = _flow(self._start_gray, gray, self._start, self._guess)
        # A corner that does not flow back to where it came from was not found.
        returned, back = _flow(gray, self._start_gray, found, self._start)
        lost_px = np.linalg.norm(returned - self._start, axis=2)[:, 0]
        width = gray.shape[1]
        good = there & back & (lost_px < MAX_RETURN_PX)
        if good.sum() < max(MIN_CORNERS, len(good) // 4):
            return math.inf
        step = np.median((found - self._start)[good], axis=0)
        self._guess = np.where(good[:, None, None], found, self._start + step)
        return float(np.median(np.linalg.norm((found - self._start)[good], axis=2))) / width


def _flow(
    start: Gray, end: Gray, corners: NDArray[Any], guess: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return where (N,1,2) corners went, and (N,) whether they are still in the image."""
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        start, end, corners, guess.copy(), winSize=(15, 15), maxLevel=3,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW)
    height, width = end.shape
    x, y = found[:, 0, 0], found[:, 0, 1]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return found, inside & (status[:, 0] == 1)
