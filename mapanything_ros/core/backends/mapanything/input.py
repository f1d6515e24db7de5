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

"""Keyframes as the views that MapAnything takes, in the size that its package would give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
import torch

from mapanything_ros.core.datatypes import Array, Keyframe
from mapanything_ros.core.errors import ReconstructionError

PATCH_PX = 14
# The shapes, longest side 518, that the network was trained on; the nearest in aspect is taken.
TRAINED_SIZE_PX = 518
TRAINED_SHORT_SIDES_PX = (518, 392, 336, 294, 252, 168)
# ImageNet's, which DINOv2 normalises with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Pillow's filters by number: before 9.1, so on Ubuntu 22.04, Image.Resampling is not there.
LANCZOS = 1
BICUBIC = 3


@dataclass(frozen=True, eq=False)
class Prepared:
    """
    A keyframe at the network's size, on the host.

    ``rgb`` (H,W,3) uint8; ``intrinsics`` (3,3); ``depth_m`` (H,W) float32 with 0 where unknown,
    None where nothing is known.
    """

    rgb: NDArray[np.uint8]
    intrinsics: Array | None
    depth_m: NDArray[np.float32] | None

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height."""
        return self.rgb.shape[1], self.rgb.shape[0]


@dataclass(frozen=True, eq=False)
class ModelView:
    """
    A keyframe at the network's size, on its device.

    ``rgb`` (H,W,3) uint8, ``normalised`` (1,3,H,W) float32, ``depth_m`` (1,H,W) float32 with 0
    where unknown, None where nothing is known; ``intrinsics`` (3,3) float64 on the host.
    """

    keyframe: Keyframe
    rgb: torch.Tensor
    normalised: torch.Tensor
    intrinsics: Array | None
    depth_m: torch.Tensor | None


class ModelInput:
    """Prepares the views of a window; those of keyframes that stay are not prepared again."""

    def __init__(self, size_px: int, device: torch.device) -> None:
        self._size_px = size_px
        self._device = device
        self._known: dict[tuple[int, tuple[int, int]], ModelView] = {}

    def prepare_alone(self, keyframe: Keyframe) -> Keyframe:
        """
        Return the keyframe resized for a window of its like, which is most of the work.

        What is wrong with it its window says. May be called beside ``prepare``.
        """
        try:
            size = common_size([keyframe.rgb.shape], self._size_px)
            return replace(keyframe, prepared=_prepared(keyframe, size))
        except ReconstructionError:
            return keyframe

    def prepare(self, keyframes: Sequence[Keyframe]) -> list[ModelView]:
        """Return the views in the order of the keyframes; nonsense raises ReconstructionError."""
        size = common_size([keyframe.rgb.shape for keyframe in keyframes], self._size_px)
        keys = [(keyframe.id, size) for keyframe in keyframes]
        self._known = {
            key: self._known.get(key) or self._view(keyframe, size)
            for key, keyframe in zip(keys, keyframes, strict=True)}
        return list(self._known.values())

    def _view(self, keyframe: Keyframe, size: tuple[int, int]) -> ModelView:
        made = keyframe.prepared
        if not (isinstance(made, Prepared) and made.size == size):
            made = _prepared(keyframe, size)
        rgb = torch.from_numpy(made.rgb).to(self._device)
        mean, std = (torch.tensor(value, device=self._device) for value in (MEAN, STD))
        normalised = ((rgb.float() / 255 - mean) / std).permute(2, 0, 1)[None].contiguous()
        depth_m = None
        if made.depth_m is not None:
            depth_m = torch.from_numpy(made.depth_m)[None].to(self._device)
        return ModelView(keyframe, rgb, normalised, made.intrinsics, depth_m)


def _prepared(keyframe: Keyframe, size: tuple[int, int]) -> Prepared:
    crop = Crop.fitting(keyframe.rgb.shape, size, keyframe.intrinsics)
    intrinsics = None if keyframe.intrinsics is None else crop.intrinsics(keyframe.intrinsics)
    if intrinsics is not None and not np.isfinite(intrinsics).all():
        raise ReconstructionError(f'the intrinsics of keyframe {keyframe.id} are not finite')
    return Prepared(crop.image(keyframe.rgb), intrinsics, _depth(keyframe, crop))


def _depth(keyframe: Keyframe, crop: Crop) -> NDArray[np.float32] | None:
    if keyframe.depth_m is None:
        return None
    if keyframe.depth_m.dtype != np.float32:
        raise ReconstructionError(
            f'the depth of keyframe {keyframe.id} is {keyframe.depth_m.dtype}; it must be '
            'float32 metres')
    if keyframe.intrinsics is None:
        raise ReconstructionError(
            f'keyframe {keyframe.id} has depth but no intrinsics, without which depth means '
            'nothing: provide camera_info, and set use_camera_info')
    depth_m = crop.depth(keyframe.depth_m)
    # One number that is not finite would make every pixel of every view NaN.
    depth_m = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0))
    # Depth that is zero everywhere would be taken for a scene of no size.
    return depth_m if depth_m.any() else None


