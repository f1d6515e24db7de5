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

"""What makes a TF tree unsound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from geometry_msgs.msg import TransformStamped
import numpy as np

from mapanything_ros.ros.transforms import to_ns


def parents_of(transforms: Sequence[TransformStamped]) -> dict[str, set[str]]:
    """Return the parents that each frame was given."""
    found: dict[str, set[str]] = {}
    for item in transforms:
        found.setdefault(item.child_frame_id, set()).add(item.header.frame_id)
    return found


def faults_of(
    moving: Sequence[TransformStamped], fixed: Sequence[TransformStamped],
) -> Iterator[str]:
    """Give a sentence for each thing that a listener of /tf and /tf_static would stumble over."""
    parents = parents_of([*moving, *fixed])
    for child, found in parents.items():
        if len(found) > 1:
            yield f'{child} has the parents {sorted(found)}'
    for child in {item.child_frame_id for item in moving} & {
            item.child_frame_id for item in fixed}:
        yield f'{child} is both fixed and moving'
    roots = {parent for found in parents.values() for parent in found} - parents.keys()
    if len(roots) != 1:
        yield f'the roots are {sorted(roots)}'
    newest: dict[str, int] = {}
    for item in moving:
        child, stamp_ns = item.child_frame_id, to_ns(item.header.stamp)
        if stamp_ns <= newest.get(child, 0):
            yield f'{child} at {stamp_ns} comes after {newest.get(child, 0)}'
        newest[child] = stamp_ns
    for item in [*moving, *fixed]:
        t, r = item.transform.translation, item.transform.rotation
        turn = np.array([r.x, r.y, r.z, r.w])
        if not np.isfinite([t.x, t.y, t.z, *turn]).all():
            yield f'{item.child_frame_id} is not finite'
        elif abs(np.linalg.norm(turn) - 1) > 1e-6:
            yield f'the rotation of {item.child_frame_id} is no unit quaternion'
