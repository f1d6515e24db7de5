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

"""What MapAnything needs of this machine's Python; to be asked where nothing of it is there."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mapanything_ros.core.errors import BackendUnavailableError

PACKAGE_VERSION = '1.1'
MODULES = (
    'torch', 'gtsam', 'mapanything', 'uniception', 'torchvision', 'timm', 'einops', 'jaxtyping',
    'hydra', 'huggingface_hub', 'safetensors', 'tqdm')
REMEDY = 'install the model stack (make model; on a robot see docs/install.md)'


def missing_requirements() -> list[str]:
    """Say, a line each, what of the model stack is missing or of another version."""
    missing = [f'the Python module {name} is missing' for name in MODULES if not find_spec(name)]
    found = package_version()
    if found and found.split('.')[:2] != PACKAGE_VERSION.split('.'):
        missing.append(f'mapanything is {found}, but {PACKAGE_VERSION} is needed')
    return missing


def package_version() -> str:
    """Return mapanything's version; '' where it is not installed, or only lies on the path."""
    try:
        return version('mapanything')
    except PackageNotFoundError:
        return ''


def require_model_stack() -> None:
    """Raise BackendUnavailableError, with all that is missing, unless MapAnything can be used."""
    missing = missing_requirements()
    if missing:
        raise BackendUnavailableError(
            f'{"; ".join(missing)}: {REMEDY}, or choose backend \'colmap\'')
