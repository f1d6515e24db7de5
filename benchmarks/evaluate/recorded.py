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

"""A recorded bag as a world: its images, its odometry, its sensor's depth and true poses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from benchmarks.evaluate.worlds import World
from mapanything_ros.core.frames.camera import Camera
from mapanything_ros.core.measures.evaluation import (
    cloud_distances,
    fuse_depth,
    RecordedCamera,
    valid_depth,
)
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.truth import (
    choose_topics,
    read_camera,
    read_depth,
    read_messages,
    read_odometry,
    read_poses,
    stamp_ns,
)
from mapanything_ros.sample.room import RenderedView

SHRINK = 4
KEYFRAME_STEP_M = 0.05
# The surface is made of so many of the depth images.
EVERY = 5
TRUE_VOXEL_M = 0.01
ODOM_FRAME = 'odom'


def recorded(folder: Path, shrink: int = SHRINK) -> World:
    """
    Return the world of a bag with compressed colour images, registered depth and true poses.

    Images are rectified, and ``shrink`` times smaller. What the sensor has seen, put where the
    true poses have it, stands for the surface: figures finer than its noise mean nothing.
    """
    with Bag(folder) as bag:
        topics = choose_topics(bag)
    if topics.depth is None:
        raise ValueError(f'{folder} has no depth')
    whole, frame_id = read_camera(folder, topics.camera_info, rectified=False)
    camera = _shrunk(whole, shrink)
    truth = read_poses(folder)
    odometry = read_odometry(folder, ODOM_FRAME, frame_id, truth.stamps_ns)
    pictures = {
        stamp_ns(message): cv2.imdecode(message.data, cv2.IMREAD_COLOR)[..., ::-1]
        for _, message in read_messages(folder, {topics.image})}
    depths = dict(read_depth(folder, topics.depth, frame_id, pictures.__contains__))
    stamps_ns = np.intersect1d(odometry.stamps_ns, sorted(depths))
    truth, odometry = truth.take(stamps_ns), odometry.take(stamps_ns)
    cloud = fuse_depth(
        ((depths[stamp], pose) for stamp, pose in zip(
            stamps_ns.tolist()[::EVERY], truth.poses[::EVERY], strict=True)), whole, TRUE_VOXEL_M)
    size, middle = (camera.width, camera.height), (shrink - 1) // 2
    views = tuple(
        RenderedView(
            camera.rectify(cv2.resize(pictures[stamp], size, interpolation=cv2.INTER_AREA)),
            # The pixel nearest to the middle of those that make one.
            camera.rectify_depth(np.where(
                valid_depth(depths[stamp]), depths[stamp], 0,
            )[middle::shrink, middle::shrink].copy()))
        for stamp in stamps_ns.tolist())
    return World(
        name=folder.name, stamps_ns=stamps_ns, world_from_camera=truth.poses,
        odom_from_camera=odometry.poses, intrinsics=camera.k, views=views,
        distance=lambda points: cloud_distances(points, cloud), keyframe_step_m=KEYFRAME_STEP_M)


def _shrunk(camera: RecordedCamera, shrink: int) -> Camera:
    k = camera.intrinsics / shrink
    k[:2, 2] -= 0.5 - 0.5 / shrink
    k[2, 2] = 1.0
    return Camera(
        camera.width // shrink, camera.height // shrink, k, np.array(camera.distortion),
        np.zeros((3, 4)))
