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
Geometry outside the network asks torch for no float32 matrix product or convolution.

MapAnything's package switches those to TF32 on GPUs, in the whole process: 10 bits of mantissa,
which is an eighth of a pixel. Where nothing is asked for, nothing is lost on any device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from helpers import camera_on_path, K, view_room
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import scene
from mapanything_ros.core.backends.backend import Backend
from mapanything_ros.core.backends.colmap.plane_sweep import sweep, SweepView
from mapanything_ros.core.backends.mapanything.input import ModelInput
from mapanything_ros.core.backends.mapanything.multiview_confidence import product
from mapanything_ros.core.backends.mapanything.output import ModelOutput
from mapanything_ros.core.config import Config, from_values, InferConfig
from mapanything_ros.core.datatypes import Frame, Keyframe, WindowPrediction
from mapanything_ros.core.map.packing import pack_points
from mapanything_ros.core.reconstructor import Reconstructor

CPU = torch.device('cpu')
PRODUCTS = (
    'mm', 'bmm', 'addmm', 'baddbmm', 'addbmm', 'mv', 'addmv', 'dot', 'linear', 'convolution',
    'linalg', 'cdist', 'einsum', 'scaled_dot_product')
ELEMENTWISE = ('linalg_cross', 'linalg_vector_norm')


class Products(TorchDispatchMode):
    """Notes each call that a GPU may do in TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__.strip('_')
        single = any(
            isinstance(given, torch.Tensor) and given.dtype == torch.float32
            for given in arguments)
        if single and name.startswith(PRODUCTS) and name not in ELEMENTWISE:
            self.found.append(name)
        return function(*arguments, **(options or {}))


@contextmanager
def no_products() -> Iterator[None]:
    with Products() as products:
        yield
    assert not products.found, sorted(set(products.found))


def test_the_watch_sees_what_would_be_tf32_and_nothing_else():
    a, b = torch.rand(3, 4, 5), torch.rand(3, 5, 6)
    for forbidden in (
            lambda: a @ b, lambda: a[0] @ b[0], lambda: a[0] @ b[0, :, 0],
            lambda: torch.einsum('bij,bjk->bik', a, b), lambda: torch.linalg.inv(a[:, :4, :4]),
            lambda: torch.nn.functional.conv2d(a[None], torch.rand(1, 3, 3, 3))):
        with pytest.raises(AssertionError), no_products():
            forbidden()
    with no_products():
        a.double() @ b.double()
        product(a, b)
        torch.nn.functional.max_pool2d(a[None], 3)
        torch.linalg.cross(a[..., :3], a[..., 1:4]).norm(dim=-1)


def test_the_product_is_one():
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(7, 1, 5, 3, generator=random), torch.rand(4, 3, 9, generator=random)
    torch.testing.assert_close(product(a, b), a @ b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('config', [
    {}, {'use_multiview_confidence': True, 'apply_confidence_mask': True}])
def test_from_the_networks_outputs_to_the_map_and_the_messages(config):
    values = {
        'window.size': 3, 'window.overlap': 2, 'keyframes.min_translation_m': 0.001,
        'keyframes.min_sharpness': 0.0, 'map.min_views': 1, 'tf.odom_frame': 'odom',
        'scale.source': 'odometry'}
    model_input, output = ModelInput(518, CPU), ModelOutput(InferConfig(**config))

    class Knowing(Backend):
        name = 'knowing'

        def infer(self, keyframes: Sequence[Keyframe]) -> WindowPrediction:
            return output.window(
                [scene.raw_output(keyframe.stamp_ns) for keyframe in keyframes],
                model_input.prepare(keyframes))

        def statistics(self) -> dict[str, object]:
            return {}

    def frame(index: int) -> Frame:
        known = scene.keyframe(index)
        scene.raw_output(index)  # made, and kept, before anything is watched
        return Frame(
            index, lambda: known.rgb[::8, ::8, 0], lambda number: Keyframe(
                number, index, 'camera', known.rgb, known.intrinsics,
                odom_from_camera=scene.pose(index)), scene.pose(index))

    reconstructor = Reconstructor(from_values(Config, values), Knowing())
    windows = 0
    for index in range(4):
        reconstructor.add(frame(index))
        while window := reconstructor.take():
            with no_products():
                submap = reconstructor.process(window)
                for view in submap.views:
                    pack_points(view)
                    pack_points(view, submap.map_from_camera(view))
            windows += 1
    assert windows == 2 and len(reconstructor.map_points()) > 10_000


def test_the_plane_sweep():
    views = []
    for index in range(3):
        pose = camera_on_path(index)
        rgb = view_room(pose)[0]
        views.append(SweepView(
            gray=torch.from_numpy(rgb[..., 1].astype(np.float32) / 255), intrinsics=K,
            world_from_camera=pose, near=0.5, far=6.0))
    with no_products():
        swept = sweep(views[1], [views[0], views[2]], 32)
    assert torch.isfinite(swept.depth).all()
