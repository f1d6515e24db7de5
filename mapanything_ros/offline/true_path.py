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

"""True paths of the camera, from a TUM file or from a bag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mapanything_ros.core.datatypes import Array
from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import Trajectory
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.truth import pose_matrix, read_messages, read_odometry, stamp_ns
from mapanything_ros.offline.tum import read_tum

POSE = 'geometry_msgs/msg/PoseStamped'
POSE_WITH_COVARIANCE = 'geometry_msgs/msg/PoseWithCovarianceStamped'
ODOMETRY = 'nav_msgs/msg/Odometry'
KINDS = (POSE, POSE_WITH_COVARIANCE, ODOMETRY)


@dataclass(frozen=True)
class BagPath:
    """
    Where a bag has the truth: a ``topic`` (empty: the only one), or a ``frame`` of /tf.

    ``camera_frame`` is the camera of the map. A PoseStamped is the camera's; the pose in an
    Odometry is that of its child frame, from which /tf must lead to the camera. Transforms of /tf
    that are up to ``max_gap_s`` apart are interpolated.
    """

    topic: str = ''
    frame: str = ''
    camera_frame: str = ''
    max_gap_s: float = math.inf


def read_true_path(
    path: Path, where: BagPath, stamps_ns: NDArray[np.int64],
) -> tuple[Trajectory, str]:
    """
    Return ``truth_from_camera`` and what it was read from; none raises InputError.

    Transforms of /tf are looked up at ``stamps_ns``; topics and files come as they are.
    """
    if not is_bag(path):
        return read_tum(path), path.name
    if where.frame:
        _require_camera_frame(where)
        poses = read_odometry(path, where.frame, where.camera_frame, stamps_ns, where.max_gap_s)
        return poses, f'/tf of {path.name}, {where.camera_frame} in {where.frame}'
    topic, kind = _topic(path, where.topic)
    found = dict(_poses(path, topic, kind))
    if not found:
        raise InputError(f'{topic} of {path} has no message')
    stamps = sorted(found)
    truth = Trajectory(
        np.array(stamps, np.int64), np.stack([found[stamp] for stamp in stamps]))
    if kind == ODOMETRY:
        truth = _of_camera(path, topic, truth, where)
    return truth, f'{topic} of {path.name}'


def is_bag(path: Path) -> bool:
    """Say whether a path is meant as a bag."""
    return path.is_dir() or path.suffix in ('.mcap', '.db3')


def matched(truth: Trajectory, stamps_ns: NDArray[np.int64], max_gap_s: float) -> Trajectory:
    """
    Return the truth at those of the stamps that it has, or has neighbours of, close enough.

    Between two poses no more than ``max_gap_s`` apart it is interpolated. Raises InputError where
    that leaves nothing.
    """
    shared = truth.interpolate(stamps_ns, max_gap_s)
    if not len(shared.stamps_ns):
        raise InputError(
            f'no keyframe has a true pose: the map is from {_span(stamps_ns)}, the truth from '
            f'{_span(truth.stamps_ns)}, and may have gaps of {max_gap_s:g} s (--max-gap); their '
            'clocks must be the same')
    return shared


def _topic(path: Path, name: str) -> tuple[str, str]:
    with Bag(path) as bag:
        if name:
            kind = bag.topics.get(name)
            if kind not in KINDS:
                raise InputError(
                    f'{path} has no topic {name} of type {", ".join(KINDS)}, but '
                    + ', '.join(f'{topic} [{known}]' for topic, known in bag.topics.items()))
            return name, str(kind)
        found = {topic: kind for topic, kind in bag.topics.items() if kind in KINDS}
    found = {topic: kind for topic, kind in found.items() if 'truth' in topic} or found
    if len(found) != 1:
        listing = ', '.join(found) or f'none of {", ".join(KINDS)}'
        raise InputError(
            f'the truth in {path} is not clear among its topics of poses ({listing}): choose with '
            '--topic, or --frame for /tf')
    return next(iter(found.items()))


def _poses(path: Path, topic: str, kind: str) -> Iterator[tuple[int, Array]]:
    for _, message in read_messages(path, {topic}):
        pose = message.pose if kind == POSE else message.pose.pose
        yield stamp_ns(message), pose_matrix(pose.position, pose.orientation)


def _of_camera(path: Path, topic: str, truth: Trajectory, where: BagPath) -> Trajectory:
    _require_camera_frame(where)
    child = next(message.child_frame_id for _, message in read_messages(path, {topic}))
    mounting = read_odometry(
        path, child, where.camera_frame, truth.stamps_ns, where.max_gap_s)
    truth = truth.take(mounting.stamps_ns)
    return Trajectory(truth.stamps_ns, truth.poses @ mounting.poses)


def _require_camera_frame(where: BagPath) -> None:
    if not where.camera_frame:
        raise InputError(
            'the results do not tell the frame of the camera, which is looked up in /tf: give '
            '--camera-frame')


def _span(stamps_ns: NDArray[np.int64]) -> str:
    return f'{stamps_ns[0] * 1e-9:.3f} to {stamps_ns[-1] * 1e-9:.3f} s'
