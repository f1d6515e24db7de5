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

"""
Errors of published depth, poses and maps against truth.

Nothing here fits anything unless it says so: the *unaligned* errors move the estimate by a
transform that is known beforehand, the *aligned* ones by the best rigid or similarity transform.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation, Slerp

from mapanything_ros.core.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RecordedCamera:
    """
    The pinhole camera of a recording, distorted as ``plumb_bob`` and ``rational_polynomial`` are.

    Written apart from the camera that rectifies, so that an error there shows here.
    ``intrinsics`` (3,3) pixels; ``distortion`` up to 8 numbers k1 k2 p1 p2 k3 k4 k5 k6, missing
    ones are 0.
    """

    width: int
    height: int
    intrinsics: Array
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.distortion) > 8:
            raise InputError(f'a camera has at most 8 distortion numbers, got {self.distortion}')

    def distort(self, rays: Array) -> Array:
        """Return the (...,2) distorted image-plane coordinates of (...,2) ideal ones, z = 1."""
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, *[0.0] * (8 - len(self.distortion)))
        x, y = rays[..., 0], rays[..., 1]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return np.stack([
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ], axis=-1)

    def project(self, rays: Array) -> Array:
        """Return the (...,2) pixels of (...,2) ideal image-plane coordinates, z = 1."""
        distorted = self.distort(rays)
        k = self.intrinsics
        return distorted * (k[0, 0], k[1, 1]) + (k[0, 2], k[1, 2])

    def rays(self) -> Array:
        """Return the (height,width,2) ideal image-plane coordinates of all pixels, z = 1."""
        seen = pixel_rays((self.height, self.width), self.intrinsics)
        ideal = seen
        for _ in range(20):  # fixed point; converges for any distortion that lenses have
            ideal = ideal + seen - self.distort(ideal)
        return ideal


def pixel_rays(shape: tuple[int, int], intrinsics: Array) -> Array:
    """Return the (H,W,2) image-plane coordinates, z = 1, of a distortion-free camera's pixels."""
    y, x = np.mgrid[:shape[0], :shape[1]].astype(float)
    k = intrinsics
    return np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1]], axis=-1)


