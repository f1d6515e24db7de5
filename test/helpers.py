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

"""A scene and a backend whose truth is exact, and messages made and read without the product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import cv2
from geometry_msgs.msg import TransformStamped
import numpy as np
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from std_msgs.msg import Header
import torch

from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale, WindowPrediction

WIDTH, HEIGHT = 160, 120
K = np.array([[118.0, 0.0, 77.3], [0.0, 121.0, 62.1], [0.0, 0.0, 1.0]])
FRAME = 'camera_optical'
DISTORTION = [-0.21, 0.06, 0.002, -0.001, 0.0]
ROOM_M = np.array([5.0, 4.0, 2.5])
DEADLINE_S = 30.0


def rigid(rotation: Rotation, translation: Sequence[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = translation
    return matrix


# Columns are the optical axes (right, down, forward) in a body frame (forward, left, up).
BODY_FROM_OPTICAL = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
# The camera sits ahead of and above the robot's base and looks a little down and to the left.
BASE_FROM_CAMERA = rigid(
    Rotation.from_euler('ZY', [10, 8], degrees=True), [0.2, 0.03, 0.4]) @ BODY_FROM_OPTICAL
# Odometry starts somewhere in the room; both have z up.
ODOM_FROM_WORLD = rigid(Rotation.from_euler('z', 40, degrees=True), [-1.5, -2.0, 0.1])


def camera_on_path(index: float) -> np.ndarray:
    """Return ``world_from_camera`` on a circle, 10 cm a step, looking outward and nodding."""
    angle = 0.125 * index
    position = [2.5 + 0.8 * np.cos(angle), 2.0 + 0.8 * np.sin(angle), 1.2 + 0.1 * np.sin(index)]
    heading = Rotation.from_euler('ZY', [angle, 0.25 * np.sin(index)])
    return rigid(heading, position) @ BODY_FROM_OPTICAL


def view_room(
    world_from_camera: np.ndarray, intrinsics: np.ndarray = K, width: int = WIDTH,
    height: int = HEIGHT, distortion: Sequence[float] = (0.0,) * 5,
) -> tuple[np.ndarray, np.ndarray]:
    """Return RGB and depth (0 on the ceiling, which gives no depth) of a textured box room."""
    rays = np.concatenate([
        undistorted(width, height, intrinsics, distortion), np.ones((height, width, 1))], axis=2)
    ways = rays @ world_from_camera[:3, :3].T
    origin = world_from_camera[:3, 3]
    with np.errstate(divide='ignore'):
        walls = (np.where(ways > 0, ROOM_M, 0.0) - origin) / ways
    depth = walls.min(axis=2)
    points = origin + depth[..., None] * ways
    ceiling = (walls.argmin(axis=2) == 2) & (ways[..., 2] > 0)
    rgb = colour_of_room(points).astype(np.uint8)
    return rgb, np.where(ceiling, 0, depth).astype(np.float32)


def colour_of_room(points: np.ndarray) -> np.ndarray:
    """Return the colours (...,3), 0 to 255, that the room's surface has at points in the world."""
    waves = np.sin(points @ np.array([[5.0, 2.0, 6.0], [3.0, 7.0, 1.0], [6.0, 4.0, 5.0]]))
    return 128 + 90 * waves


