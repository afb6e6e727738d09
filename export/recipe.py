"""Reads `recipe.yaml` into frozen values; an unknown key is refused by name, and all thresholds are set here."""

from __future__ import annotations

import difflib
import hashlib
import sys
import unicodedata
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from saccade.export.compression.spec import PruningSpec, SparsitySpec
from saccade.export.data.data_limits import DataLimits
from saccade.export.data.image_split import Split
from saccade.export.data.label_names import ensure_labels_differ, ensure_no_background_label
from saccade.export.errors import DataRefused, RecipeError
from saccade.export.gate.limits import LEAST_SIDE, GateThresholds
from saccade.export.network import NetworkRequest, SourceFacts
from saccade.export.recipe_gaps import MISSING, OTHER_NAMES, READY, SIZE_MISSING, completed, said_picture, said_task
from saccade.export.sources.onnx_words import TOP_WORDS, FileWords
from saccade.export.sources.specs import SourceSpec
from saccade.export.variants import VariantKind
from saccade.models.contract.specs import Frozen, ModelName, Normalisation, PreprocessSpec, Task, TaskSpec

BatchSize = Annotated[int, Field(ge=1, le=1024)]
Percentile = Annotated[float, Field(gt=50.0, le=100.0)]


# Categories of Unicode that break a line or turn text around; marks that join letters and emoji are none of them.
_UNPRINTABLE = ("Cc", "Zl", "Zp", "Cs")
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class DigitScenes(Frozen):
    """Generated pictures of handwritten digits; no digit occurs in two splits. `train`, for recovery, is optional."""

    dataset: Literal["digit_scenes"]
    seed: int = Field(default=0, ge=0)
    test_seed: int | None = Field(default=None, ge=0)  # of the test split, so that it can be renewed alone; null: seed
    images: dict[Split, Annotated[int, Field(ge=1)]]
    noise: float = Field(default=0.0, ge=0, le=255)  # task image: as of a folder

    @model_validator(mode="after")
    def _every_split_counted(self) -> DigitScenes:
        missing = {"calibration", "tuning", "test"} - set(self.images)
        if missing:
            raise ValueError(f"images needs a count for {', '.join(sorted(missing))}")
        return self