def valid_depth(depth_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say where a depth image has a depth: finite and above 0."""
    return np.isfinite(depth_m) & (depth_m > 0)


def depth_ratios(
    depth_m: NDArray[np.float32], intrinsics: Array, truth_m: NDArray[np.float32],
    camera: RecordedCamera,
) -> Array:
    """
    Return published / true depth at every kept pixel whose truth is known, as a flat array.

    ``depth_m`` (H,W) is rectified and has ``intrinsics``; ``truth_m`` is as ``camera`` recorded
    it, distorted, at its own size. Each published pixel looks up the nearest recorded one; none
    is left out for lying on an edge.
    """
    if truth_m.shape != (camera.height, camera.width):
        raise InputError(
            f'the true depth is {truth_m.shape[1]}x{truth_m.shape[0]}, but its camera_info says '
            f'{camera.width}x{camera.height}')
    kept = valid_depth(depth_m)
    pixels = np.rint(camera.project(pixel_rays(depth_m.shape, intrinsics)[kept])).astype(int)
    inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(axis=-1)
    truth = truth_m[pixels[inside, 1], pixels[inside, 0]]
    known = valid_depth(truth)
    return depth_m[kept][inside][known].astype(float) / truth[known]


def abs_rel(ratios: Array) -> float:
    """Return the mean of |published - true| / true for ratios of published to true depth."""
    if not len(ratios):
        raise InputError('no published pixel has a true depth')
    return float(np.mean(np.abs(ratios - 1)))


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses ``frame_from_camera`` (N,4,4) at rising integer ``stamps_ns`` (N,)."""

    stamps_ns: NDArray[np.int64]
    poses: Array

    def __post_init__(self) -> None:
        if self.poses.shape != (len(self.stamps_ns), 4, 4):
            raise InputError(
                f'{len(self.stamps_ns)} stamps do not fit poses of shape {self.poses.shape}')
        if (np.diff(self.stamps_ns) <= 0).any():
            raise InputError('the stamps of a trajectory must rise')

    @property
    def positions(self) -> Array:
        """Return the (N,3) positions."""
        return self.poses[:, :3, 3]

    def take(self, stamps_ns: NDArray[np.int64]) -> Trajectory:
        """Return the poses at those of the stamps that this trajectory has, exactly."""
        _, mine, _ = np.intersect1d(self.stamps_ns, stamps_ns, return_indices=True)
        return Trajectory(self.stamps_ns[mine], self.poses[mine])

    def interpolate(
        self, stamps_ns: NDArray[np.int64], max_gap_s: float = math.inf,
    ) -> Trajectory:
        """
        Return poses at those of the stamps that lie within; linear, and slerp.

        Of stamps between two poses that are more than ``max_gap_s`` apart there are none.
        """
        known_ns, first = self.stamps_ns, self.stamps_ns[0]
        after = np.searchsorted(known_ns, stamps_ns).clip(0, len(known_ns) - 1)
        before = (after - 1).clip(0)
        between = (known_ns[before] < stamps_ns) & (stamps_ns < known_ns[after]) & (
            known_ns[after] - known_ns[before] <= max_gap_s * 1e9)
        stamps = np.unique(stamps_ns[(known_ns[after] == stamps_ns) | between])
        if len(self.stamps_ns) == 1:
            return Trajectory(stamps, np.repeat(self.poses, len(stamps), axis=0))
        # Seconds since the first stamp: nanoseconds since 1970 do not fit a float.
        known, wanted = (self.stamps_ns - first) * 1e-9, (stamps - first) * 1e-9
        poses = np.tile(np.eye(4), (len(stamps), 1, 1))
        for axis in range(3):
            poses[:, axis, 3] = np.interp(wanted, known, self.positions[:, axis])
        turns = Slerp(known, Rotation.from_matrix(self.poses[:, :3, :3]))
        poses[:, :3, :3] = turns(np.clip(wanted, 0, known[-1])).as_matrix()
        return Trajectory(stamps, poses)


@dataclass(frozen=True, eq=False)
class Similarity:
    """A transform of points, ``target = scale * rotation @ source + translation``."""

    scale: float
    rotation: Array
    translation: Array

    @classmethod
    def rigid(cls, target_from_source: Array) -> Similarity:
        """Wrap a (4,4) rigid transform."""
        return cls(1.0, target_from_source[:3, :3], target_from_source[:3, 3])

    def points(self, points: Array) -> Array:
        """Move (N,3) points."""
        return self.scale * points @ self.rotation.T + self.translation

    def trajectory(self, source: Trajectory) -> Trajectory:
        """Move a trajectory; its rotations stay rotations."""
        poses = source.poses.copy()
        poses[:, :3, :3] = self.rotation @ source.poses[:, :3, :3]
        poses[:, :3, 3] = self.points(source.positions)
        return Trajectory(source.stamps_ns, poses)


def anchor(truth: Trajectory, estimate: Trajectory) -> Similarity:
    """Return the rigid transform that puts the estimate's first pose that has truth on it."""
    shared = truth.take(estimate.stamps_ns)
    if not len(shared.stamps_ns):
        raise InputError('no pose has the stamp of a true pose')
    start = estimate.take(shared.stamps_ns[:1]).poses[0]
    return Similarity.rigid(shared.poses[0] @ np.linalg.inv(start))


def align(truth: Trajectory, estimate: Trajectory, *, with_scale: bool) -> Similarity:
    """
    Return the least-squares ``truth_from_estimate`` of the positions at shared stamps (Umeyama).

    Fewer than 3 positions, or positions on one line, raise InputError: they leave a turn open.
    """
    target = truth.take(estimate.stamps_ns)
    source = estimate.take(target.stamps_ns)
    if len(target.stamps_ns) < 3:
        raise InputError(
            f'an alignment needs 3 poses with truth, there are {len(target.stamps_ns)}')
    source_mean, target_mean = source.positions.mean(axis=0), target.positions.mean(axis=0)
    from_mean = source.positions - source_mean
    covariance = (target.positions - target_mean).T @ from_mean / len(from_mean)
    u, spread, vt = np.linalg.svd(covariance)
    if spread[1] <= 1e-9 * max(spread[0], 1e-300):
        raise InputError('the poses lie on one line or in one point, which leaves a turn open')
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    variance = float((from_mean ** 2).sum(axis=1).mean())
    scale = float(spread @ sign) / variance if with_scale else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


@dataclass(frozen=True)
class TrajectoryError:
    """Root mean squares over ``poses`` poses."""

    poses: int
    position_rmse_m: float
    rotation_rmse_deg: float


def trajectory_error(
    truth: Trajectory, estimate: Trajectory, truth_from_estimate: Similarity,
) -> TrajectoryError:
    """Compare poses at exactly equal stamps after moving the estimate."""
    target = truth.take(estimate.stamps_ns)
    if not len(target.stamps_ns):
        raise InputError('no pose has the stamp of a true pose')
    moved = truth_from_estimate.trajectory(estimate.take(target.stamps_ns))
    offsets = moved.positions - target.positions
    turns = Rotation.from_matrix(
        np.swapaxes(target.poses[:, :3, :3], 1, 2) @ moved.poses[:, :3, :3])
    return TrajectoryError(
        poses=len(offsets),
        position_rmse_m=float(np.sqrt((offsets ** 2).sum(axis=1).mean())),
        rotation_rmse_deg=float(np.degrees(np.sqrt((turns.magnitude() ** 2).mean()))),
    )


def fuse_depth(
    frames: Iterable[tuple[NDArray[np.float32], Array]], camera: RecordedCamera, voxel_m: float,
    min_frames: int = 2,
) -> Array:
    """
    Return (N,3) points of recorded depth images in the frame of their poses.

    ``frames`` gives depth images in metres as ``camera`` recorded them, 0 or NaN where invalid,
    with their (4,4) ``world_from_camera``. A point is the mean of what fell in its voxel, in the
    voxels that ``min_frames`` images or more have seen: one image's noise is no surface.
    """
    rays = camera.rays()
    keys, means = [np.empty(0, np.int64)], [np.empty((0, 3))]
    for depth_m, pose in frames:
        known = valid_depth(depth_m)
        z = depth_m[known].astype(float)[:, None]
        local = np.concatenate([rays[known] * z, z], axis=1)
        points = local @ pose[:3, :3].T + pose[:3, 3]
        key, mean, _ = _voxel_means(_voxel_keys(points, voxel_m), points)
        keys.append(key)
        means.append(mean)
    _, cloud, seen = _voxel_means(np.concatenate(keys), np.concatenate(means))
    return cloud[seen >= min_frames]


def _voxel_keys(points: Array, voxel_m: float) -> NDArray[np.int64]:
    cells = np.floor(points / voxel_m).astype(np.int64) & 0x1FFFFF  # 21 bits for each axis
    return cells[:, 0] << 42 | cells[:, 1] << 21 | cells[:, 2]


def _voxel_means(
    keys: NDArray[np.int64], points: Array,
) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
    unique, index, count = np.unique(keys, return_inverse=True, return_counts=True)
    sums = [np.bincount(index, points[:, axis], len(unique)) for axis in range(3)]
    return unique, np.stack(sums, axis=1) / count[:, None], count


def cloud_distances(points: Array, truth: Array) -> Array:
    """Return the (N,) distances of (N,3) points to the nearest point of a cloud."""
    if not len(truth):
        raise InputError('the true cloud has no points')
    return cKDTree(truth).query(points, workers=-1)[0]
