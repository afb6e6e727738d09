"""The manifest, the contract between export and service: a versioned schema that lists every file by SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import orjson
from pydantic import Field, ValidationError, field_validator, model_validator

from saccade.models.contract.extras import ExtraKind, ExtraOutput
from saccade.models.contract.gate_bounds import is_beyond_limit
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.models.contract.plain_files import read_plain
from saccade.models.contract.quality_ranges import QualityRanges
from saccade.models.contract.specs import (
    Frozen,
    ModelName,
    Normalisation,
    PreprocessSpec,
    Sha256,
    TaskSpec,
    TensorSpec,
    VariantName,
    input_tensor,
    output_tensors,
)

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 8 * 1024 * 1024  # one with ten thousand labels and twenty variants has less than one
MAX_VERSION = 2**63 - 1  # what every client, log and message can hold; a time stamp of 20 digits is beyond it
UNJUDGED = "unjudged"  # the check of a gate that had no labels: whether answers are right was not measured


class ManifestError(Exception):
    """The manifest cannot be used; the message says what is wrong and what to do."""


class FileEntry(Frozen):
    """A published file, relative to the version directory."""

    path: str
    size_bytes: int = Field(ge=0)
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\\" in path or not pure.parts:
            raise ValueError(f"path {path!r} must stay inside the version directory")
        return path


MetricName = Literal["top1", "map", "miou", "label_map", "mask_map", "recall_at_1", "ssim", "depth_accuracy"]


class MetricFigure(Frozen):
    """A task metric of one variant on one split, with its interval over images."""

    name: MetricName
    value: float
    ci_low: float
    ci_high: float
    confidence: float = 0.95
    split: str
    images: int


class OperatingPoint(Frozen):
    """A detector or multi-label classifier at the score threshold that requests get when they name none."""

    score_threshold: float
    metric: MetricFigure  # of the detections or labels that reach the threshold
    precision: float  # share of them that are right, boxes at IoU 0.5, all classes together
    recall: float  # share of true objects or labels that they find
    f1: float


class LatencyFigure(Frozen):
    """Bare backend latency of one batch, measured on the published bytes, in turns with the other variants."""

    batch_size: int = Field(ge=1)
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    # The median's 95 % interval over rounds; None where rounds were not measured.
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None


class GateCheck(Frozen):
    """One named check of the gate. `pending`: it needs a device that was not there, so it has not passed yet."""

    name: str
    passed: bool
    pending: bool = False
    value: float | str | bool | None
    limit: float | str | bool | None
    detail: str

    @model_validator(mode="after")
    def _passed_means_within_the_limit(self) -> GateCheck:
        if self.passed and is_beyond_limit(self.name, self.value, self.limit):
            raise ValueError(f"check {self.name} cannot have passed with {self.value} and the limit {self.limit}")
        return self


class GateDecision(Frozen):
    """`accepted`: every check passed. Pending: no check failed, but some need a device that was not there."""

    accepted: bool
    checks: tuple[GateCheck, ...] = Field(min_length=1)  # a gate that asked nothing decided nothing

    @model_validator(mode="after")
    def _accepted_means_all_passed(self) -> GateDecision:
        if self.accepted != all(check.passed for check in self.checks):
            raise ValueError("accepted must be true exactly when every check passed")
        if any(check.passed and check.pending for check in self.checks):
            raise ValueError("a check that passed is not pending")
        return self

    @property
    def is_pending(self) -> bool:
        return not self.accepted and all(check.passed or check.pending for check in self.checks)


class MeasuredDevice(Frozen):
    """The device on which figures were measured."""

    kind: Literal["cpu", "cuda"]
    name: str
    threads: int


class Variant(Frozen):
    """One runnable form of the network: precision, sparsity, target, and the figures measured on its file."""

    name: VariantName
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"]
    sparsity: Literal["dense", "two_four"]
    # any: every runtime; cpu: ONNX Runtime on processors; gpu: ONNX Runtime CUDA or TensorRT; trt: TensorRT;
    # openvino: OpenVINO on processors, which computes a float file in the variant's precision
    target: Literal["any", "cpu", "gpu", "trt", "openvino"]
    file: str  # one of Manifest.files
    external_data: tuple[str, ...] = ()  # weight files that `file` refers to, beside it; each one of Manifest.files
    # Outputs of `file` that are computed only when asked for, one per kind. Where there are none, the field is not
    # written, so that older servers take the manifest.
    extras: tuple[ExtraOutput, ...] = Field(default=(), exclude_if=lambda extras: not extras)
    metric: MetricFigure
    operating_point: OperatingPoint | None = None  # where answers are cut at a score
    latency: tuple[LatencyFigure, ...]
    paired_speeds: tuple[PairedSpeed, ...] = ()  # against each more exact variant, the most exact first
    measured_on: MeasuredDevice
    detail: dict[str, str | float | int | bool]  # how it was made: calibrator, excluded layers, ...
    gate: GateDecision


class Lineage(Frozen):
    """One export step's identity: its digest covers its inputs and configuration."""

    step: str
    digest: Sha256
    tool: str


class TargetSupport(Frozen):
    """Whether a runtime can take this network as it is, and what serves it where it cannot."""

    target: Literal["tensorrt"]
    supported: bool
    reason: str  # the operator and the layer that stop it; empty when supported
    fallback: Literal["onnxruntime"] | None  # set when not supported


