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

"""Backbones by the names of DINOv2's hub."""

import torch


class Backbone(torch.nn.Module):
    """Gives the mean colour of each patch, times a weight that is one in a good checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(3))
        self.bias = torch.nn.Parameter(torch.zeros(3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        assert height % 14 == 0 and width % 14 == 0, f'{height}x{width}: no multiple of 14'
        patches = torch.nn.functional.avg_pool2d(image, 14)
        return patches * self.gain[:, None, None] + self.bias[:, None, None]


def _backbone(pretrained: bool = True) -> Backbone:
    assert not pretrained, 'this would download weights'
    return Backbone()


dinov2_vits14 = dinov2_vitg14 = _backbone
