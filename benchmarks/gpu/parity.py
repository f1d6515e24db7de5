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

"""Ours against the package's own ``infer``: the same numbers from the same images."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.gpu.checks import Report
from benchmarks.gpu.setting import difference, MIXES, Outputs, Setting
from mapanything_ros.core.backends.mapanything.input import in_model_order, ModelInput, to_model
from mapanything_ros.core.backends.mapanything.masks import edge_mask
from mapanything_ros.core.backends.mapanything.output import ModelOutput
from mapanything_ros.core.config import InferConfig

SAME = 1e-5
MASKS = 0.9999
BFLOAT16 = torch.bfloat16


def run(setting: Setting, report: Report) -> None:
    """Compare raw outputs, masks and kept features."""
    count = setting.window
    package, ours = setting.model(), setting.network(setting.model(setting.amp), setting.amp)
    for mix, known in MIXES.items():
        window = setting.window_of(count, 0, known)
        views = in_model_order(ModelInput(setting.size_px, setting.device).prepare(window))
        given = to_model(views)
        ours.features.clear()
        found = ours.forward(given)
        raw = setting.official(package, given, apply_mask=False)
        report.add(f'raw outputs, {count} views, {mix}', difference(found, raw), '', SAME)
        masked = setting.official(package, given)
        kept = {view.keyframe_id: view.mask for view in ModelOutput(InferConfig()).window(
            found, views).views}
        equal = [
            float((kept[view.keyframe.id] == theirs['mask'][0, ..., 0]).double().mean())
            for view, theirs in zip(views, masked, strict=True)]
        report.add(
            f'masks alike, {count} views, {mix}', min(equal), '', MASKS, least=True)
        kept_share = float(torch.stack(list(kept.values())).double().mean())
        report.add(f'pixels kept, {mix}', kept_share, note='some, or the masks show nothing')
    _edges_to_the_bit(report, raw)
    _kept_features(setting, report, package)


def _edges_to_the_bit(report: Report, raw: Outputs) -> None:
    """Compare the mask of edges with the package's numpy, on the very same numbers."""
    from mapanything.utils.geometry import depth_edge, normals_edge, points_to_normals

    different = 0
    for output in raw:
        points, depth_m = output['pts3d'], output['pts3d_cam'][..., 2]
        mask = output['non_ambiguous_mask']
        ours = edge_mask(points, depth_m, mask, 5.0, 0.03)[0].cpu().numpy()
        inside = mask[0].cpu().numpy()
        with np.errstate(all='ignore'):
            normals, valid = points_to_normals(points[0].cpu().numpy(), mask=inside)
            theirs = normals_edge(normals, tol=5.0, mask=valid) & depth_edge(
                depth_m[0].cpu().numpy(), rtol=0.03, mask=inside)
        different += int((ours != theirs)[inside].sum())
    report.add("edge masks: pixels that differ from the package's numpy", different, 'px', 0)


def _kept_features(setting: Setting, report: Report, package: torch.nn.Module) -> None:
    """Compare a window whose features are partly kept with one that is all new."""
    count = setting.window
    before, after = (setting.window_of(count, first) for first in (0, 1))
    given = setting.views_of(after)
    exact = setting.forward(package, given, None)
    cost = difference(setting.forward(package, given, BFLOAT16), exact)
    report.add('what bf16 costs against float32', cost)
    ours = setting.network(setting.model(BFLOAT16), BFLOAT16)
    ours.forward(setting.views_of(before))
    kept = ours.forward(given)
    ours.features.clear()
    report.add(
        f'kept features of {count - 1} in {count} views, against all new, bf16',
        difference(kept, ours.forward(given)), '', cost, note='no worse than bf16 itself')
