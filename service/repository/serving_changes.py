"""What operators ask of a model's `serving.json`, as pure changes of the present document, and the one writer of them.

`saccade rollout` and `/admin/v1` both ask here. A change returns the fields that it sets; all others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from saccade.models.contract.manifest import ManifestError, manifest_from_bytes
from saccade.service.core import STABLE
from saccade.service.errors import NotFound, RepositoryError
from saccade.service.repository.object_store.address import url_of_copy
from saccade.service.repository.open import list_repository
from saccade.service.repository.serving_document import (
    Limits,
    Rollout,
    ServingDocument,
    ServingRefused,
    Step,
    document_path,
    read_document,
)
from saccade.service.repository.serving_history import ServingConflict, serving_history, write_document
from saccade.service.repository.verify import manifest_bytes, verify_version

if TYPE_CHECKING:
    from saccade.service.repository.object_store.documents import StoredModel

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for a change of which model, and of which generation; None: of the present one."""

    root: Path
    model: str
    by: str
    reason: str = ""
    expected_generation: int | None = None
    serving_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """A model as its repository has it, which changes start from."""

    model: str
    versions: list[int]
    document: ServingDocument | None = None
    history: Sequence[ServingDocument] = ()  # newest first
    refusal: Callable[[int], str] = lambda version: ""  # why no server would load a version; "" where one would

    @property
    def labels(self) -> dict[str, int]:
        return dict(self.document.labels) if self.document else {}

    @property
    def stable(self) -> int | None:
        """The version that the document holds as stable; None where stable follows the newest."""
        return self.labels.get(STABLE)

    @property
    def listed(self) -> str:
        return ", ".join(map(str, self.versions)) or "none"


Change = Callable[[Present], Fields]


def changed(asked: Asked, change: Change) -> ServingDocument:
    """Writes the next generation, once every version that it newly names was verified, and returns it.

    Raises ServingConflict for another generation than the expected one, NotFound for a model without versions, and
    RepositoryError where the change contradicts itself, names what no server would load, or cannot be written.
    """
    if asked.serving_dir is not None:
        raise RepositoryError(
            f"SACCADE_SERVING_DIR is {asked.serving_dir}, so {asked.model}.json there rules: "
            "change it where it comes from, such as a ConfigMap"
        )
    there = present_of(asked.root, None, asked.model)
    history = serving_history(asked.root, asked.model)
    present = replace(there, history=history, refusal=partial(_refusal, asked))
    document = present.document
    generation = document.generation if document else 0
    if asked.expected_generation is not None and asked.expected_generation != generation:
        raise ServingConflict(f"expected generation {asked.expected_generation}, there is {generation}: look again")
    values = {
        **(document.model_dump() if document else {}),
        **change(present),
        "generation": generation + 1,
        "changed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed_by": asked.by,
        "reason": asked.reason,
    }
    try:
        new = ServingDocument.model_validate(values)
    except ValueError as error:
        raise ServingRefused(f"{asked.model}: {first_line(error)}") from error
    _verify(asked, present, new.named - (document.named if document else frozenset()))
    write_document(asked.root, asked.model, new, generation)
    return new


def is_unjudged(asked: Asked, version: int) -> bool:
    """Whether servers refuse a version unless SACCADE_ALLOW_UNJUDGED is set; False where its manifest is not there."""
    try:
        return not manifest_from_bytes(manifest_bytes(_directory(asked, version))).judged
    except (RepositoryError, ManifestError):
        return False


def present_of(root: Path, serving_dir: Path | None, model: str) -> Present:
    """What rules a model. Raises NotFound for a model without versions, RepositoryError for a damaged document."""
    stored = _stored(root, model)
    versions = list_repository(root).of(model) if stored is None else stored.refresh()
    if not versions:
        raise NotFound(f"no version of {model!r} in {url_of_copy(root) or root}")
    return Present(model, versions, read_document(document_path(root, serving_dir, model)))


def labelled(label: str, version: int | None) -> Change:
    """Has a label name a version; None removes it."""

    def change(present: Present) -> Fields:
        labels = present.labels
        if label == STABLE:
            raise ServingRefused("which version is stable is said by a promotion or a rollback, not by a label")
        if version is not None:
            return {"labels": {**labels, label: version}}
        if label not in labels:
            known = ", ".join(labels) or "none"
            raise ServingRefused(f"{present.model!r} has no label {label!r}; there are: {known}")
        del labels[label]
        return {"labels": labels}

    return change


def with_canary(version: int | None, share: float) -> Change:
    """Has a version answer a share of the requests; None ends that. An automatic rollout ends."""
    canary = None if version is None else {"version": version, "share": share, "salt": ""}
    return lambda present: {"canary": canary, "rollout": None}


def with_objective(objective_ms: float | None) -> Change:
    """Has requests without a deadline be answered within it, or refused; None: the server's objective."""
    return lambda present: {"objective_ms": objective_ms}


def with_shadow(version: int | None, sample: float) -> Change:
    """Has a version asked about a share of the images that stable answered; None ends that."""

    def change(present: Present) -> Fields:
        if version is None and (present.document is None or present.document.shadow is None):
            raise ServingRefused(f"{present.model!r} has no shadow")
        return {"shadow": None if version is None else {"version": version, "sample": sample}}

    return change


