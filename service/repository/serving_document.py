"""The desired state of one model, `serving.json`: which version each traffic label names. Read strictly.

It lies beside the versions, or as `<model>.json` in SACCADE_SERVING_DIR, where a ConfigMap can be mounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from saccade.models.contract.manifest import MAX_VERSION
from saccade.models.contract.plain_files import open_plain
from saccade.service.core import LONGEST_OBJECTIVE_MS, SHORTEST_OBJECTIVE_MS, STABLE
from saccade.service.errors import RepositoryError

SERVING_NAME = "serving.json"
_SCHEMA_VERSION = 1
MOST_DOCUMENT_BYTES = 64 * 1024
_LONGEST_GRACE_S = 7 * 86_400.0
_LONGEST_STEP_S = 7 * 86_400.0
Number = Annotated[int, Field(ge=1, le=MAX_VERSION)]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class ServingRefused(RepositoryError):
    """A document that cannot be read, contradicts itself, or names what is not there."""


class Canary(BaseModel):
    """A version that answers a share of the requests that name neither version nor label."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Number
    share: float = Field(gt=0.0, le=1.0)
    salt: str = Field("", max_length=64)  # another salt chooses other keys


class Shadow(BaseModel):
    """A version that is asked about a share of the images that stable has answered; nobody gets its answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Number
    sample: float = Field(gt=0.0, le=1.0)


class Step(BaseModel):
    """One share of an automatic rollout, and what must have been seen before the next one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    share: float = Field(gt=0.0, le=1.0)
    min_requests: int = Field(default=500, ge=1, le=10**9)  # answered by the canary
    min_time_s: float = Field(default=60.0, ge=0.0, le=_LONGEST_STEP_S)


class Limits(BaseModel):
    """How much worse than stable a canary may be, and how often chance alone may decide."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    more_errors: float = Field(default=0.002, gt=0.0, lt=1.0)  # share of the requests
    slower: float = Field(default=1.25, gt=1.0, le=100.0)  # times the median and the 99th percentile of stable
    min_agreement: float = Field(default=0.97, ge=0.0, lt=1.0)  # mean over the images of the shadow, where there is one
    false_alarms: float = Field(default=0.02, gt=0.0, le=0.5)  # of all rollouts of a version that is as good


class Rollout(BaseModel):
    """A rollout that the server carries on by itself, step by step, or takes back."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    steps: tuple[Step, ...] = Field(min_length=1, max_length=20)
    step: int = Field(default=0, ge=0)  # the present one
    limits: Limits = Limits()
    give_up_s: float = Field(default=86_400.0, gt=0.0, le=30 * 86_400.0)  # for a step that proves nothing

    @model_validator(mode="after")
    def _grow(self) -> Rollout:
        shares = [step.share for step in self.steps]
        if shares != sorted(set(shares)) or self.step >= len(shares):
            raise ValueError(f"shares {shares} must grow, and step {self.step} be one of them, counted from 0")
        return self


class ServingDocument(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    generation: Annotated[int, Field(ge=1, le=MAX_VERSION)]  # one more with every change, for writers and replicas
    policy: Literal["follow", "hold"] = "follow"  # stable: the newest accepted version, or the one that `labels` names
    labels: dict[Label, Number] = Field(default_factory=dict, max_length=16)
    canary: Canary | None = None
    shadow: Shadow | None = None
    rollout: Rollout | None = None  # of the canary
    grace_s: float = Field(600.0, ge=0.0, le=_LONGEST_GRACE_S)  # the old stable stays loaded for so long
    # A request without a deadline is refused where it could not be answered within it; None: the server's objective.
    objective_ms: float | None = Field(None, ge=SHORTEST_OBJECTIVE_MS, le=LONGEST_OBJECTIVE_MS)
    changed_at: str = Field("", max_length=64)
    changed_by: str = Field("", max_length=256)
    reason: str = Field("", max_length=1000)

    @model_validator(mode="after")
    def _agree(self) -> ServingDocument:
        if (self.policy == "hold") != (STABLE in self.labels):
            raise ValueError(
                f"policy {self.policy!r} and labels {sorted(self.labels)} contradict each other: "
                "`hold` needs a label `stable`, and `follow` takes the newest accepted version as stable"
            )
        if self.canary is not None and (self.canary.version == self.labels.get(STABLE) or "canary" in self.labels):
            raise ValueError(
                f"version {self.canary.version} is the canary; it cannot be stable, nor a label another one"
            )
        if self.shadow is not None and self.shadow.version == self.labels.get(STABLE):
            raise ValueError(f"version {self.shadow.version} is stable and cannot be its own shadow")
        if self.rollout is not None:
            share = self.rollout.steps[self.rollout.step].share
            if self.canary is None or self.canary.share != share or self.policy != "hold":
                raise ValueError(f"step {self.rollout.step} needs policy `hold`, and a canary with a share of {share}")
        return self

    @property
    def named(self) -> frozenset[int]:
        """The versions that it names."""
        trials = [trial.version for trial in (self.canary, self.shadow) if trial is not None]
        return frozenset({*self.labels.values(), *trials})


def document_from(raw: bytes, where: object) -> ServingDocument:
    """Parses a document. Raises ServingRefused with the reason in one line."""
    if len(raw) > MOST_DOCUMENT_BYTES:
        raise ServingRefused(f"{where} has {len(raw)} bytes, allowed are {MOST_DOCUMENT_BYTES}")
    try:
        return ServingDocument.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the document"
        newer = f"; this saccade reads schema_version {_SCHEMA_VERSION}" if key == "schema_version" else ""
        raise ServingRefused(f"{where}: {key}: {first['msg']}{newer}") from error


def document_bytes(document: ServingDocument) -> bytes:
    return document.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"


def ensure_present(document: ServingDocument, versions: Sequence[int]) -> None:
    """Raises ServingRefused where it names a version that the repository does not have."""
    absent = sorted(document.named - set(versions))
    if absent:
        known = ", ".join(map(str, versions)) or "none"
        raise ServingRefused(f"generation {document.generation} names version {absent[0]}; there are: {known}")


def document_path(repository: Path, serving_dir: Path | None, model: str) -> Path:
    return repository / model / SERVING_NAME if serving_dir is None else serving_dir / f"{model}.json"


def read_document(path: Path) -> ServingDocument | None:
    """Reads a document; None where there is none. Links are followed, because a ConfigMap consists of them.

    Raises ServingRefused.
    """
    try:
        with open_plain(path) as file:
            return document_from(file.read(MOST_DOCUMENT_BYTES + 1), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServingRefused(f"cannot read {path}: {error.strerror}") from error
