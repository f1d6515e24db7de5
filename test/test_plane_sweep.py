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

"""The plane sweep finds the depth of rendered scenes whose truth is exact."""

import numpy as np
import pytest
import scenes
import torch

from mapanything_ros.core.backends.colmap.consistency import check
from mapanything_ros.core.backends.colmap.picture import shrink
from mapanything_ros.core.backends.colmap.plane_sweep import (
    box_sum,
    choose_sources,
    project,
    sweep,
    SweepView,
)

NEAR, FAR = 1.0, 6.0


def sweep_view(index: int, width: int = 160) -> SweepView:
    truth = scenes.look('sideways', index)
    picture = shrink(truth.rgb, scenes.INTRINSICS, width)
    return SweepView(
        torch.from_numpy(picture.gray()), picture.intrinsics, truth.world_from_camera, NEAR, FAR)


def truth_at(index: int, view: SweepView) -> np.ndarray:
    """Sample the exact depth at the view's pixel centres."""
    depth = scenes.look('sideways', index).depth_m
    height, width = view.gray.shape
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height - 0.5).round().astype(int)
    columns = ((np.arange(width) + 0.5) * depth.shape[1] / width - 0.5).round().astype(int)
    return depth[np.ix_(rows, columns)]


@pytest.fixture(scope='module')
def views() -> list[SweepView]:
    return [sweep_view(index) for index in range(5)]


@pytest.fixture(scope='module')
def checked(views):
    swept = [
        sweep(view, [views[k] for k in choose_sources(views, index, 4)], 64)
        for index, view in enumerate(views)
    ]
    return check(views, swept, 0.03, 2)


def test_depth_is_right_where_it_is_kept(views, checked):
    for index, (view, depth) in enumerate(zip(views, checked, strict=True)):
        mask = depth.mask.numpy()
        truth = truth_at(index, view)[mask]
        error = np.abs(depth.depth.numpy()[mask] - truth) / truth
        assert mask.mean() > 0.6
        assert error.mean() < 0.02
        assert np.median(error) < 0.005


def test_confident_depths_are_better(views, checked):
    error, confidence = [], []
    for index, (view, depth) in enumerate(zip(views, checked, strict=True)):
        mask = depth.mask.numpy()
        truth = truth_at(index, view)[mask]
        error.append(np.abs(depth.depth.numpy()[mask] - truth) / truth)
        confidence.append(depth.confidence.numpy()[mask])
    order = np.argsort(-np.concatenate(confidence))
    ranked = np.concatenate(error)[order]
    quarters = [part.mean() for part in np.array_split(ranked, 4)]
    assert quarters[0] < 0.5 * quarters[3]
    assert quarters[0] < ranked.mean()
    assert np.concatenate(confidence).min() >= 0.0
    assert np.concatenate(confidence).max() <= 1.0


def test_a_point_is_projected_to_where_the_source_sees_it():
    view, source = sweep_view(0), sweep_view(3)
    depth_m = 2.5
    grid, ratio, seen = project(view, source, torch.tensor([1.0 / depth_m])[:, None, None])
    row, column = 40, 100
    point = np.linalg.inv(view.intrinsics) @ [column, row, 1.0] * depth_m
    world = view.world_from_camera @ [*point, 1.0]
    in_source = (np.linalg.inv(source.world_from_camera) @ world)[:3]
    pixel = source.intrinsics @ in_source / in_source[2]
    height, width = source.gray.shape
    found = (grid[0, row, column].numpy() + 1.0) / 2.0 * [width - 1, height - 1]
    assert seen[0, row, column]
    assert found == pytest.approx(pixel[:2], abs=1e-3)
    assert float(ratio[0, row, column]) * depth_m == pytest.approx(in_source[2], rel=1e-5)


def test_a_point_behind_the_source_is_not_seen():
    view = sweep_view(0)
    ahead = view.world_from_camera.copy()
    ahead[:3, 3] += 3.0 * ahead[:3, 2]
    source = SweepView(view.gray, view.intrinsics, ahead, NEAR, FAR)
    _, _, seen = project(view, source, torch.tensor([0.5])[:, None, None])
    assert not seen.any()


def test_box_sum_counts_a_cropped_window():
    count = box_sum(torch.ones(9, 11))
    assert count[4, 5] == 49
    assert count[0, 0] == 16
    image = torch.rand(9, 11, generator=torch.Generator().manual_seed(0))
    assert float(box_sum(image)[4, 5]) == pytest.approx(float(image[1:8, 2:9].sum()), rel=1e-5)


def test_sources_see_the_scene_and_stand_apart():
    views = [sweep_view(index) for index in (0, 0, 1, 2)]
    turned = views[0].world_from_camera.copy()
    turned[:3, :3] = turned[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    views.append(SweepView(views[0].gray, views[0].intrinsics, turned, NEAR, FAR))
    chosen = choose_sources(views, 0, 2)
    assert set(chosen) == {2, 3}


def test_a_view_without_sources_has_no_depth():
    view = sweep_view(0)
    swept = sweep(view, [], 16)
    assert not check([view, view], [swept, swept], 0.03, 1)[0].mask.any()


def test_shrinking_never_enlarges():
    truth = scenes.look('sideways', 0)
    assert shrink(truth.rgb, scenes.INTRINSICS, 1000).rgb.shape == truth.rgb.shape
