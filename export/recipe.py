"""Reads `recipe.yaml`. Promises: frozen, complete, unknown keys refused with their name, thresholds live here only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from export.errors import RecipeError
from models.specs import Frozen, ModelName, PreprocessSpec, TaskSpec

VariantKind = Literal["fp32", "int8-cpu"]
Split = Literal["calibration", "tuning", "test"]
BatchSize = Annotated[int, Field(ge=1, le=1024)]
Percentile = Annotated[float, Field(gt=50.0, le=100.0)]


class ModuleSource(Frozen):
    """A network built by calling `module:factory`, with weights from a safetensors file."""

    kind: Literal["module"]
    factory: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
    arguments: dict[str, Any] = Field(default_factory=dict)
    method: Annotated[str, Field(pattern=r"^[a-z_]\w*$")] = "forward"  # what inference calls, where it is not forward
    weights: str | None = None  # relative to the recipe; null keeps the factory's own (random) weights


class Normalisation(Frozen):
    """What the network expects: (pixel / 255 - mean) / std, per channel."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class DataSpec(Frozen):
    """Where images come from; the three splits share no digit."""

    dataset: Literal["digit_scenes"]
    seed: int = Field(default=0, ge=0)
    images: dict[Split, Annotated[int, Field(ge=1)]]

    @model_validator(mode="after")
    def _every_split_counted(self) -> DataSpec:
        missing = {"calibration", "tuning", "test"} - set(self.images)
        if missing:
            raise ValueError(f"images needs a count for {', '.join(sorted(missing))}")
        return self


class OnnxSpec(Frozen):
    opset: int = Field(default=20, ge=18, le=23)


class CalibrationSpec(Frozen):
    """Which ways of choosing activation ranges compete; the tuning split's metric decides."""

    minmax: bool = True
    entropy: bool = True
    percentiles: tuple[Percentile, ...] = (99.9, 99.99)
    min_images: int = Field(default=32, ge=1)
    keep_float: tuple[str, ...] = ()  # name prefixes of nodes that stay in fp32

    @model_validator(mode="after")
    def _has_a_candidate(self) -> CalibrationSpec:
        if not (self.minmax or self.entropy or self.percentiles):
            raise ValueError("name at least one calibrator: minmax, entropy or percentiles")
        return self


class QualifySpec(Frozen):
    """What is measured on each variant's file, and how long it may take."""

    parity_batch_sizes: tuple[BatchSize, ...] = (1, 3, 8)
    latency_repeats: int = Field(default=40, ge=3)
    latency_budget_s: float = Field(default=0.5, gt=0)  # per batch size; fewer repeats when it runs out
    compare_batch_sizes: tuple[BatchSize, ...] = (1, 8)  # deploy graph against bare graph
    compare_repeats: int = Field(default=60, ge=3)
    compare_budget_s: float = Field(default=2.0, gt=0)
    threads: int = Field(default=0, ge=0)  # 0: every core this process may use
    allow_spinning: bool = True
    evaluate_batch_size: BatchSize = 16
    bootstrap_resamples: int = Field(default=200, ge=20)


class GateThresholds(Frozen):
    """What a variant must reach. Shares and drops are fractions: 0.005 is half a point."""

    min_metric: float = Field(default=0.0, ge=0)  # lower end of the bootstrap interval; keeps untrained weights out
    max_metric_drop: float = Field(default=0.005, ge=0)  # upper end of the paired bootstrap interval
    max_parity_error: float = Field(default=1e-4, gt=0)  # relative L2 against eager; fp32 only
    max_mask_disagreement: float = Field(default=1e-3, ge=0, le=1)  # share of pixels
    max_batch_error: float = Field(default=1e-4, ge=0)  # relative L2, alone against in a batch
    min_speed_ratio: float = Field(default=0.97, gt=0)  # deploy graph / bare graph, images per second
    speed_ratio_gates: bool = False  # timing on a shared machine informs unless the recipe insists
    max_metric_regression: float | None = Field(default=None, ge=0)  # against the newest published version


class Recipe(Frozen):
    """One model's way from checkpoint to version directory."""

    model: ModelName
    source: ModuleSource
    task: TaskSpec
    labels: tuple[str, ...] = Field(min_length=1)
    preprocess: PreprocessSpec
    normalisation: Normalisation = Normalisation()
    data: DataSpec
    variants: tuple[VariantKind, ...] = Field(default=("fp32", "int8-cpu"), min_length=1)
    onnx: OnnxSpec = OnnxSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    qualify: QualifySpec = QualifySpec()
    gate: GateThresholds = GateThresholds()
    allowed_batch_sizes: tuple[BatchSize, ...] = (1, 2, 4, 8, 16)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if len(set(self.variants)) != len(self.variants):
            raise ValueError(f"variants repeat: {self.variants}")
        sizes = self.allowed_batch_sizes
        if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"allowed_batch_sizes must ascend from 1, got {sizes}")
        if self.task.top_k > len(self.labels):
            raise ValueError(f"top_k {self.task.top_k} exceeds the {len(self.labels)} labels")
        return self


class LoadedRecipe(Frozen):
    """A recipe, where it lies (weights are relative to it), and the digest of its text."""

    path: Path
    recipe: Recipe
    sha256: str

    @property
    def weights_path(self) -> Path | None:
        weights = self.recipe.source.weights
        return None if weights is None else (self.path.parent / weights).resolve()


def load_recipe(path: Path) -> LoadedRecipe:
    """Raises RecipeError naming the key that is unknown, missing or out of range."""
    try:
        raw = path.read_bytes()
        document = yaml.safe_load(raw)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{path} must hold a mapping of keys, found {type(document).__name__}")
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        lines = [f"{_where(problem['loc'])}: {problem['msg']}" for problem in error.errors()]
        raise RecipeError(f"{path}: " + "; ".join(lines)) from error
    return LoadedRecipe(path=path.resolve(), recipe=recipe, sha256=hashlib.sha256(raw).hexdigest())


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "recipe"
