"""The desired state of one model, `serving.json`: which version each traffic label names. Read strictly.

It lies beside the versions, or as `<model>.json` in SACCADE_SERVING_DIR, where a ConfigMap can be mounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from saccade.models.contract.manifest import MAX_VERSION
from saccade.service.core import STABLE
from saccade.service.errors import RepositoryError

SERVING_NAME = "serving.json"
_SCHEMA_VERSION = 1
_MOST_BYTES = 64 * 1024
_LONGEST_GRACE_S = 7 * 86_400.0
_LONGEST_OBJECTIVE_MS = 3_600_000.0
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


class ServingDocument(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    generation: Annotated[int, Field(ge=1, le=MAX_VERSION)]  # one more with every change, for writers and replicas
    policy: Literal["follow", "hold"] = "follow"  # stable: the newest accepted version, or the one that `labels` names
    labels: dict[Label, Number] = Field(default_factory=dict, max_length=16)
    canary: Canary | None = None
    grace_s: float = Field(600.0, ge=0.0, le=_LONGEST_GRACE_S)  # the old stable stays loaded for so long
    # A request without a deadline is refused where it could not be answered within it; None: the server's objective.
    objective_ms: float | None = Field(None, gt=0.0, le=_LONGEST_OBJECTIVE_MS)
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
        return self

    @property
    def named(self) -> frozenset[int]:
        """The versions that it names."""
        return frozenset({*self.labels.values(), *([self.canary.version] if self.canary else [])})


def document_from(raw: bytes, where: object) -> ServingDocument:
    """Parses a document. Raises ServingRefused with the reason in one line."""
    if len(raw) > _MOST_BYTES:
        raise ServingRefused(f"{where} has {len(raw)} bytes, allowed are {_MOST_BYTES}")
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
        with path.open("rb") as file:
            return document_from(file.read(_MOST_BYTES + 1), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServingRefused(f"cannot read {path}: {error.strerror}") from error
