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
Camera poses of a window from its images: estimated from nothing, or refined from odometry.

Everything runs in memory, on one thread where the number of threads could change the result, with
fixed seeds: the same window gives the same poses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np

from mapanything_ros.core.backends.colmap.features import FeatureExtractor, Features, match
from mapanything_ros.core.backends.colmap.pose_refinement import ImagePair, refine_poses
from mapanything_ros.core.backends.colmap.signal_handlers import signal_handlers_kept
from mapanything_ros.core.datatypes import Array, Keyframe
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.core.libraries import require_libraries

# Fewer matches than this between two images are chance.
MIN_MATCHES = 15
# Right models of sharp images have half a pixel.
MAX_ERROR_PX = 1.5
# With fewer of its images registered a window has failed.
MIN_REGISTERED = 0.5
# Median angle between the rays to a point, below which depth is noise.
MIN_ANGLE_DEG = 1.5


@dataclass(frozen=True, eq=False)
class SparseView:
    """An image's pose (4,4) and the depths (N,) of the points that were triangulated in it."""

    world_from_camera: Array
    depths: Array


class StructureFromMotion:
    """Finds the poses of the keyframes of a window; features are extracted once a keyframe."""

    def __init__(self, max_features: int) -> None:
        self._pycolmap = load_pycolmap()
        self._extractor = FeatureExtractor(self._pycolmap, max_features)

    def estimate(self, keyframes: Sequence[Keyframe]) -> dict[int, SparseView]:
        """
        Return the registered keyframes by id, in the order given, in some world and some scale.

        Raises ReconstructionError where the images do not determine the poses.
        """
        with self._matched(keyframes) as (database, pairs):
            if not pairs:
                raise ReconstructionError(
                    'no two images of the window match: the scene has too little texture, or '
                    'the keyframes are too far apart to overlap')
            model = self._map(database)
        self._require_fit(model)
        views = _views(model, keyframes)
        if len(views) < max(2, MIN_REGISTERED * len(keyframes)):
            raise ReconstructionError(
                f'only {len(views)} of {len(keyframes)} images of the window could be '
                f'registered: too little texture or overlap')
        return views

    def refine(
        self, keyframes: Sequence[Keyframe], poses: Mapping[int, Array]
    ) -> dict[int, SparseView]:
        """
        Adjust metric poses (4,4), by keyframe id, to what the images show.

        The window as a whole stays where it was. An image without matches keeps its pose.
        """
        with self._matched(keyframes) as (database, pairs):
            cache = self._pycolmap.DatabaseCache.create(
                database, self._pycolmap.DatabaseCacheOptions())
        refined = refine_poses([poses[keyframe.id] for keyframe in keyframes], pairs)
        return _views(self._triangulated(cache, refined), keyframes)

    def _triangulated(self, cache: Any, poses: Sequence[Array]) -> Any:
        """Return the model of the points that given poses and matches give."""
        model = self._pycolmap.Reconstruction()
        model.load(cache)
        for number, pose in enumerate(poses, start=1):
            model.frame(number).rig_from_world = self._pycolmap.Rigid3d(np.linalg.inv(pose)[:3])
            model.register_frame(number)
        mapper = self._pycolmap.IncrementalMapper(cache)
        mapper.begin_reconstruction(model)
        options = self._options().get_triangulation()
        for number in range(1, len(poses) + 1):
            mapper.triangulate_image(options, number)
        mapper.end_reconstruction(False)
        return model

    @contextmanager
    def _matched(self, keyframes: Sequence[Keyframe]) -> Iterator[tuple[Any, list[ImagePair]]]:
        """Give a database of the window in memory, and its pairs of images that match."""
        features = [self._extractor.features(keyframe) for keyframe in keyframes]
        with self._pycolmap.Database.open(':memory:') as database:
            cameras = [
                self._write_image(database, number, keyframe, feature)
                for number, (keyframe, feature) in enumerate(
                    zip(keyframes, features, strict=True), start=1)
            ]
            yield database, self._match(database, cameras, features)

    def _write_image(
        self, database: Any, number: int, keyframe: Keyframe, features: Features
    ) -> Any:
        """Write an image with a camera of its own, which COLMAP wants as a rig with one frame."""
        camera = self._camera(number, keyframe)
        database.write_camera(camera, use_camera_id=True)
        rig = self._pycolmap.Rig(rig_id=number)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        image = self._pycolmap.Image(name=f'{number:06d}', camera_id=number, image_id=number)
        database.write_image(image, use_image_id=True)
        frame = self._pycolmap.Frame(frame_id=number, rig_id=number)
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
        database.write_keypoints(number, features.pixels.astype(np.float32))
        return camera

    def _camera(self, number: int, keyframe: Keyframe) -> Any:
        height, width = keyframe.rgb.shape[:2]
        k = keyframe.intrinsics
        assert k is not None
        camera = self._pycolmap.Camera(
            camera_id=number, model='PINHOLE', width=width, height=height,
            params=[k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5])
        camera.has_prior_focal_length = True
        return camera

    def _match(
        self, database: Any, cameras: Sequence[Any], features: Sequence[Features]
    ) -> list[ImagePair]:
        options = self._pycolmap.TwoViewGeometryOptions()
        options.min_num_inliers = MIN_MATCHES
        options.ransac.random_seed = 0
        options.ransac.num_threads = 1
        pairs = []
        for first, second in combinations(range(len(features)), 2):
            matches = match(features[first].descriptors, features[second].descriptors)
            if len(matches) < MIN_MATCHES:
                continue
            geometry = self._pycolmap.estimate_calibrated_two_view_geometry(
                cameras[first], features[first].pixels, cameras[second],
                features[second].pixels, matches, options)
            database.write_two_view_geometry(first + 1, second + 1, geometry)
            inliers = geometry.inlier_matches
            if len(inliers) >= MIN_MATCHES:
                pairs.append(ImagePair(
                    first, second,
                    _rays(cameras[first], features[first].pixels[inliers[:, 0]]),
                    _rays(cameras[second], features[second].pixels[inliers[:, 1]]),
                    cameras[first].mean_focal_length()))
        return pairs

    def _map(self, database: Any) -> Any:
        manager = self._pycolmap.ReconstructionManager()
        self._pycolmap.IncrementalPipeline(self._options(), database, manager).run()
        if manager.size() == 0:
            raise ReconstructionError(
                'the camera poses cannot be estimated: the camera moved too little, or only '
                'turned; move it sideways')
        return max((manager.get(k) for k in range(manager.size())),
                   key=lambda model: model.num_reg_images())

    def _options(self) -> Any:
        options = self._pycolmap.IncrementalPipelineOptions()
        options.min_num_matches = MIN_MATCHES
        options.min_model_size = 2
        options.multiple_models = False
        options.extract_colors = False
        options.num_threads = 1
        options.random_seed = 0
        options.ba_refine_focal_length = False
        options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = False
        options.mapper.abs_pose_refine_extra_params = False
        options.mapper.num_threads = 1
        options.mapper.random_seed = 0
        # COLMAP expects photographs taken far apart; keyframes of a robot are close together.
        options.mapper.init_min_tri_angle = 4.0
        options.triangulation.random_seed = 0
        return options

    def _require_fit(self, model: Any) -> None:
        error = model.compute_mean_reprojection_error()
        if error > MAX_ERROR_PX:
            raise ReconstructionError(
                f'the estimated poses do not fit the images: reprojection error {error:.1f} '
                f'pixels; check camera_info, and that the scene is static')
        angle = _median_angle_deg(model)
        if angle < MIN_ANGLE_DEG:
            raise ReconstructionError(
                f'the camera moved too little for its distance to the scene: the rays to a point '
                f'differ by {angle:.1f} degrees, at least {MIN_ANGLE_DEG} are needed; move it '
                f'sideways')


