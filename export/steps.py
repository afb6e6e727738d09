"""What a step is. Promises: steps are values; a step sees its recipe, its inputs and one empty output directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.artifact import Artifact, Detail
from export.recipe import LoadedRecipe, Recipe, VariantKind

if TYPE_CHECKING:
    from export.datasets import DataStore

Note = Callable[[str], None]  # shown beside the progress bar


@dataclass(frozen=True, slots=True)
class StepContext:
    """Everything a step may use."""

    loaded: LoadedRecipe
    variant: VariantKind | None  # set for steps that run once per variant
    out: Path  # empty; what the step writes here becomes its artifact
    inputs: Mapping[str, Artifact]  # by step name as in `qualified_name`
    data: DataStore
    repository: Path
    note: Note

    @property
    def recipe(self) -> Recipe:
        return self.loaded.recipe


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the pipeline. `modules` are those whose source text decides the outcome."""

    name: str
    run: Callable[[StepContext], Detail]
    inputs: tuple[str, ...]  # step names; a per-variant input of a whole-model step means all variants
    config: Callable[[LoadedRecipe], object]
    modules: tuple[str, ...]
    tools: tuple[str, ...]  # packages whose version decides the outcome
    is_per_variant: bool = False
    is_reusable: bool = True  # False: cheap or about the outside world, so always run
    is_measured: bool = False  # figures vary from run to run, so dependents are keyed by its identity, not its content
    is_good: Callable[[Detail], bool] = lambda detail: True


def qualified_name(step_name: str, variant: VariantKind | None) -> str:
    """`precision.int8-cpu` for one variant's run, `wrap` for the model's."""
    return step_name if variant is None else f"{step_name}.{variant}"
