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

"""Masks are those of MapAnything's numpy functions, to the bit."""

from collections.abc import Iterator
import itertools

from helpers import camera_on_path, K, transformed
import numpy as np
import pytest
import scenes
import torch

from mapanything_ros.core.backends.mapanything.masks import confidence_mask, edge_mask, largest_dot

THRESHOLDS = [(5.0, 0.03), (0.0, 0.0), (30.0, 0.1), (180.0, 0.0)]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)


def numpy_normals(points: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return normals and where they are valid: the crosses of what lies around each pixel."""
    padded = np.pad(points, ((1, 1), (1, 1), (0, 0)))
    inside = np.pad(mask, 1)
    height, width = mask.shape
    around = [(0, 1), (1, 0), (2, 1), (1, 2)]
    ways = [padded[r:r + height, c:c + width] - points for r, c in around]
    there = [inside[r:r + height, c:c + width] for r, c in around]
    total, valid = np.zeros_like(points), np.zeros_like(mask)
    for i in range(4):
        j = (i + 1) % 4
        counts = there[i] & there[j] & mask
        total = total + unit(np.cross(ways[i], ways[j])) * counts[..., None]
        valid |= counts
    return np.where(valid[..., None], unit(total), 0), valid


def windows(plane: np.ndarray, **how: object) -> np.ndarray:
    """Return (H,W,...,3,3): what lies around each pixel."""
    padded = np.pad(plane, ((1, 1), (1, 1)) + ((0, 0),) * (plane.ndim - 2), **how)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))


def numpy_edges(
    points: np.ndarray, depth_m: np.ndarray, mask: np.ndarray, degrees: float, share: float,
) -> np.ndarray:
    """Return the edges of one view, as the package's functions would, written from their text."""
    normals, valid = numpy_normals(points, mask)
    normals = unit(normals)
    around = windows(normals, mode='edge')
    products = (normals[..., None, None] * around).sum(axis=2)
    # Transposed: rows of the window of the mask are columns of that of the normals.
    counts = windows(valid, mode='edge').swapaxes(2, 3)
    angle = np.where(counts, np.arccos(products), 0).max(axis=(2, 3))
    angle = np.nanmax(windows(angle, constant_values=np.nan), axis=(2, 3))
    low, high = (np.where(mask, sign * depth_m, -np.inf) for sign in (1, -1))
    spread = sum(np.nanmax(windows(d, constant_values=np.nan), axis=(2, 3)) for d in (low, high))
    return (angle > np.deg2rad(degrees)) & (spread / depth_m > share)


def room(index: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points and depth of a place in the furnished sample room."""
    truth = scenes.look('sideways', index)
    random = np.random.default_rng(index)
    depth_m = truth.depth_m * (1 + noise * random.standard_normal(truth.depth_m.shape))
    depth_m = depth_m.astype(np.float32)
    return lifted(depth_m, truth.world_from_camera), depth_m


def lifted(depth_m: np.ndarray, pose: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[:depth_m.shape[0], :depth_m.shape[1]]
    rays = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(K).T
    points = transformed(pose, (rays * depth_m[..., None]).reshape(-1, 3))
    return points.reshape(*depth_m.shape, 3).astype(np.float32)


def steps(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return depth of boxes in front of a wall."""
    depth_m = np.full((height, width), 3.0)
    for _ in range(6):
        top, left = random.integers(0, height), random.integers(0, width)
        depth_m[top:top + 9, left:left + 12] = random.uniform(0.5, 2.9)
    return depth_m


def geometry(count: int, height: int, width: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Give points, depth and mask of views of every kind, a third of them with broken numbers."""
    for number in range(count):
        random = np.random.default_rng(number)
        depth_m = [
            lambda r=random: r.uniform(0.5, 4.0, (height, width)),
            lambda r=random: 2 + 0.002 * r.standard_normal((height, width)),
            lambda r=random: steps(r, height, width),
            lambda r=random: steps(r, height, width) * (
                1 + 0.001 * r.standard_normal((height, width))),
            lambda: 2 + 0.01 * np.arange(width) + np.zeros((height, 1)),
            lambda r=random: -r.uniform(-4.0, 0.5, (height, width)),
        ][number % 6]().astype(np.float32)
        points = lifted(depth_m, camera_on_path(number))
        share = [0.0, 0.1, 0.5, 0.97, 1.0][number % 5]
        mask = random.random((height, width)) >= share
        if number % 3 == 0:
            for broken in (np.nan, np.inf, 0.0):
                where = random.random((height, width)) < 0.005
                depth_m[where] = broken
                points[random.random((height, width)) < 0.005] = broken
        yield points, depth_m, mask


def edges(points, depth_m, mask, *thresholds) -> np.ndarray:
    found = edge_mask(*(torch.from_numpy(np.asarray(value)[None]) for value in (
        points, depth_m, mask)), *thresholds)
    return found[0].numpy()


def assert_equal(found: np.ndarray, expected: np.ndarray, mask: np.ndarray) -> None:
    assert np.array_equal(found & mask, expected & mask)


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize('noise', [0.0, 0.0005, 0.01])
def test_edges_of_a_rendered_room(noise):
    shares = []
    for index in range(3):
        points, depth_m = room(index, noise)
        mask = depth_m > 0
        expected = numpy_edges(points, depth_m, mask, 5.0, 0.03)
        assert_equal(edges(points, depth_m, mask, 5.0, 0.03), expected, mask)
        shares.append(expected[mask].mean())
    assert 0.01 < np.mean(shares) < 0.9


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize('thresholds', THRESHOLDS)
def test_edges_of_all_kinds_of_geometry(thresholds):
    compared, kept, cut = 0, 0, 0
    for points, depth_m, mask in geometry(18, 97, 131):
        expected = numpy_edges(points, depth_m, mask, *thresholds)
        assert_equal(edges(points, depth_m, mask, *thresholds), expected, mask)
        compared += mask.sum()
        cut += (expected & mask).sum()
        kept += (~expected & mask).sum()
    assert compared > 90_000
    assert kept > 1000
    assert cut > 1000 or thresholds[0] == 180.0


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize(('height', 'width'), [*itertools.product((1, 2, 3, 5), repeat=2)])
def test_edges_of_tiny_images(height, width):
    for points, depth_m, mask in geometry(6, height, width):
        expected = numpy_edges(points, depth_m, mask, 5.0, 0.03)
        assert_equal(edges(points, depth_m, mask, 5.0, 0.03), expected, mask)


def test_views_do_not_touch_each_other():
    views = list(geometry(5, 20, 30))
    together = edge_mask(
        *(torch.from_numpy(np.stack(values)) for values in zip(*views, strict=True)), 5.0, 0.03)
    for view, found in zip(views, together, strict=True):
        assert np.array_equal(found.numpy(), edges(*view, 5.0, 0.03))


@pytest.mark.parametrize('degrees', [0.0, 0.1, 5.0, 45.0, 90.0, 179.0, 180.0])
def test_the_largest_product_is_where_the_arc_cosine_crosses(degrees):
    limit = np.float32(largest_dot(degrees))
    if limit < -1:
        assert degrees == 180.0
        return
    assert np.arccos(np.array([limit]))[0] > np.deg2rad(degrees)
    above = np.nextafter(limit, np.float32(2))
    with np.errstate(invalid='ignore'):
        assert not np.arccos(np.array([above]))[0] > np.deg2rad(degrees)


@pytest.mark.parametrize('percentile', [0.0, 0.1, 10.0, 33.3, 50.0, 90.0, 99.99, 100.0])
def test_the_confidence_mask_is_above_the_quantile_of_torch(percentile):
    random = torch.Generator().manual_seed(0)
    confidence = 1 + torch.rand(5, 97, 131, generator=random)
    confidence[1] = 2.0
    confidence[2] = (confidence[2] * 4).round()
    confidence[3, 0, 0] = torch.nan
    threshold = torch.quantile(confidence.flatten(1), percentile / 100, dim=1)
    expected = confidence > threshold[:, None, None]
    assert torch.equal(confidence_mask(confidence, percentile), expected)
    assert not expected[3].any()


@pytest.mark.real_model
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_edges_are_those_of_the_package_on_five_million_pixels():
    from mapanything_ros.core.backends.mapanything.loading import import_torchvision

    import_torchvision()
    from mapanything.utils.geometry import depth_edge, normals_edge, points_to_normals

    compared, broken = 0, 0
    for number, (points, depth_m, mask) in enumerate(geometry(30, 392, 518)):
        degrees, share = THRESHOLDS[number % 3]
        normals, valid = points_to_normals(points, mask=mask)
        expected = normals_edge(normals, tol=degrees, mask=valid) & depth_edge(
            depth_m, rtol=share, mask=mask)
        if number < 6:  # slow
            assert np.array_equal(numpy_edges(points, depth_m, mask, degrees, share), expected)
        assert_equal(edges(points, depth_m, mask, degrees, share), expected, mask)
        compared += mask.size
        broken += int(np.isnan(points).any(axis=2).sum())
    print(f'{compared} pixels compared, {broken} of them NaN: none differs')
    assert compared > 5_000_000
    assert broken > 1000
