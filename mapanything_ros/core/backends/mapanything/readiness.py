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

"""Whether the mapanything backend would start here: one finding for each thing that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
import importlib
from importlib.util import find_spec
from pathlib import Path
import platform
from typing import Any, TypeVar

from mapanything_ros.core.backends.mapanything.checkpoint import (
    check_whole,
    Checkpoint,
    CONFIG,
    find_files,
    find_folder,
    read_config,
    readable,
)
from mapanything_ros.core.backends.mapanything.requirements import (
    missing_requirements,
    MODULES,
    package_version,
    REMEDY,
)
from mapanything_ros.core.config import Config
from mapanything_ros.core.errors import BackendUnavailableError, first_line

GB = 10 ** 9
GIB = 2 ** 30

T = TypeVar('T')


@dataclass(frozen=True)
class Finding:
    """
    One thing that the backend needs, and in ``text`` what is there or what to do.

    ``ok`` is None where it could not be looked at for want of something else.
    """

    what: str
    text: str
    ok: bool | None = True


def inspect_all(weights: str, device: str) -> list[Finding]:
    """Look at everything, whatever fails; weights as in find_checkpoint, device cpu or cuda."""
    stack = inspect_stack()
    found, checkpoint = inspect_weights(weights)
    fit = inspect_fit(stack, checkpoint)
    return [*stack, *found, fit, inspect_device(device, checkpoint if fit.ok else None)]


def inspect_stack() -> list[Finding]:
    """Look for the Python modules, for mapanything's version, and whether it can be imported."""
    missing = [Finding('modules', f'{text}: {REMEDY}', False) for text in missing_requirements()]
    if missing:
        return missing
    modules = Finding('modules', f'Python {platform.python_version()} with {", ".join(MODULES)}')
    return [modules, _finding('package', _package)]


def inspect_weights(weights: str) -> tuple[list[Finding], Checkpoint | None]:
    """Look for a checkpoint on this machine, and return it if its files are whole."""
    folder, problem = _attempt(partial(find_folder, weights))
    if folder is None:
        return [Finding('weights', problem, False)], None
    where = weights if weights == str(folder) else f'{weights} in {folder}'
    findings = [Finding('weights', where)]
    config, problem = _attempt(partial(read_config, folder))
    findings.append(Finding('config', problem or f'{CONFIG} is there', not problem))
    files, problem = _attempt(partial(find_files, folder))
    if problem:
        findings.append(Finding('files', problem, False))
    findings += [_finding('file', partial(_whole_file, file)) for file in files or ()]
    if config is None or files is None or not all(finding.ok for finding in findings):
        return findings, None
    checkpoint = Checkpoint(weights, folder, config, files)
    return [
        *findings, Finding('size', size_text(checkpoint.size_bytes)),
        Finding('licence', checkpoint.licence)], checkpoint


def inspect_fit(stack: Sequence[Finding], checkpoint: Checkpoint | None) -> Finding:
    """Compare the tensors' names and shapes with those of the model, which takes no memory."""
    if checkpoint is None or not all(finding.ok for finding in stack):
        return Finding('fit', 'for that the modules, the package and the weights are needed', None)
    return _finding('fit', partial(_fit, checkpoint))


def inspect_device(name: str, checkpoint: Checkpoint | None) -> Finding:
    """Look whether the device is there, computes, and has memory free for weights that fit."""
    if not find_spec('torch'):
        return Finding('device', 'for that torch is needed', None)
    return _finding('device', partial(_device, name, checkpoint))


def size_text(size_bytes: int) -> str:
    """Return a size as disks and downloads have it."""
    return f'{size_bytes / GB:.1f} GB' if size_bytes >= GB / 10 else f'{size_bytes / 1e6:.1f} MB'


def _attempt(look: Callable[[], T]) -> tuple[T | None, str]:
    """Return what was found, or None and why not."""
    try:
        with readable():
            return look(), ''
    except BackendUnavailableError as error:
        return None, str(error)


def _finding(what: str, look: Callable[[], str]) -> Finding:
    text, problem = _attempt(look)
    return Finding(what, text or problem, not problem)


def _package() -> str:
    _torch()
    # Imported here, as below: it loads torch, and this must work without.
    from mapanything_ros.core.backends.mapanything.loading import import_model_class

    import_model_class()
    folder = Path(str(importlib.import_module('mapanything').__file__)).parent
    return f'mapanything {package_version() or "of unknown version"} in {folder}'


def _whole_file(file: Path) -> str:
    tensors = check_whole(file)
    return f'{file.name} is whole, {len(tensors)} tensors'


def _fit(checkpoint: Checkpoint) -> str:
    from mapanything_ros.core.backends.mapanything.loading import check_fit

    count = sum(parameter.numel() for parameter in check_fit(checkpoint).parameters())
    return f'all tensors have the names and shapes of the model, {count / 1e6:.0f} M parameters'


def _device(name: str, checkpoint: Checkpoint | None) -> str:
    torch = _torch()
    from mapanything_ros.core.backends.mapanything.gpu_memory import GpuMemory
    from mapanything_ros.core.device import torch_device

    device = torch_device(name)
    if device.type == 'cpu':
        return (
            f'cpu, {torch.get_num_threads()} threads, torch {torch.__version__}; slow: for maps '
            'while driving use a GPU')
    memory = GpuMemory(device)
    if checkpoint:
        memory.require(_held_bytes(checkpoint, device), 'the weights')
    return (
        f'{torch.cuda.get_device_name(device)}, {memory.free_bytes() / GIB:.1f} of '
        f'{memory.total_bytes() / GIB:.1f} GiB free, torch {torch.__version__}{_caution(device)}')


def _held_bytes(checkpoint: Checkpoint, device: Any) -> int:
    from mapanything_ros.core.backends.mapanything.loading import build_model
    from mapanything_ros.core.backends.mapanything.precision import (
        amp_dtype,
        held_bytes,
        held_types,
    )

    model = build_model(checkpoint)
    return held_bytes(model, held_types(model, amp_dtype(Config().infer, device)))


def _torch() -> Any:
    try:
        return importlib.import_module('torch')
    except Exception as error:  # of a build for another machine: anything
        raise BackendUnavailableError(
            f'torch cannot be imported ({first_line(error)}): install it again') from error


def _caution(device: Any) -> str:
    """Say which default does not suit the GPU; it is a parameter, and may be set already."""
    from mapanything_ros.core.backends.mapanything.precision import require_precision

    try:
        require_precision(Config(), device)
    except BackendUnavailableError as error:
        return f'; {error}'
    return ''
