"""Plans as artefacts: what a runtime made of a variant's file for one kind of GPU, and what the gate said of it there.

TensorRT's plan is its engine. ONNX Runtime compiles nothing that could be kept: its plan is the form in which its CUDA
provider ran the file fastest (`service/backends/onnxruntime_forms.py`), so that a later load need not try again.

A plan lies in a directory of its own below the engines directory, `<model>/<version>/<variant>/<place of its key>/`:

    plan             the serialized engine, or the name of the form
    plan.json        PlanRecord: the key, digests, how the build went, what the gate said of it on which device
    layers.json      the inspector's layer information; only where the plan was opened on a device
    timing.cache     kernel timings for the next build; never needed to serve

Plans are made after a version was published and differ from machine to machine, so they are not files of the version:
that never changes, and its signature stays valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from pydantic import Field, ValidationError, model_validator

from saccade.models.contract.manifest import GateDecision, LatencyFigure, Manifest, MeasuredDevice, Variant
from saccade.models.contract.specs import Frozen, ModelName, Sha256, VariantName

PLAN_FILE = "plan"
PLAN_RECORD = "plan.json"
LAYERS_FILE = "layers.json"
TIMING_CACHE = "timing.cache"

TensorRtName = Literal["tensorrt", "tensorrt_rtx"]
PlanRuntime = Literal["tensorrt", "tensorrt_rtx", "onnxruntime"]
PlanFlag = Literal["sparse_weights"]
Capability = Annotated[str, Field(pattern=r"^SM\d{2,3}$")]  # compute capability: SM90 is an H200


class PlanError(Exception):
    """A plan record cannot be used; the message says what is wrong and what to do."""


class PlanKey(Frozen):
    """Everything that decides whether two builds give the same plan. Any difference makes another plan."""

    onnx_sha256: Sha256  # of the published variant's file
    external_sha256: tuple[tuple[str, Sha256], ...] = ()  # its weight files by name, ascending
    runtime: PlanRuntime
    runtime_version: str  # exact: TensorRT opens plans of its own build only, and other versions have other speeds
    capabilities: tuple[Capability, ...] = Field(min_length=1)  # ascending; every one of them can run the plan
    allowed_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)  # the profile is made from them
    flags: tuple[PlanFlag, ...] = ()  # ascending

    @model_validator(mode="after")
    def _ordered(self) -> PlanKey:
        numbers = [int(name.removeprefix("SM")) for name in self.capabilities]
        for what in (numbers, list(self.allowed_batch_sizes), list(self.flags), list(self.external_sha256)):
            if what != sorted(set(what)):  # type: ignore[type-var]  # each list is of one comparable type
                raise ValueError(f"must ascend without repeats, got {what}")
        return self

    @property
    def backend(self) -> str:
        """Name of the server's backend that opens such plans."""
        return "onnxruntime" if self.runtime == "onnxruntime" else "tensorrt"

    @property
    def digest(self) -> str:
        """SHA-256 of the key; equal keys have equal digests."""
        return hashlib.sha256(orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def place(self) -> str:
        """Name of the plan's directory: readable, and different for every key."""
        return f"{'+'.join(self.capabilities)}-{self.runtime}-{self.runtime_version}-{self.digest[:8]}"


class PlanRecord(Frozen):
    """The content of `plan.json`. `gate` is None until a device decided; such a plan takes no traffic."""

    schema_version: Literal[1] = 1
    model: ModelName
    version: Annotated[int, Field(ge=1)]
    variant: VariantName
    key: PlanKey
    plan_sha256: Sha256
    plan_bytes: int = Field(ge=1)
    created: str  # ISO 8601, UTC
    build_seconds: float = Field(ge=0)
    layers: int = Field(ge=0)  # of the strongly typed network
    dtypes: dict[str, int]  # how many of its layers give each type
    warnings: tuple[str, ...] = ()
    gate: GateDecision | None = None
    measured_on: MeasuredDevice | None = None
    latency: tuple[LatencyFigure, ...] = ()
    device_memory_bytes: int = Field(default=0, ge=0)  # of the opened plan with its buffers; 0: not measured


@dataclass(frozen=True, slots=True)
class PlanEnvironment:
    """What a machine can open: its TensorRT and its GPU."""

    runtime: str  # module name
    runtime_version: str
    capability: str  # as Capability
    device_name: str = ""


def plan_key(
    manifest: Manifest, variant: Variant, runtime: PlanRuntime, runtime_version: str, capabilities: Sequence[str]
) -> PlanKey:
    """What a plan of this variant must have been made from to be served there.

    `runtime_version` is exact, as the module says it; `capabilities` are names as SM90, in any order.
    """
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    return PlanKey(
        onnx_sha256=digests[variant.file],
        external_sha256=tuple((name, digests[name]) for name in sorted(variant.external_data)),
        runtime=runtime,
        runtime_version=runtime_version,
        capabilities=tuple(sorted(set(capabilities), key=lambda name: int(name.removeprefix("SM")))),
        allowed_batch_sizes=manifest.allowed_batch_sizes,
        flags=("sparse_weights",) if variant.sparsity == "two_four" else (),
    )


def plan_record_from(raw: bytes) -> PlanRecord:
    """Parses a record. Raises PlanError for damaged text, a newer schema, or unknown or missing fields."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise PlanError(
            f"{PLAN_RECORD} is not JSON ({error}); delete its directory, the plan is built again"
        ) from error
    found = document.get("schema_version") if isinstance(document, dict) else None
    if found != 1:
        raise PlanError(f"{PLAN_RECORD} has schema_version {found!r}, this saccade reads 1; build the plan again")
    try:
        return PlanRecord.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise PlanError(f"{PLAN_RECORD}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def plan_record_bytes(record: PlanRecord) -> bytes:
    """Canonical bytes of `plan.json`."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(record.model_dump(mode="json"), option=options)


def differences(wanted: PlanKey, found: PlanKey) -> tuple[str, ...]:
    """Each field in which the wanted and the found key differ; empty exactly when the keys are equal."""
    pairs = ((name, getattr(found, name), getattr(wanted, name)) for name in type(wanted).model_fields)
    return tuple(f"{name} is {_short(have)}, needed {_short(need)}" for name, have, need in pairs if have != need)


def environment_differences(key: PlanKey, environment: PlanEnvironment) -> tuple[str, ...]:
    """Why this machine cannot open the plan; empty when it can."""
    found: list[str] = []
    if key.runtime != environment.runtime:
        found.append(f"built by {key.runtime}, this machine has {environment.runtime or 'no TensorRT'}")
    elif key.runtime_version != environment.runtime_version:
        found.append(f"built by {key.runtime} {key.runtime_version}, this machine has {environment.runtime_version}")
    if environment.capability not in key.capabilities:
        name = f" ({environment.device_name})" if environment.device_name else ""
        have = environment.capability or "no GPU"
        found.append(f"built for {', '.join(key.capabilities)}, this machine has {have}{name}")
    return tuple(found)


def missing_batch_sizes(key: PlanKey, wanted: Sequence[int]) -> tuple[int, ...]:
    """The wanted batch sizes that the plan's profile does not hold."""
    return tuple(size for size in wanted if size not in key.allowed_batch_sizes)


def _short(value: object) -> str:
    text = f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)
    return text or "nothing"
