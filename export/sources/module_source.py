"""Builds a network from `module:factory` and safetensors weights. Promises: no pickle is ever read."""

from __future__ import annotations

import hashlib
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from export.artifact import file_sha256
from export.errors import SourceError
from export.recipe import LoadedRecipe

_RANDOM_WEIGHTS_SEED = 0  # a recipe without weights must still export the same network twice


def load_module_source(loaded: LoadedRecipe) -> nn.Module:
    """Raises SourceError when the factory, its arguments or the weights do not fit."""
    source = loaded.recipe.source
    module, factory_name = _module_and_factory(loaded)
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise SourceError(f"source.factory: {module.__name__} has no {factory_name!r}")
    torch.manual_seed(_RANDOM_WEIGHTS_SEED)
    try:
        network = factory(**source.arguments)
    except TypeError as error:
        raise SourceError(f"source.arguments do not fit {source.factory}: {error}") from error
    if not isinstance(network, nn.Module):
        raise SourceError(f"source.factory {source.factory} returned {type(network).__name__}, not a torch module")
    if loaded.weights_path is not None:
        _load_weights(network, loaded.weights_path)
    network = network.eval().requires_grad_(False)
    if source.method == "forward":
        return network
    if not callable(getattr(network, source.method, None)):
        raise SourceError(f"source.method: {type(network).__name__} has no method {source.method!r}")
    return MethodModule(network, source.method)


class MethodModule(nn.Module):
    """Calls another method of a network where `forward` is expected."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network = network
        self.method = method

    def forward(self, images: Tensor) -> Any:
        return getattr(self.network, self.method)(images)


def module_source_digest(loaded: LoadedRecipe) -> str:
    """Covers every Python file beside the factory's module, the recipe's source section, and the weights file."""
    module, _ = _module_and_factory(loaded)
    digest = hashlib.sha256(loaded.recipe.source.model_dump_json().encode())
    for path in sorted(Path(inspect.getfile(module)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    if loaded.weights_path is not None:
        digest.update(weights_sha256(loaded.weights_path).encode())
    return digest.hexdigest()


def weights_sha256(path: Path) -> str:
    """Raises SourceError when the file is missing."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise SourceError(
            f"cannot read weights {path}: {error.strerror}; train the model or fix source.weights"
        ) from error


def _module_and_factory(loaded: LoadedRecipe) -> tuple[ModuleType, str]:
    module_name, _, factory_name = loaded.recipe.source.factory.partition(":")
    try:
        return import_module(module_name), factory_name
    except ImportError as error:
        raise SourceError(f"source.factory: cannot import {module_name!r}: {error}") from error


def _load_weights(network: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"cannot read weights {path}: {error}") from error
    except RuntimeError as error:  # torch's word for missing, unexpected or misshapen tensors
        raise SourceError(f"weights {path.name} do not fit the network: {error}") from error
