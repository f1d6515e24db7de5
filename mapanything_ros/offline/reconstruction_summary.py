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

"""What summary.json says of a reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
import json
import math
from pathlib import Path
from typing import Any

from mapanything_ros.core.errors import ExportError
from mapanything_ros.offline.export.finish import Finished
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.parameters import changed_values
from mapanything_ros.offline.reconstruction import Reconstructed
from mapanything_ros.offline.source import Source


def summarize(
    made: Reconstructed, finished: Finished, source: Source, notices: Notices,
    formats: Sequence[str], seconds: float,
) -> dict[str, Any]:
    """Return the summary; its ``parameters`` are those that differ from the defaults."""
    config, scale = finished.config, finished.scale or made.scale
    return {
        'version': version('mapanything_ros'),
        'ended': made.ended,
        'source': source.kind,
        'inputs': source.inputs(),
        'backend': config.backend,
        'device': config.device,
        'parameters': changed_values(config),
        'finishing': asdict(finished.finishing),
        'notes': finished.notes,
        'formats': formats,
        'images_read': source.read,
        'keyframes_in_map': len(finished.keyframes),
        'points': len(finished.cloud),
        'voxel_m': finished.voxel_m,
        'pieces': made.pieces,
        'statistics': made.statistics,
        'metric': scale.metric,
        'scale': asdict(scale),
        'windows': [asdict(window) for window in made.windows],
        'warnings': notices.summary(),
        'seconds': round(seconds, 3),
    }


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write JSON, with null for what is no number; raise ExportError where that fails."""
    text = json.dumps(_finite(summary), indent=1, allow_nan=False, default=str)
    try:
        path.write_text(text + '\n')
    except OSError as error:
        raise ExportError(f'{path} could not be written: {error.strerror}') from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