def to_model(views: Sequence[ModelView]) -> list[dict[str, Any]]:
    """
    Return what ``infer`` of MapAnything takes, of views in the order of the model.

    The dicts are new at each call, because the package writes into them.
    """
    odom_from_reference = views[0].keyframe.odom_from_camera
    reference_from_odom: NDArray[np.floating[Any]] | None = None
    if odom_from_reference is not None:
        reference_from_odom = np.linalg.inv(odom_from_reference)
    return [_to_model(view, reference_from_odom) for view in views]


def in_model_order(views: Sequence[ModelView]) -> list[ModelView]:
    """Return the views with the first posed one, the model's reference, in front."""
    order = list(views)
    posed = (i for i, v in enumerate(order) if v.keyframe.odom_from_camera is not None)
    order.insert(0, order.pop(next(posed, 0)))
    return order


def _to_model(
    view: ModelView, reference_from_odom: NDArray[np.floating[Any]] | None,
) -> dict[str, Any]:
    device = view.rgb.device
    made: dict[str, Any] = {
        'img': view.normalised,
        'data_norm_type': ['dinov2'],
        # Ignored by the network; the feature cache knows keyframes by it.
        'instance': [str(view.keyframe.id)],
        'is_metric_scale': torch.ones(1, dtype=torch.bool, device=device),
    }
    if view.intrinsics is not None:
        intrinsics = torch.from_numpy(view.intrinsics[None]).float()
        made['intrinsics'] = intrinsics.to(device)
        # Ignored, too; the ray features know cameras by it.
        made['idx'] = [intrinsics.numpy().tobytes()]
    if view.depth_m is not None:
        made['depth_z'] = view.depth_m
    odom_from_camera = view.keyframe.odom_from_camera
    if odom_from_camera is not None and reference_from_odom is not None:
        # Relative before it is rounded to float32: odometry may be far from its origin.
        pose = reference_from_odom @ odom_from_camera
        if not np.isfinite(pose).all():
            raise ReconstructionError(
                f'the odometry of keyframe {view.keyframe.id} or of the first is not finite')
        made['camera_poses'] = torch.from_numpy(pose[None]).float().to(device)
    return made


def common_size(shapes: Sequence[tuple[int, ...]], size_px: int) -> tuple[int, int]:
    """Return the one width and height, multiples of 14, for images of shapes (H,W,...)."""
    aspect = float(np.mean([width / height for height, width, *_ in shapes]))
    if size_px == TRAINED_SIZE_PX:
        sizes = [(size_px, short) for short in TRAINED_SHORT_SIDES_PX]
        sizes += [(short, size_px) for short in TRAINED_SHORT_SIDES_PX[1:-1]]
        return min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))
    patches = size_px // PATCH_PX
    short = max(1, round(patches / max(aspect, 1 / aspect))) * PATCH_PX
    return (size_px, short) if aspect >= 1 else (short, size_px)


@dataclass(frozen=True)
class Crop:
    """
    A resize of an image to ``scaled`` (width, height) that covers ``size``, and the middle of it.

    The pixels are those of the package (``preprocess_inputs``). Intrinsics and depth follow the
    resize as it is, where the package's are up to half a pixel off.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int]

    @classmethod
    def fitting(
        cls, shape: tuple[int, ...], size: tuple[int, int], intrinsics: Array | None,
    ) -> Crop:
        """Return the crop of an image of a shape (H,W,...)."""
        original = shape[1], shape[0]
        factor = max(size[0] / original[0], size[1] / original[1]) + 1e-8
        scaled = int(original[0] * factor), int(original[1] * factor)
        margins = [scaled[axis] - size[axis] for axis in range(2)]
        # The package rounds half a pixel down without intrinsics, and to even with them.
        middle = [round(m / 2) if intrinsics is not None else m // 2 for m in margins]
        return cls(original, scaled, size, (middle[0], middle[1]))

    def image(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the (H,W,3) picture, Lanczos where it shrinks, bicubic where it grows."""
        shrinks = self.scaled[0] < self.original[0]
        kind = LANCZOS if shrinks else BICUBIC
        return np.array(self._cut(np.asarray(Image.fromarray(rgb).resize(self.scaled, kind))))

    def depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (H,W) depth, nearest pixel, so that no edge is averaged."""
        if depth_m.shape != self.original[::-1]:
            raise ReconstructionError(
                f'the depth is {depth_m.shape[1]}x{depth_m.shape[0]}, but the image '
                f'{self.original[0]}x{self.original[1]}: register it to the image')
        return self._cut(cv2.resize(depth_m, self.scaled, interpolation=cv2.INTER_NEAREST_EXACT))

    def intrinsics(self, intrinsics: Array) -> Array:
        """Return the (3,3) intrinsics of the crop; pixel centres are integers."""
        new_from_old = np.eye(3)
        for axis in range(2):
            factor = self.scaled[axis] / self.original[axis]
            new_from_old[axis, axis] = factor
            new_from_old[axis, 2] = 0.5 * factor - 0.5 - self.offset[axis]
        return new_from_old @ intrinsics

    def _cut(self, picture: NDArray[Any]) -> NDArray[Any]:
        left, top = self.offset
        return picture[top:top + self.size[1], left:left + self.size[0]]
