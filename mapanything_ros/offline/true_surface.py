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

"""The true surface as a bag has it: recorded depth at true poses."""

from __future__ import annotations

from pathlib import Path

from mapanything_ros.core.errors import InputError
from mapanything_ros.core.measures.evaluation import cloud_distances, fuse_depth, Trajectory
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.surface import Surface
from mapanything_ros.offline.truth import choose_topics, read_camera, read_depth, Topics

VOXEL_M = 0.01
FRAMES = 50


def fused_surface(bag: Path, topics: Topics, truth: Trajectory, *, rectified: bool) -> Surface:
    """
    Return the surface that registered depth shows from true poses ``world_from_camera``.

    A bag without depth, or with depth that is not registered, raises InputError.
    """
    if topics.depth is None:
        raise InputError('the bag has neither a true surface nor registered depth')
    camera, frame_id = read_camera(bag, topics.camera_info, rectified=rectified)
    step = max(1, len(truth.stamps_ns) // FRAMES)
    poses = dict(zip(truth.stamps_ns[::step].tolist(), truth.poses[::step], strict=True))
    cloud = fuse_depth(
        ((depth_m, poses[stamp]) for stamp, depth_m in read_depth(
            bag, topics.depth, frame_id, poses.__contains__)), camera, VOXEL_M)
    return Surface(
        f'recorded depth at true poses, fused to {VOXEL_M * 100:g} cm',
        lambda points: cloud_distances(points, cloud))


def surface_of_bag(bag: Path, truth: Trajectory, *, rectified: bool) -> Surface:
    """Return what ``fused_surface`` does, with topics that are found by type and name."""
    with Bag(bag) as opened:
        topics = choose_topics(opened)
    return fused_surface(bag, topics, truth, rectified=rectified)
