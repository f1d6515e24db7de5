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

"""Checkpoints of a tiny MapAnything, of the fake's class or the real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import json
from pathlib import Path

import pytest
import torch

from benchmarks.random_checkpoint import random_model, write
from mapanything_ros.core.config import Config, from_values
from mapanything_ros.core.errors import BackendUnavailableError

DATA = Path(__file__).parent / 'data'
SIZE_PX = 140
CONFIG = DATA / 'mapanything_tiny.json'
CONFIG_V1 = DATA / 'mapanything_tiny_v1.json'


def tiny_model() -> torch.nn.Module:
    """Return the class that can be imported, built the ordinary way."""
    return random_model(json.loads(CONFIG.read_text()))


def write_checkpoint(folder: Path, config: Path = CONFIG) -> Path:
    """Write config.json and model.safetensors, as the hub holds them; return the folder."""
    write(folder, config)
    return folder


def tiny_config(weights: Path | str, **parameters: object) -> Config:
    """Return parameters for such weights, on the CPU and with small images."""
    return from_values(Config, {
        'device': 'cpu', 'mapanything.weights': str(weights), 'mapanything.size_px': SIZE_PX,
        **parameters})


@contextmanager
def unavailable(*words: str) -> Iterator[None]:
    """Check that the backend is refused in one sentence, with these words."""
    with pytest.raises(BackendUnavailableError) as caught:
        yield
    text = str(caught.value)
    assert '\n' not in text and '. ' not in text and not text.endswith('.'), text
    for word in words:
        assert word in text, text
