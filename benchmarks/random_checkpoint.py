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

"""MapAnything with random weights, that all count, and checkpoints of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mapanything_ros.core.backends.mapanything.loading import import_torchvision, local_dinov2

# So that, as with trained weights, most pixels are kept and have something to be masked for.
MASK_BIAS = 2.0
# LayerScale of the information sharing starts at 1e-5, which hides what attention does: all its
# weights replaced would move depth by 2.6 %. Training makes it large.
GAMMA = 0.5


def random_model(config: dict[str, Any]) -> torch.nn.Module:
    """Return a model of an architecture, built the ordinary way, always the same."""
    import_torchvision()
    from mapanything.models import MapAnything

    torch.manual_seed(0)
    with local_dinov2():
        # The class writes into what it is given.
        model = MapAnything(**json.loads(json.dumps(config)))
    with torch.no_grad():
        model.dpt_regressor_head.conv2[-1].bias[-1] += MASK_BIAS
        for name, parameter in model.info_sharing.named_parameters():
            if name.endswith('gamma'):
                parameter.fill_(GAMMA)
    return model.eval()


def write(folder: Path | str, configuration: Path | str) -> None:
    """Write config.json and model.safetensors, as the hub holds them."""
    from safetensors.torch import save_model

    config = json.loads(Path(configuration).read_text())
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / 'config.json').write_text(json.dumps(config))
    save_model(random_model(config), str(Path(folder) / 'model.safetensors'))
