"""Finds and calls reparametrisation hooks of libraries and users, only where they need no arguments.

A hook changes its module, or returns the module that replaces it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.errors import GraphError
from saccade.export.recipe import FoldingSpec

_NAMES = ("fuse", "reparameterize", "switch_to_deploy", "reparam", "fuse_model", "merge_branches")


def hook_of(module: nn.Module, spec: FoldingSpec) -> str | None:
    """Returns the name of the method to call, the recipe's own first; None when there is none."""
    names = [spec.method] if spec.method else []
    names += _NAMES if spec.hooks else ()
    for name in names:
        method = getattr(module, name, None)
        if inspect.ismethod(method) and _needs_nothing(method):
            return name
    return None


def call_hook(module: nn.Module, name: str) -> nn.Module:
    """Returns the module that replaces this one, often itself, changed. Raises GraphError when the hook fails."""
    try:
        returned = getattr(module, name)()
    except Exception as error:  # a hook is code of others and may raise anything
        raise GraphError(
            f"{type(module).__name__}.{name}() failed: {error}; recipes turn hooks off with `folding: {{hooks: false}}`"
        ) from error
    folded = returned if isinstance(returned, nn.Module) else module
    return folded.eval().requires_grad_(False)


def captured_arguments(network: nn.Module, example: tuple[Any, ...], names: set[str]) -> dict[str, tuple[Any, ...]]:
    """Returns random tensors shaped as each named module's arguments; absent: called by keyword, or never."""
    found: dict[str, tuple[Any, ...]] = {}
    generator = torch.Generator().manual_seed(0)

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name not in found and not kwargs:
                found[name] = tuple(_random_like(argument, generator) for argument in args)

        return hook

    handles = [
        module.register_forward_pre_hook(note(name), with_kwargs=True)
        for name, module in network.named_modules()
        if name in names
    ]
    try:
        network(*example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _random_like(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator)
    if isinstance(value, tuple | list):
        return type(value)(_random_like(member, generator) for member in value)
    return value


def _needs_nothing(method: Any) -> bool:
    parameters = inspect.signature(method).parameters.values()
    return all(
        parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in parameters
    )