def cast_room(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the distance (...) along unit rays (...,3) to the room; inf through the ceiling."""
    with np.errstate(divide='ignore'):
        walls = (np.where(directions > 0, ROOM_M, 0.0) - origin) / directions
    ceiling = (walls.argmin(axis=-1) == 2) & (directions[..., 2] > 0)
    return np.where(ceiling, np.inf, walls.min(axis=-1))


def undistorted(
    width: int, height: int, intrinsics: np.ndarray, distortion: Sequence[float],
) -> np.ndarray:
    """Return x/z and y/z (H,W,2) of each pixel's centre, by fixed-point iteration of plumb_bob."""
    v, u = np.mgrid[:height, :width].astype(float)
    x0 = (u - intrinsics[0, 2]) / intrinsics[0, 0]
    y0 = (v - intrinsics[1, 2]) / intrinsics[1, 1]
    k1, k2, p1, p2, k3 = distortion
    x, y = x0, y0
    for _ in range(30 if any(distortion) else 0):
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        x, y = ((x0 - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial,
                (y0 - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / radial)
    return np.stack([x, y], axis=2)


def distance_to_room(points: np.ndarray) -> np.ndarray:
    """Return how far points (N,3) in the world are from the nearest wall or the floor."""
    return np.abs(np.concatenate([points, points[:, :2] - ROOM_M[:2]], axis=1)).min(axis=1)


def halved(intrinsics: np.ndarray) -> np.ndarray:
    """Return the intrinsics of the image at half its size (pixel centres at integers)."""
    half = intrinsics.copy()
    half[:2] *= 0.5
    half[:2, 2] -= 0.25
    return half


def transformed(target_from_source: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points (N,3) in the target frame."""
    return points @ target_from_source[:3, :3].T + target_from_source[:3, 3]


@dataclass(frozen=True)
class Seen:
    """What was sent: the stamp, the camera's pose and the picture without distortion."""

    stamp_ns: int
    world_from_camera: np.ndarray
    rgb: np.ndarray
    depth_m: np.ndarray


class ExactBackend(Backend):
    """Knows the pose of each stamp, and is strict about the keyframes that it is given."""

    name = 'exact'

    def __init__(self) -> None:
        self.seen: dict[int, Seen] = {}
        self.windows: list[list[Keyframe]] = []
        self.broken: list[str] = []
        self.failure: Exception | None = None
        self.scale = 1.0
        self.colour_tolerance = 2.0
        self.entered, self.free = Event(), Event()
        self.free.set()

    def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
        self.entered.set()
        assert self.free.wait(DEADLINE_S)
        self.windows.append(list(keyframes))
        if self.failure is not None:
            raise self.failure
        try:
            self._check(keyframes)
        except AssertionError as error:
            self.broken.append(str(error))
            raise
        first = self.seen[keyframes[0].stamp_ns].world_from_camera
        source = 'model' if self.scale == 1.0 else 'none'
        return WindowPrediction(
            tuple(self._predict(keyframe, np.linalg.inv(first)) for keyframe in keyframes),
            Scale(source, 1.0, 0.0))

    def statistics(self) -> dict[str, object]:
        return {'windows_seen': len(self.windows)}

    def _check(self, keyframes: Sequence[Keyframe]) -> None:
        ids = [keyframe.id for keyframe in keyframes]
        assert len(ids) >= 2 and ids == sorted(set(ids)), f'ids {ids}'
        for keyframe in keyframes:
            seen = self.seen[keyframe.stamp_ns]
            assert keyframe.frame_id == FRAME
            assert keyframe.rgb.dtype == np.uint8 and keyframe.rgb.shape == seen.rgb.shape
            error = np.abs(keyframe.rgb.astype(float) - seen.rgb)
            assert np.median(error) <= self.colour_tolerance, f'colours are off by {error.mean()}'
            if keyframe.depth_m is not None:
                assert keyframe.depth_m.dtype == np.float32
                assert keyframe.depth_m.shape == seen.rgb.shape[:2]
                assert np.isfinite(keyframe.depth_m).all() and (keyframe.depth_m >= 0).all()
            for matrix in (keyframe.odom_from_camera, keyframe.base_from_camera):
                assert matrix is None or np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3))

    def _predict(self, keyframe: Keyframe, first_from_world: np.ndarray) -> Prediction:
        seen = self.seen[keyframe.stamp_ns]
        height, width = (size // 2 for size in keyframe.rgb.shape[:2])
        k = halved(K if keyframe.intrinsics is None else keyframe.intrinsics)
        depth_m = torch.from_numpy(view_room(seen.world_from_camera, k, width, height)[1])
        rgb = cv2.resize(keyframe.rgb, (width, height), interpolation=cv2.INTER_AREA)
        pose = first_from_world @ seen.world_from_camera
        pose[:3, 3] *= self.scale
        return Prediction(
            keyframe.id, torch.from_numpy(rgb), depth_m * self.scale, 1 / (1 + depth_m),
            depth_m > 0, k, pose)


def stamp_of(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def header(stamp_ns: int, frame_id: str = FRAME) -> Header:
    made = Header(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = divmod(stamp_ns, 10**9)
    return made


def image(picture: np.ndarray, encoding: str, stamp_ns: int = 1) -> Image:
    return Image(
        header=header(stamp_ns), height=picture.shape[0], width=picture.shape[1],
        encoding=encoding, step=picture.nbytes // picture.shape[0], data=picture.tobytes())


def compressed(rgb: np.ndarray, form: str, stamp_ns: int = 1) -> CompressedImage:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if form == 'jpg' else []
    data = cv2.imencode('.' + form, rgb[..., ::-1], quality)[1]
    return CompressedImage(
        header=header(stamp_ns), format='jpeg' if form == 'jpg' else form, data=data.tobytes())


def camera_info(
    intrinsics: np.ndarray = K, width: int = WIDTH, height: int = HEIGHT,
    distortion: Sequence[float] = (0.0,) * 5, projection: np.ndarray | None = None,
) -> CameraInfo:
    p = np.zeros((3, 4))
    p[:, :3] = intrinsics if projection is None else projection
    return CameraInfo(
        header=header(1), width=width, height=height, distortion_model='plumb_bob',
        k=intrinsics.ravel(), d=list(distortion), r=np.eye(3).ravel(), p=p.ravel())


def transform(parent_from_child: np.ndarray, head: Header, child: str) -> TransformStamped:
    message = TransformStamped(header=head, child_frame_id=child)
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = parent_from_child[:3, 3].tolist()
    r.x, r.y, r.z, r.w = Rotation.from_matrix(parent_from_child[:3, :3]).as_quat().tolist()
    return message


def matrix_of(translation: Any, rotation: Any) -> np.ndarray:
    return rigid(
        Rotation.from_quat([rotation.x, rotation.y, rotation.z, rotation.w]),
        [translation.x, translation.y, translation.z])


def intrinsics_of(info: CameraInfo) -> np.ndarray:
    return np.array(info.k).reshape(3, 3)


def back_projected(depth_m: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the points (N,3) of the finite pixels, row by row, in the camera."""
    v, u = np.nonzero(np.isfinite(depth_m))
    z = depth_m[v, u]
    return np.stack([(u - k[0, 2]) * z / k[0, 0], (v - k[1, 2]) * z / k[1, 1], z], axis=1)


def points_of(cloud: PointCloud2) -> tuple[np.ndarray, np.ndarray]:
    """Return xyz (N,3) and rgb (N,3) as a viewer reads them."""
    fields = read_points(cloud)
    packed = np.ascontiguousarray(fields['rgb']).view(np.uint32)
    colours = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1)
    return np.stack([fields['x'], fields['y'], fields['z']], axis=1), colours


def pixels_of(message: Image) -> np.ndarray:
    kind, channels = {'rgb8': (np.uint8, 3), '32FC1': (np.float32, 1)}[message.encoding]
    pixels = np.frombuffer(bytes(message.data), kind)
    assert message.step * message.height == len(message.data) and not message.is_bigendian
    return pixels.reshape(message.height, message.width, channels).squeeze()