class Manifest(Frozen):
    """One published version. `schema_version` comes first so that a newer file is recognised before it is parsed."""

    schema_version: Literal[1] = 1
    model: ModelName
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    created: str  # ISO 8601, UTC
    source: str
    weights: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|random)$")]
    task: TaskSpec
    labels: tuple[str, ...]  # class_id is the index
    preprocess: PreprocessSpec
    normalisation: Normalisation = Normalisation()  # carried out inside the graph; recorded for people
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]  # the task's answer, then what the recipe asked for besides
    batchable: bool = True
    not_batchable_reason: str = ""
    targets: tuple[TargetSupport, ...] = ()
    allowed_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...]
    reference_metric: MetricFigure  # eager fp32 on the same split
    reference_operating_point: OperatingPoint | None = None  # the same of detectors at their score threshold
    quality: QualityRanges | None = None  # of the calibration pictures; None: of an older exporter, or of task image
    judged: bool = True  # False: by the recipe's wish nobody measured whether answers are right, only that they agree
    variants: tuple[Variant, ...]
    files: tuple[FileEntry, ...]
    lineage: tuple[Lineage, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        listed = {entry.path for entry in self.files}
        for variant in self.variants:
            for file in (variant.file, *variant.external_data):
                if file not in listed:
                    raise ValueError(f"variant {variant.name!r} names {file!r}, which `files` does not list")
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"variant names repeat: {names}")
        for variant in self.variants:
            if self.judged == any(check.name == UNJUDGED for check in variant.gate.checks):
                raise ValueError(f"judged is {self.judged}, and the gate of variant {variant.name!r} says otherwise")
        if self.input != input_tensor(self.preprocess):
            raise ValueError("input must be the uint8 image that preprocess describes")
        self.task.ensure_shown_whole(self.preprocess)
        if self.preprocess.fit == "tile" and self.preprocess.margin is None:
            raise ValueError("preprocess of fit: tile needs its margin, as the exporter measures it")
        answer = output_tensors(self.task, self.preprocess)
        if self.outputs[: len(answer)] != answer:
            raise ValueError(f"outputs must begin with the {self.task.task} answer: {[item.name for item in answer]}")
        sizes = self.allowed_batch_sizes
        if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"allowed_batch_sizes must ascend from 1, got {sizes}")
        self._ensure_extras(answer)
        if not self.batchable and (sizes != (1,) or not self.not_batchable_reason):
            raise ValueError("a model that must not batch allows batch size 1 only, and says why")
        return self

    def _ensure_extras(self, answer: tuple[TensorSpec, ...]) -> None:
        taken = {spec.name for spec in (*self.outputs, *answer)}
        for variant in self.variants:
            kinds = [extra.kind for extra in variant.extras]
            if kinds != sorted(set(kinds), key=lambda kind: kind.bit):
                raise ValueError(f"extras of variant {variant.name!r} repeat a kind, or are out of order: {kinds}")
            for extra in variant.extras:
                if extra.output.name in taken:
                    raise ValueError(f"extra output {extra.output.name!r} of {variant.name!r} is an output already")

    @property
    def extras(self) -> tuple[ExtraOutput, ...]:
        """What the version gives when asked: of each kind, the output of the first variant that has one."""
        found: dict[ExtraKind, ExtraOutput] = {}
        for variant in self.variants:
            for extra in variant.extras:
                found.setdefault(extra.kind, extra)
        return tuple(found[kind] for kind in ExtraKind if kind in found)

    def given_by(self, variant: Variant) -> tuple[ExtraOutput, ...]:
        """The variant's extra outputs that are the version's: a map of another size or method is not served."""
        return tuple(extra for extra in variant.extras if extra in self.extras)

    @property
    def answer(self) -> tuple[TensorSpec, ...]:
        """The outputs that the server reads; what follows them in `outputs` is for other clients of the file."""
        return self.outputs[: len(output_tensors(self.task, self.preprocess))]

    def variant(self, name: str) -> Variant | None:
        return next((variant for variant in self.variants if variant.name == name), None)

    def bytes_of(self, variant: Variant) -> int:
        """The size of the files that a runtime opens for a variant: its graph and its weights beside it."""
        sizes = {entry.path: entry.size_bytes for entry in self.files}
        return sum(sizes[name] for name in (variant.file, *variant.external_data))

    def accepted_variants(self) -> Iterator[Variant]:
        return (variant for variant in self.variants if variant.gate.accepted)

    def pending_variants(self) -> Iterator[Variant]:
        """Variants that no server chooses until a device has made their last checks."""
        return (variant for variant in self.variants if variant.gate.is_pending)


def manifest_bytes(manifest: Manifest) -> bytes:
    """Canonical bytes: sorted keys, so equal manifests have equal digests."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(manifest.model_dump(mode="json"), option=options)


def manifest_from_bytes(raw: bytes) -> Manifest:
    """Parses a manifest. Raises ManifestError for damaged text, a newer schema, or unknown or missing fields."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ManifestError(f"{MANIFEST_NAME} is not JSON ({error}); publish the version again") from error
    found = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(found, int):
        raise ManifestError(f"{MANIFEST_NAME} has no integer schema_version; publish the version again")
    if found > SCHEMA_VERSION:
        raise ManifestError(
            f"{MANIFEST_NAME} has schema_version {found}, this saccade reads up to {SCHEMA_VERSION}; upgrade the server"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise ManifestError(f"{MANIFEST_NAME}: {where}: {first['msg']}") from error


def read_manifest(version_dir: Path) -> tuple[Manifest, str]:
    """The manifest of a version directory and the SHA-256 of its bytes. Raises ManifestError."""
    try:
        raw = read_plain(version_dir / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise ManifestError(f"cannot read {version_dir / MANIFEST_NAME}: {error.strerror}") from error
    return manifest_from_bytes(raw), hashlib.sha256(raw).hexdigest()
