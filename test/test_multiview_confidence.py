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

"""Multi-view confidence says how many views agree: in rendered rooms, as the package has it."""

import contextlib
import io

from helpers import camera_on_path, K, view_room
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
import torch

from mapanything_ros.core.backends.mapanything.multiview_confidence import (
    frusta_overlap,
    multiview_confidence,
)


def rendered(count: int):
    """Return depth, intrinsics and poses (V,...) of the room, and where there is depth."""
    poses = [camera_on_path(2 * index) for index in range(count)]
    depth_m = torch.from_numpy(np.stack([view_room(pose)[1] for pose in poses]))
    k = torch.from_numpy(K).float().repeat(count, 1, 1)
    return depth_m, k, torch.from_numpy(np.stack(poses)).float(), depth_m > 0


def looking(*directions_deg: float):
    """Return views of a wall 2 m ahead, from the origin, turned about the vertical axis."""
    poses = np.tile(np.eye(4), (len(directions_deg), 1, 1))
    turns = [Rotation.from_euler('y', direction, degrees=True) for direction in directions_deg]
    poses[:, :3, :3] = [turn.as_matrix() for turn in turns]
    depth_m = torch.full((len(directions_deg), 120, 160), 2.0) + torch.rand(120, 160) * 0.01
    k = torch.from_numpy(K).float().repeat(len(directions_deg), 1, 1)
    return depth_m, k, torch.from_numpy(poses).float(), depth_m > 0


def test_exact_depth_is_agreed_upon_where_other_views_look():
    depth_m, k, poses, mask = rendered(3)
    confidence = multiview_confidence(depth_m, k, poses, mask, 0.02, 0.02)
    seen = confidence > 0
    assert 0.5 < seen[mask].float().mean() < 1.0
    # The nearest pixel is not the point: at grazing angles they differ.
    assert (confidence[seen] == 1).float().mean() > 0.98
    assert not confidence[~mask].any()


def test_a_view_that_is_wrong_is_contradicted_and_lowers_the_others():
    depth_m, k, poses, mask = rendered(3)
    depth_m[1] *= 1.2
    confidence = multiview_confidence(depth_m, k, poses, mask, 0.02, 0.02)
    wrong = confidence[1][mask[1]]
    assert wrong.mean() < 0.05
    assert 0.2 < confidence[0][mask[0]].mean() < 0.7


def test_the_thresholds_add_up():
    depth_m, k, poses, mask = looking(0.0, 0.0)
    depth_m[:] = 2.0
    depth_m[1] = 2.1
    # What each sees lies in the other's reach, too: views of different places are not compared.
    depth_m[:, 0, 0] = torch.tensor([2.2, 1.9])
    for absolute, relative, agrees in (
            (0.0, 0.06, True), (0.0, 0.04, False), (0.11, 0.0, True), (0.09, 0.0, False),
            (0.06, 0.03, True), (0.04, 0.02, False)):
        confidence = multiview_confidence(depth_m, k, poses, mask, absolute, relative)
        assert (confidence[0][1:, 1:] == float(agrees)).all(), (absolute, relative)


def test_a_view_that_meets_no_other_is_believed():
    depth_m, k, poses, mask = looking(0.0, 180.0)
    assert not frusta_overlap(depth_m, k, poses)[0, 1]
    assert (multiview_confidence(depth_m, k, poses, mask, 0.02, 0.02) == 1).all()


def test_what_overlaps():
    depth_m, k, poses, _ = looking(0.0, 40.0, 90.0, 180.0, 0.0)
    poses[4, 2, 3] = 2.5  # behind the wall that the first one sees
    overlap = frusta_overlap(depth_m, k, poses)
    assert overlap.diagonal().all()
    assert torch.equal(overlap, overlap.mT)
    assert overlap[0].tolist() == [True, True, False, False, False]


def test_more_views_than_are_compared_at_once():
    depth_m, k, poses, mask = looking(*[float(i) for i in range(19)])
    confidence = multiview_confidence(depth_m, k, poses, mask, 10.0, 10.0)
    assert ((confidence == 1) | (confidence == 0)).all()
    assert confidence.mean() > 0.9


@pytest.mark.real_model
def test_it_is_that_of_the_package():
    from mapanything_ros.core.backends.mapanything.loading import import_torchvision

    import_torchvision()
    from mapanything.utils.multiview_confidence import compute_multiview_depth_confidence

    random = np.random.default_rng(0)
    compared, different, together = 0, 0, []
    for trial in range(40):
        views, spread = int(random.integers(2, 7)), [0.05, 0.5, 1.5, 3.0][trial % 4]
        poses = np.tile(np.eye(4), (views, 1, 1))
        poses[:, :3, :3] = Rotation.from_rotvec(
            random.normal(size=(views, 3)) * spread).as_matrix()
        poses[:, :3, 3] = random.normal(size=(views, 3)) * spread
        depth_m = 2 + 0.3 * random.normal(size=(views, 1, 1)) + 0.02 * random.normal(
            size=(views, 120, 160))
        if trial % 10 == 0:
            depth_m[0] = 0
        depth_m, poses = (torch.from_numpy(value).float() for value in (depth_m, poses))
        k = torch.from_numpy(K).float().repeat(views, 1, 1)
        mask = torch.from_numpy(random.random(depth_m.shape) > 0.1)
        with contextlib.redirect_stderr(io.StringIO()):
            expected = torch.cat(compute_multiview_depth_confidence(
                depth_z=[*depth_m[:, None, :, :, None]], intrinsics=[*k[:, None]],
                camera_poses=[*poses[:, None]], depth_masks=[*mask[:, None]]))
        found = multiview_confidence(depth_m, k, poses, mask, 0.02, 0.02)
        compared += found.numel()
        different += int(((found - expected).abs() > 1e-5).sum())
        together.append(frusta_overlap(depth_m, k, poses).float().mean().item())
    print(f'{compared} pixels compared, {different} differ')
    assert different <= 1e-5 * compared
    assert 0.2 < np.mean(together) < 0.9, 'some meet, and some do not'