class FolderData(Frozen):
    """A user's own pictures, `path/<split>/`: a folder per label, COCO's or YOLO's boxes, or masks beside images."""

    dataset: Literal["folder"] = "folder"
    path: str  # relative to the recipe
    # limit per split; a missing split is read whole
    max_images: dict[Split, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    noise: float = Field(default=0.0, ge=0, le=255)  # task image: levels of noise that is added to clean pictures
    order: Literal["name", "sorted"] = "name"  # sorted: the sorted folders or categories are classes 0, 1, ...
    limits: DataLimits = DataLimits()
    # a CSV beside the recipe with the slices of each picture, or `folders`: the folder below split and label
    slices: Annotated[str, Field(min_length=1)] | None = None


def _data_from_text(value: object) -> object:
    """Expands the short form `data: ./pictures`, and takes a section with `path` for a folder."""
    section = {"path": value} if isinstance(value, str) else value
    if isinstance(section, dict) and not section.keys() & {"dataset", "path"}:
        raise ValueError("write the folder too: `data: {path: ./pictures, ...}`")
    return {"dataset": "folder", **section} if isinstance(section, dict) and "path" in section else section


DataSpec = Annotated[
    Annotated[DigitScenes | FolderData, Field(discriminator="dataset")], BeforeValidator(_data_from_text)
]


class FoldingSpec(Frozen):
    """What is folded into weights before conversion; each fold is proven equal, or the export stops."""

    batch_norm: bool = True  # folds it into the convolution or linear layer in front of it
    hooks: bool = True  # calls reparameterize, fuse, switch_to_deploy and similar methods, found by name
    method: Annotated[str, Field(pattern=r"^[a-z_]\w*$")] | None = None  # one more method to call, on any submodule


class OnnxSpec(Frozen):
    opset: int = Field(default=20, ge=18, le=23)


class AccuracyControlSpec(Frozen):
    """Returns layers to float, heads first, while the tuning metric is too far below the float network's."""

    # Limits the upper end of the paired interval, as in the gate; null: the gate's limit for this variant.
    max_drop: Annotated[float, Field(ge=0)] | None = None
    max_float_layers: int = Field(default=16, ge=1)
    budget_s: float = Field(default=20.0, ge=0)  # no attempt starts later; 0: no layer returns to float


class PolicySpec(Frozen):
    """A search for blocks that should stay float on this machine; variants for other machines skip it."""

    # latency: faster than all-int8 with no lower metric. accuracy: a higher metric within `max_slowdown`.
    objective: Literal["latency", "accuracy"]
    max_slowdown: float = Field(default=0.05, ge=0)  # share of all-int8's time that accuracy may cost
    candidates: int = Field(default=4, ge=1, le=32)  # number of best predictions that are measured
    batch_size: BatchSize = 1
    budget_s: float = Field(default=20.0, gt=0)  # time for measuring, half for the blocks and half for the candidates


class CalibrationSpec(Frozen):
    """The competing methods to choose activation ranges; the metric on the tuning split decides."""

    minmax: bool = True
    entropy: bool = True
    percentiles: tuple[Percentile, ...] = (99.9, 99.99)
    mse: bool = True
    # true: channel ranges made equal behind LayerNorms compete with the unchanged ones
    layer_norm_reparametrisation: bool = True
    min_images: int = Field(default=32, ge=1)
    keep_float: tuple[str, ...] = ()  # name prefixes of nodes that stay in fp32
    sensitivity_images: int = Field(default=2, ge=1)  # number of calibration images for the per-layer figures
    sensitivity_budget_s: float = Field(default=30.0, ge=0)  # if the figures take longer, the report leaves them out
    accuracy_control: AccuracyControlSpec = AccuracyControlSpec()
    policy: PolicySpec | None = None

    @model_validator(mode="after")
    def _has_a_candidate(self) -> CalibrationSpec:
        if not (self.minmax or self.entropy or self.percentiles or self.mse):
            raise ValueError("name at least one calibrator: minmax, entropy, percentiles or mse")
        return self


class QualifySpec(Frozen):
    """What is measured on each variant's file, and how long it may take."""

    parity_batch_sizes: tuple[BatchSize, ...] = (1, 3, 8)
    latency_repeats: int = Field(default=40, ge=3)  # rounds in which all variants take turns; never fewer than 6
    # for each variant and batch size; fewer rounds when it runs out
    latency_budget_s: float = Field(default=0.5, gt=0)
    # batch sizes at which the deploy graph is timed against the bare graph
    compare_batch_sizes: tuple[BatchSize, ...] = (1, 8)
    compare_repeats: int = Field(default=60, ge=3)
    compare_budget_s: float = Field(default=2.0, gt=0)
    threads: int = Field(default=0, ge=0)  # 0: every core this process may use
    allow_spinning: bool = True  # while answers are measured; times are taken without, as a server runs by default
    evaluate_batch_size: BatchSize = 16
    bootstrap_resamples: int = Field(default=200, ge=20)
    evidence_mib: float = Field(default=32.0, ge=0)  # size of the test images published with variants for GPUs; 0: none


def fits_a_line(text: str) -> bool:
    """Tells whether a terminal and a page show the text as one line and in its order."""
    return _TURNS.isdisjoint(text) and not any(unicodedata.category(letter) in _UNPRINTABLE for letter in text)


class Recipe(Frozen):
    """All settings of one model's export, from checkpoint to version directory."""

    model: ModelName
    source: SourceSpec
    weights: str | None = None  # a file or directory, relative to the recipe; null: random
    task: TaskSpec
    labels: tuple[str, ...] = Field(min_length=1)
    preprocess: PreprocessSpec
    normalisation: Normalisation = Normalisation()
    # outputs behind the answer, for clients that run the file themselves
    extra_outputs: tuple[Literal["logits", "features"], ...] = ()
    data: DataSpec
    variants: tuple[VariantKind, ...] = Field(default=("fp32", "int8-cpu"), min_length=1)
    folding: FoldingSpec = FoldingSpec()
    onnx: OnnxSpec = OnnxSpec()
    sparsity: SparsitySpec = SparsitySpec()
    pruning: PruningSpec = PruningSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    qualify: QualifySpec = QualifySpec()
    gate: GateThresholds = GateThresholds()
    allowed_batch_sizes: tuple[BatchSize, ...] = (1, 2, 4, 8, 16)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name, values in (("variants", self.variants), ("extra_outputs", self.extra_outputs)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} repeat: {values}")
        sizes = self.allowed_batch_sizes
        if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"allowed_batch_sizes must ascend from 1, got {sizes}")
        for number, label in enumerate(self.labels):
            if not label.strip() or not fits_a_line(label):
                raise ValueError(f"labels.{number} is {label!r}: write a name of letters that can be shown in one line")
        self.task.ensure_fits(len(self.labels))
        if self.data.noise and (self.task.task is not Task.IMAGE or self.task.picture == "depth"):
            raise ValueError("data.noise makes pictures of colours worse, for task: image: leave it out")
        if self.gate.corruptions is not None and min(self.preprocess.width, self.preprocess.height) < LEAST_SIDE:
            raise ValueError(f"gate.corruptions: they are defined for inputs of {LEAST_SIDE} pixels a side and more")
        self.gate.ensure_can_judge_slices(has_slices=isinstance(self.data, FolderData) and bool(self.data.slices))
        self.task.ensure_shown_whole(self.preprocess)
        return self


