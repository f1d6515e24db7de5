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

"""Finds the metric scale of a window whose poses were estimated from images alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mapanything_ros.core.datatypes import Keyframe, Prediction, Scale
from mapanything_ros.core.errors import ReconstructionError
from mapanything_ros.core.estimation.scale import depth_evidence, odometry_evidence

# Estimated poses can be wrong and yet fit the images; then no single scale fits the evidence.
MAX_RESIDUAL = 0.1


def estimate_scale(views: Sequence[Prediction], keyframes: Mapping[int, Keyframe]) -> Scale:
    """
    Scale a window by its keyframes' depth, else by their odometry, else to median depth 1.

    Without any metric evidence the source is 'none'. Raises ReconstructionError where the
    evidence contradicts the estimated geometry.
    """
    evidence = depth_evidence(views, keyframes) or odometry_evidence(views, keyframes)
    if evidence is None:
        depths = np.concatenate([view.depth_m[view.mask].cpu().numpy() for view in views])
        return Scale('none', factor=1.0 / float(np.median(depths)))
    if evidence.residual > MAX_RESIDUAL:
        raise ReconstructionError(
            f'the estimated geometry and the {evidence.source} differ by more than scale: by '
            f'{evidence.residual:.0%}, at most {MAX_RESIDUAL:.0%} are accepted; the estimated '
            f'poses are probably wrong')
    return Scale(evidence.source, evidence.factor, evidence.residual)
