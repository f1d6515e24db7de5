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

"""Builds MapAnything from weights on this machine, without network and without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
import copy
import importlib
import io
from typing import Any

import torch

from mapanything_ros.core.backends.mapanything.checkpoint import check_whole, Checkpoint
from mapanything_ros.core.backends.mapanything.precision import held_types
from mapanything_ros.core.backends.mapanything.requirements import (
    PACKAGE_VERSION,
    REMEDY,
    require_model_stack,
)
from mapanything_ros.core.errors import BackendUnavailableError

DINOV2 = 'facebookresearch/dinov2'
DINOV2_INSIDE = 'mapanything.models.external.dinov2.hub.backbones'
# Named in a message of keys that do not fit.
EXAMPLES = 3

# What defines torchvision's operators, for as long as the process lives.
_libraries: list[torch.library.Library] = []


def load_model(
    checkpoint: Checkpoint, device: torch.device, amp: torch.dtype | None = None,
) -> torch.nn.Module:
    """
    Return MapAnything, ready to infer; in float32, or as ``held_types`` has it.

    Raises BackendUnavailableError where the model stack is missing or the checkpoint does not fit
    it.
    """
    model = build_model(checkpoint)
    load_weights(model, checkpoint, device, held_types(model, amp))
    return model


def load_weights(
    model: torch.nn.Module, checkpoint: Checkpoint, device: torch.device,
    held: Mapping[str, torch.dtype],
) -> None:
    """
    Fill a model that was built, on the device; parameters are never initialised.

    ``held`` has the types of parameters. Raises BackendUnavailableError where the checkpoint does
    not fit the model.
    """
    state = _with_aliases(_state(checkpoint, device, held), model)
    _check_keys(checkpoint, model.state_dict(), state)
    model.load_state_dict(state, strict=True, assign=True)
    model.to(device).eval().requires_grad_(False)


def check_fit(checkpoint: Checkpoint) -> torch.nn.Module:
    """
    Return the model without weights if those would fit it; of the files the headers are read.

    Raises BackendUnavailableError where names or shapes of the tensors differ.
    """
    model = build_model(checkpoint)
    found = {
        name: torch.empty(shape, device='meta')
        for file in checkpoint.files for name, shape in check_whole(file).items()}
    _check_keys(checkpoint, model.state_dict(), _with_aliases(found, model))
    return model


def build_model(checkpoint: Checkpoint) -> torch.nn.Module:
    """
    Return the model of the checkpoint's architecture, with parameters that hold nothing.

    Raises BackendUnavailableError where the model stack is missing, or config.json is nonsense.
    """
    require_model_stack()
    config = copy.deepcopy(checkpoint.config)
    encoder = config.get('encoder_config')
    if isinstance(encoder, dict) and encoder.get('uses_torch_hub'):
        # The checkpoint's weights replace those that would be downloaded.
        encoder['torch_hub_pretrained'] = False
    model_class = import_model_class()
    try:
        # The package prints while it builds.
        with (local_dinov2(), no_pickles(), parameters_on_meta(),
              redirect_stdout(io.StringIO())):
            model: torch.nn.Module = model_class(**config)
    except Exception as error:  # what a library raises that is given nonsense
        raise BackendUnavailableError(
            f'{checkpoint.folder / "config.json"} does not describe a MapAnything '
            f'{PACKAGE_VERSION} ({error!r}): fetch it again') from error
    return model


def import_model_class() -> Any:
    """Return the package's class; raise BackendUnavailableError if it cannot be imported."""
    try:
        import_torchvision()
        return importlib.import_module('mapanything.models').MapAnything
    except Exception as error:  # what a library raises that does not suit its neighbours
        raise BackendUnavailableError(
            f'mapanything cannot be imported ({error}): {REMEDY} again') from error


def import_torchvision() -> None:
    """Import torchvision; a CPU torch beside PyPI's torchvision lacks two operators for that."""
    try:
        importlib.import_module('torchvision')
    except RuntimeError as error:
        if 'torchvision::nms' not in str(error):
            raise
        library = torch.library.Library('torchvision', 'DEF')
        for name in ('nms', 'qnms'):
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _libraries.append(library)
        importlib.import_module('torchvision')


@contextmanager
def local_dinov2() -> Iterator[None]:
    """Take DINOv2's code from inside the package where it would be asked for at github.com."""
    def load(repository: str, model: str, *arguments: Any, **options: Any) -> Any:
        if repository != DINOV2:
            raise ValueError(f'the code of {repository} would come from the network')
        return getattr(importlib.import_module(DINOV2_INSIDE), model)(pretrained=False)

    with _replaced(torch.hub, 'load', load):
        yield


@contextmanager
def no_pickles() -> Iterator[None]:
    """Refuse other weights than the checkpoint's, which a config.json may name for any part."""
    def load(file: Any, *arguments: Any, **options: Any) -> Any:
        raise ValueError(f'{file} would be unpickled, which can run code')

    with _replaced(torch, 'load', load):
        yield


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Let modules register parameters without memory; buffers are computed as always."""
    original = torch.nn.Module.register_parameter

    def register(
        module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None,
    ) -> None:
        original(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = torch.nn.Parameter(
                parameter.to('meta'), requires_grad=False)

    with _replaced(torch.nn.Module, 'register_parameter', register):
        yield


@contextmanager
def _replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _state(
    checkpoint: Checkpoint, device: torch.device, held: Mapping[str, torch.dtype],
) -> dict[str, torch.Tensor]:
    """Return the tensors by name, copied: those in the file are not aligned for the CPU."""
    safetensors = importlib.import_module('safetensors')
    load_file = importlib.import_module('safetensors.torch').load_file
    state: dict[str, torch.Tensor] = {}
    for file in checkpoint.files:
        try:
            for name, tensor in load_file(file).items():
                state[name] = tensor.to(device, held.get(name, tensor.dtype), copy=True)
        except safetensors.SafetensorError as error:
            raise BackendUnavailableError(
                f'{file} is damaged ({error}): fetch it again') from error
    return state


def _with_aliases(
    state: dict[str, torch.Tensor], model: torch.nn.Module,
) -> dict[str, torch.Tensor]:
    """Add the other names of tensors that the model knows by several; safetensors keeps one."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    complete = dict(state)
    for group in names.values():
        known = next((name for name in group if name in state), None)
        if known is not None:
            complete.update({name: state[known] for name in group if name not in state})
    return complete


def _check_keys(
    checkpoint: Checkpoint, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor],
) -> None:
    problems = {
        'missing': expected.keys() - found.keys(),
        'unknown': found.keys() - expected.keys(),
        'of another shape': {
            name for name in expected.keys() & found.keys()
            if expected[name].shape != found[name].shape},
    }
    texts = [
        f'{len(names)} {kind} ({", ".join(sorted(names)[:EXAMPLES])})'
        for kind, names in problems.items() if names]
    if texts:
        raise BackendUnavailableError(
            f'the weights in {checkpoint.folder} do not fit their config.json: of the tensors, '
            f'{"; ".join(texts)}: fetch them again')