class LoadedRecipe(Frozen):
    """A recipe with its path, which weights and data are relative to, and the digest of its text."""

    path: Path
    recipe: Recipe
    sha256: str
    quantized: str = ""  # what shows that the weights are int8 already and served as they are; empty: float
    given: Path = Path("recipe.yaml")  # the path as the user gave it, which reports repeat in commands
    left_out: tuple[VariantKind, ...] = ()  # variants of the recipe that this run does not make
    fit_note: str = ""  # says that pictures are resized, where the recipe leaves `fit` out

    @property
    def weights_path(self) -> Path | None:
        weights = self.recipe.weights
        return None if weights is None else self.beside(weights)

    @property
    def recovered_path(self) -> Path | None:
        """Returns the weights of an earlier 2:4 recovery, when the recipe names them."""
        recovered = self.recipe.sparsity.recovered
        return None if recovered is None else self.beside(recovered)

    def beside(self, path: str) -> Path:
        """Makes a path of the recipe absolute."""
        return (self.path.parent / path).resolve()

    def with_variants(self, names: Sequence[VariantKind]) -> LoadedRecipe:
        """Leaves out all variants but the named ones. Raises RecipeError for one that the recipe does not have."""
        unknown = [name for name in names if name not in self.recipe.variants]
        if unknown:
            listed = ", ".join(self.recipe.variants)
            raise RecipeError(f"{self.given} has no variant {', '.join(unknown)}: write it in `variants`, now {listed}")
        kept = tuple(name for name in self.recipe.variants if name in names)
        left_out = tuple(name for name in self.recipe.variants if name not in names)
        return self.model_copy(
            update={"recipe": self.recipe.model_copy(update={"variants": kept}), "left_out": left_out}
        )

    def network_request(self) -> NetworkRequest:
        recipe = self.recipe
        return NetworkRequest(
            source=recipe.source,
            weights=self.weights_path,
            task=recipe.task,
            classes=len(recipe.labels),
            preprocess=recipe.preprocess,
            normalisation=recipe.normalisation,
            extra_outputs=recipe.extra_outputs,
        )


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would take the last one and forget the limits of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_recipe(path: Path) -> LoadedRecipe:
    """Reads a recipe and asks its source for whatever it leaves out.

    Side effect: from now on the recipe's folder and the current directory are searched for modules, after everything
    that is installed. Raises RecipeError naming the key that is unknown, missing or out of range, and SourceError for
    an unknown network.
    """
    for folder in (str(path.parent.resolve()), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    from saccade.export.sources import source_facts  # imported here because the libraries behind it take seconds

    try:
        raw = path.read_bytes()
        document = yaml.load(raw, _UniqueKeys)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{path} must hold a mapping of keys, found {type(document).__name__}")
    document = _with_file_words(path, document)
    _ensure_known_keys(path, document)
    weights = document.get("weights")
    try:
        source: SourceSpec = _SOURCE.validate_python(document.get("source"))
        file = (path.parent / weights).resolve() if isinstance(weights, str) else None
        facts = source_facts(source, file, said_task(document), said_picture(document))
        recipe = Recipe.model_validate(completed(document, source, facts, path.parent))
    except ValidationError as error:
        section = ("source",) if error.title != "Recipe" else ()
        problems = error.errors()
        lines = [
            f"{_where((*section, *_without_kind(problem['loc'])))}: {what_is_wrong(problem)}"
            for problem in problems
            if not _is_told(problem, problems)
        ]
        raise RecipeError(f"{path}: " + "; ".join(lines)) from error
    if "labels" in document:
        _ensure_labels_fit(path, recipe, facts)
    if facts.quantized and (others := [variant for variant in recipe.variants if variant not in READY]):
        raise RecipeError(
            f"{path}: {weights} is quantized to int8 already ({facts.quantized}), and {', '.join(others)} needs a "
            "float network: leave `variants` out, or name the float file in `weights`"
        )
    digest = hashlib.sha256(raw).hexdigest()
    note = "" if "fit" in (document.get("preprocess") or {}) else facts.fit_note
    return LoadedRecipe(
        path=path.resolve(), recipe=recipe, sha256=digest, quantized=facts.quantized, given=path, fit_note=note
    )


def _ensure_labels_fit(path: Path, recipe: Recipe, facts: SourceFacts) -> None:
    """Raises RecipeError for repeated labels, as only a library's may be, and for one that the network cannot have."""
    try:
        if isinstance(recipe.data, FolderData):
            ensure_labels_differ(recipe.labels)
        if recipe.source.kind == "onnx" and not facts.has_class_ids:
            ensure_no_background_label(recipe.task.task, recipe.labels)
    except DataRefused as error:
        raise RecipeError(f"{path}: {error}") from error


def _with_file_words(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Moves words about an ONNX file from the top of a recipe, beside `weights`, into its source."""
    given = [name for name in TOP_WORDS if name in document]
    if not given:
        return document
    source = document.get("source")
    source = {"kind": source} if isinstance(source, str) else source
    if not isinstance(source, dict) or source.get("kind") != "onnx":
        raise RecipeError(f"{path}: {given[0]} is a word about an ONNX file and needs `source: onnx`")
    if "value_range" in given and "normalisation" in document:
        raise RecipeError(f"{path}: value_range and normalisation say the same thing; keep one of them")
    rest = {name: value for name, value in document.items() if name not in given}
    return {**rest, "source": {**source, **{name: document[name] for name in given}}}


def _ensure_known_keys(path: Path, document: dict[str, Any]) -> None:
    unknown = [str(key) for key in document if key not in Recipe.model_fields]
    if unknown:
        raise RecipeError(f"{path}: {'; '.join(_unknown_key(key, Recipe, TOP_WORDS) for key in unknown)}")


def _unknown_key(key: str, model: type[BaseModel], more: tuple[str, ...] = ()) -> str:
    known = [*model.model_fields, *more]
    near = difflib.get_close_matches(OTHER_NAMES.get(key, key) if model is Recipe else key, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"unknown key {key!r}{hint} (allowed: {', '.join(sorted(known))})"


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "recipe"


def _without_kind(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Removes the source's kind from an error's location, so that it names the line of the recipe."""
    return location[1:] if location[:1] == ("onnx",) else location


def what_is_wrong(problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        model = _section_model(problem["loc"][:-1])
        if model is not None:
            return _unknown_key(str(problem["loc"][-1]), model)
    if problem["type"] == "missing" and len(problem["loc"]) == 1:
        return SIZE_MISSING if problem["loc"] == ("preprocess",) else MISSING
    if problem["type"] == "tuple_type":
        return f"write a list, such as [red, blue], not {problem['input']!r}"
    if problem["type"] == "string_type" and not isinstance(problem["input"], str | list | dict):
        return f"YAML reads {problem['input']!r} here and not a word: put it in quotes"
    return problem["msg"].removeprefix("Value error, ")


def _is_told(problem: ErrorDetails, problems: Sequence[ErrorDetails]) -> bool:
    """Tells whether a list seems too short only because each of its items is wrong, which is said of the items."""
    return problem["type"] == "too_short" and any(each["loc"][:-1] == problem["loc"] for each in problems)


def _section_model(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Returns the model of a nested section, when the recipe's type names exactly one."""
    model: type[BaseModel] = FileWords if location[:1] == ("onnx",) else Recipe
    for part in _without_kind(location):
        field = model.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        kinds = [each for each in get_args(annotation) or (annotation,) if each is not type(None)]
        if not (len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel)):
            return None
        model = kinds[0]
    return model


_SOURCE: TypeAdapter[SourceSpec] = TypeAdapter(SourceSpec)