def _views(model: Any, keyframes: Sequence[Keyframe]) -> dict[int, SparseView]:
    return {
        keyframe.id: _sparse_view(model, model.images[number])
        for number, keyframe in enumerate(keyframes, start=1)
        if number in model.images and model.images[number].has_pose
    }


def _rays(camera: Any, pixels: Array) -> Array:
    """Return the rays (N,3), with z = 1, of pixels (N,2)."""
    return np.column_stack([camera.cam_from_img(pixels), np.ones(len(pixels))])


def _sparse_view(model: Any, image: Any) -> SparseView:
    camera_from_world = np.vstack([image.cam_from_world().matrix(), [0.0, 0.0, 0.0, 1.0]])
    points = np.array([
        model.points3D[point.point3D_id].xyz for point in image.points2D if point.has_point3D()
    ]).reshape(-1, 3)
    return SparseView(
        world_from_camera=np.linalg.inv(camera_from_world),
        depths=points @ camera_from_world[2, :3] + camera_from_world[2, 3])


def _median_angle_deg(model: Any) -> float:
    """Return the median, over the points, of the widest angle between the rays to a point."""
    centres = {
        number: image.projection_center()
        for number, image in model.images.items() if image.has_pose
    }
    angles = []
    for point in model.points3D.values():
        rays = np.array([centres[element.image_id] for element in point.track.elements])
        rays -= point.xyz
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        angles.append(np.arccos(np.clip(np.min(rays @ rays.T), -1.0, 1.0)))
    return float(np.degrees(np.median(angles))) if angles else 0.0


def load_pycolmap(needed_by: str = "backend 'colmap'") -> ModuleType:
    """
    Import pycolmap, quietly; raise MissingLibraryError where it is missing.

    Its import installs signal handlers, which are undone.
    """
    require_libraries(('pycolmap',), needed_by, 'colmap')
    with signal_handlers_kept():
        import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    return pycolmap
