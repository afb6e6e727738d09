"""Where networks come from: one file per source kind. Promises: an eval-mode float network, weights loaded strictly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from export.recipe import LoadedRecipe
from export.sources.module_source import load_module_source, module_source_digest


@dataclass(frozen=True, slots=True)
class SourceKind:
    """How one `source.kind` of a recipe is loaded, and what its identity covers besides the weights file."""

    load: Callable[[LoadedRecipe], nn.Module]
    digest: Callable[[LoadedRecipe], str]


SOURCE_KINDS: dict[str, SourceKind] = {"module": SourceKind(load_module_source, module_source_digest)}


def load_network(loaded: LoadedRecipe) -> nn.Module:
    """The recipe's network: float NCHW in, raw outputs out. Raises SourceError."""
    return SOURCE_KINDS[loaded.recipe.source.kind].load(loaded)


def source_digest(loaded: LoadedRecipe) -> str:
    """Changes whenever the network's code, arguments or weights change."""
    return SOURCE_KINDS[loaded.recipe.source.kind].digest(loaded)
