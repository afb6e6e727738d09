"""Builds a network from `module:factory`, with facts that the recipe states."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.errors import SourceError
from saccade.export.network import FORMS_BY_TASK, LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.specs import ModuleSource, SourceSpec
from saccade.export.sources.weights import RANDOM_WEIGHTS_SEED, load_weights


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    return SourceFacts()


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    return None


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the factory, its arguments or the weights do not fit."""
    source = request.source
    assert isinstance(source, ModuleSource)
    module, factory_name = _module_and_factory(source)
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise SourceError(f"source.factory: {module.__name__} has no {factory_name!r}")
    torch.manual_seed(RANDOM_WEIGHTS_SEED)
    try:
        network = factory(**source.arguments)
    except TypeError as error:
        raise SourceError(f"source.arguments do not fit {source.factory}: {_where(error)}") from error
    except Exception as error:  # it is the user's own code, which may raise anything
        raise SourceError(f"source.factory {source.factory} failed: {_where(error)}") from error
    if not isinstance(network, nn.Module):
        raise SourceError(f"source.factory {source.factory} returned {type(network).__name__}, not a torch module")
    if request.weights is not None:
        load_weights(network, request.weights)
    network = network.eval().requires_grad_(False)
    masks = request.task.masks
    form = FORMS_BY_TASK[request.task.task][1 if masks is not None and masks.form == "boxes" else 0]
    if source.method == "forward":
        return Network(network, form)
    if not callable(getattr(network, source.method, None)):
        raise SourceError(f"source.method: {type(network).__name__} has no method {source.method!r}")
    return Network(MethodModule(network, source.method), form)


def digest(source: SourceSpec) -> str:
    """Covers every Python file beside the factory's module."""
    assert isinstance(source, ModuleSource)
    module, _ = _module_and_factory(source)
    text = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(module)).parent.glob("*.py")):
        text.update(path.read_bytes())
    return text.hexdigest()


class MethodModule(nn.Module):
    """Calls another method of a network where `forward` is expected."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network = network
        self.method = method

    def forward(self, images: Tensor) -> Any:
        return getattr(self.network, self.method)(images)


def _module_and_factory(source: ModuleSource) -> tuple[ModuleType, str]:
    name, _, factory_name = source.factory.partition(":")
    try:
        return _module_of_file(name) if name.endswith(".py") else import_module(name), factory_name
    except SourceError:
        raise
    except Exception as error:  # importing runs the user's own code, which may raise anything
        raise SourceError(f"source.factory: cannot import {name!r}: {_where(error)}") from error


def _module_of_file(name: str) -> ModuleType:
    """The module in a Python file, run once; its own folder is searched for what it imports. Raises SourceError."""
    path = next((found for folder in sys.path if (found := Path(folder, name)).is_file()), None)
    if path is None:
        raise SourceError(f"source.factory: there is no {name} in the recipe's folder or the current directory")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    key = f"{path.stem} of {path.parent}"  # no module that is imported by its name is ever called so
    if key in sys.modules:
        return sys.modules[key]
    spec = spec_from_file_location(key, path)
    assert spec is not None, "a .py file always has a specification"
    assert spec.loader is not None, "and a loader"
    # Registered while it runs, as an import does: dataclasses look their own module up there.
    module = sys.modules[key] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[key]
        raise
    return module


def _where(error: Exception) -> str:
    """The error in words, with the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