def following() -> Change:
    """Makes stable the newest accepted version again, whichever that is."""

    def change(present: Present) -> Fields:
        labels = {label: version for label, version in present.labels.items() if label != STABLE}
        return {"policy": "follow", "labels": labels, "rollout": None}

    return change


def promoted(version: int | None = None, label: str | None = None) -> Change:
    """Makes a version stable and holds it: the number, what the label names, or without either the canary."""

    def change(present: Present) -> Fields:
        document, labels = present.document, present.labels
        canary, shadow = (document.canary, document.shadow) if document else (None, None)
        if label is not None and label not in labels:
            known = ", ".join(labels) or "none"
            raise ServingRefused(f"{present.model!r} has no label {label!r}; there are: {known}")
        chosen = labels[label] if label is not None else version
        if chosen is None:
            if canary is None:
                raise ServingRefused("name a version or a label: there is no canary")
            chosen = canary.version
        kept = {"canary": canary, "shadow": shadow}
        trials = {
            name: trial.model_dump() if trial and trial.version != chosen else None for name, trial in kept.items()
        }
        return {"policy": "hold", "labels": {**labels, STABLE: chosen}, **trials, "rollout": None}

    return change


def rolled_back(version: int | None = None, given_up: Mapping[str, str] = MappingProxyType({})) -> Change:
    """Goes back to the stable version before, or to the given one, and holds it; canary and shadow are taken away.

    Without a history, that is the newest version but one. Versions that no server would load, and those in `given_up`,
    which a server quarantined or failed to load, with the reasons, are passed over unless `version` names them.
    """

    def change(present: Present) -> Fields:
        target = _before(present, given_up) if version is None else version
        labels = {**present.labels, STABLE: target}
        return {"policy": "hold", "labels": labels, "canary": None, "shadow": None, "rollout": None}

    return change


def started(version: int, steps: Sequence[Step], limits: Limits, sample: float) -> Change:
    """Has the server give a version more and more requests, then make it stable or take it back; sample 0: no shadow.

    Raises ValueError for shares that do not grow.
    """
    plan = Rollout(steps=tuple(steps), limits=limits)

    def change(present: Present) -> Fields:
        return {
            "policy": "hold",
            "labels": {**present.labels, STABLE: _kept_stable(present, version)},
            "canary": {"version": version, "share": plan.steps[0].share, "salt": ""},
            "shadow": {"version": version, "sample": sample} if sample else None,
            "rollout": plan.model_dump(),
        }

    return change


def first_line(error: ValueError) -> str:
    """Says the first complaint of a validation in one line."""
    details = getattr(error, "errors", None)
    if details is None:
        return str(error)
    first = details()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the change'}: {first['msg']}"


def _verify(asked: Asked, present: Present, versions: frozenset[int]) -> None:
    """Raises RepositoryError for a version that no server would load."""
    for version in sorted(versions):
        if version not in present.versions:
            where = url_of_copy(asked.root) or asked.root
            raise ServingRefused(f"{where} has no version {version} of {asked.model!r}; there are: {present.listed}")
        verify_version(_directory(asked, version))


def _refusal(asked: Asked, version: int) -> str:
    directory = _directory(asked, version)  # a store that does not answer ends the change
    try:
        verify_version(directory)
    except RepositoryError as error:
        return str(error)
    return ""


def _directory(asked: Asked, version: int) -> Path:
    stored = _stored(asked.root, asked.model)
    return asked.root / asked.model / str(version) if stored is None else stored.bring(version)


def _stored(root: Path, model: str) -> StoredModel | None:
    """The model in the object store that `root` is a copy of; None for a repository in a directory."""
    url = url_of_copy(root)
    if url is None:
        return None
    # Imported here: a repository in a directory needs nothing of object stores.
    from saccade.service.repository.object_store.documents import StoredModel

    return StoredModel(url, root, model)


def _before(present: Present, given_up: Mapping[str, str]) -> int:
    """Returns the version that was stable before the present one, or else the newest older one, of those that can."""
    generation = present.document.generation if present.document else 0
    now = present.stable if present.stable is not None else max(present.versions, default=0)
    earlier = [each.labels.get(STABLE, now) for each in present.history if each.generation < generation]
    older = [number for number in reversed(present.versions) if number < now]
    passed_over = ""
    for version in dict.fromkeys((*earlier, *older)):
        if version == now or version not in present.versions:
            continue
        reason = given_up.get(str(version)) or present.refusal(version)
        if not reason:
            return version
        passed_over += f"; version {version} is passed over: {reason}"
    raise ServingRefused(
        f"{present.model!r} has no version before {now}; there are: {present.listed}; name one{passed_over}"
    )


def _kept_stable(present: Present, candidate: int) -> int:
    """Returns the version that is stable while the candidate is tried: the present one, or the newest other one."""
    if present.stable is not None:
        return present.stable
    others = [number for number in present.versions if number != candidate]
    if not others:
        raise ServingRefused(f"{present.model!r} has no other version than {candidate}; there are: {present.listed}")
    return others[-1]
