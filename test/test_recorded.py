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

import numpy as np
import pytest

from benchmarks.evaluate.drive import frame
from benchmarks.evaluate.recorded import recorded
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from mapanything_ros.cli.sample import write_sample
from mapanything_ros.sample.room import Room


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recorded') / 'room'
    write_sample(folder, frames=16, processes=1)
    return recorded(folder)


def test_a_bag_is_a_world_with_its_images_depth_and_poses(place):
    assert len(place) == len(place.views) == len(place.odom_from_camera) == 16
    assert place.size == (160, 120)
    room = Room(seed=0)
    for index in (0, 15):
        views = SimulatedBackend(place, Faults(), 0).infer([frame(place, index).keyframe(0)]).views
        points = views[0].points_in_camera()[views[0].mask].numpy().astype(float)
        pose = place.world_from_camera[index]
        distances = room.distance(points @ pose[:3, :3].T + pose[:3, 3])
        # A sensor's depth, not the truth itself.
        assert len(points) > 2000 and np.median(distances) < 0.01
        exact = room.render(pose, place.intrinsics, *place.size)
        assert np.median(np.abs(exact.rgb.astype(float) - place.render(index)[0])) < 12


def test_the_surface_of_a_recorded_world_is_what_its_sensor_saw(place):
    pose = place.world_from_camera[0]
    depth_m = Room(seed=0).render(pose, place.intrinsics, *place.size).depth_m
    k = place.intrinsics
    v, u = np.mgrid[10:110:5, 10:150:5]
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], axis=2)
    seen = (rays * depth_m[v, u, None]).reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
    assert np.median(place.distance(seen)) < 0.02
    nearer = place.distance(0.5 * (seen + pose[:3, 3]))
    assert np.median(nearer) > 0.2
