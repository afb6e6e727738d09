"""Defines a step of the pipeline: a value whose function reads recipe and inputs and writes one output directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from saccade.export.artifact import Artifact, Detail
from saccade.export.recipe import LoadedRecipe, Recipe
from saccade.export.variants import Form, VariantKind

if TYPE_CHECKING:
    from saccade.export.data.datasets import DataStore
    from saccade.export.publish.signing import Signer

Note = Callable[[str], None]  # shows its text beside the progress bar
_OTHER_NAMES = {"onnxruntime": "onnxruntime-gpu"}  # another distribution of the same modules


@dataclass(frozen=True, slots=True)
class StepContext:
    """Everything that a step may use."""

    loaded: LoadedRecipe
    variant: VariantKind | None  # set for steps that run once per variant
    form: Form  # form of the weights: the variant's, or the one that the step makes
    out: Path  # empty; files that the step writes here become its artifact
    # By step name as in `qualified_name`; inputs by form lack the form, as `wrap` or `onnx_optimization`.
    inputs: Mapping[str, Artifact]
    data: DataStore
    repository: Path
    note: Note
    signer: Signer | None = None  # signs what is published
    lost: Mapping[VariantKind, str] = field(default_factory=dict)  # variants that could not be made, and why

    @property
    def recipe(self) -> Recipe:
        return self.loaded.recipe


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the pipeline; its outcome depends on the source of all modules that the module of `run` imports."""

    name: str
    run: Callable[[StepContext], Detail]
    inputs: tuple[str, ...]  # step names; a per-variant input of a whole-model step means all variants
    config: Callable[[LoadedRecipe], object]
    tools: tuple[str, ...]  # packages whose version decides the outcome
    scope: Literal["model", "form", "variant"] = "model"  # runs once, once per form of the weights, or once per variant
    skips_dense: bool = False  # a step of forms that does nothing for the dense one
    is_asked: Callable[[LoadedRecipe], bool] = lambda loaded: True  # False: this recipe has no such step
    is_reusable: bool = True  # False: cheap or about the outside world, so always run
    is_measured: bool = False  # figures vary from run to run, so dependents are keyed by its identity, not its content
    is_good: Callable[[Detail], bool] = lambda detail: True


def qualified_name(step_name: str, part: VariantKind | Form | None) -> str:
    """Returns `precision.int8-cpu` for a variant, `onnx_optimization.sparse24` for a form, `wrap` for the model."""
    return step_name if part is None or part == "dense" else f"{step_name}.{part}"


def tool_versions(tools: Iterable[str]) -> dict[str, str]:
    """Returns installed versions by tool; "none" for what this platform lacks, as cykooz-resizer on aarch64."""
    return {tool: _version_of(tool) for tool in tools}


def _version_of(tool: str) -> str:
    for name in (tool, _OTHER_NAMES.get(tool, tool)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"
