"""Reads the documents of desired state; the last good one of a model rules while a newer one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from saccade.service.core import STABLE
from saccade.service.repository.open import Listing
from saccade.service.repository.serving_document import (
    ServingDocument,
    ServingRefused,
    document_path,
    ensure_present,
    read_document,
)
from saccade.service.repository.serving_history import KEPT, serving_history
from saccade.service.supervisor.policy import BLOCKED, FOLLOW, ServingPolicy, pinned, policy_from

log = structlog.get_logger()

_MOST_BEFORE = 16  # documents that are read for what was stable before: a server that starts reads all models'


@dataclass(frozen=True, slots=True)
class Ruling:
    """What rules a model: a document, or without one the newest version; and why a newer document does not."""

    document: ServingDocument | None = None
    problem: str = ""
    is_blocked: bool = False
    before: tuple[int, ...] = ()  # what the history's documents held as stable before, the latest first

    @property
    def policy(self) -> ServingPolicy:
        if self.is_blocked:
            return BLOCKED
        return FOLLOW if self.document is None else policy_from(self.document)


class ServingDocuments:
    """What rules each model of one repository. `look` reads files, so it is called in a thread."""

    def __init__(self, repository: Path, serving_dir: Path | None, pins: Mapping[str, int]) -> None:
        self._repository = repository
        self._serving_dir = serving_dir
        self._pins = pins

    def look(self, listing: Listing, before: Mapping[str, Ruling]) -> dict[str, Ruling]:
        """Returns what rules each listed model, given what did before."""
        models = {found.key.model for found in listing.versions} | before.keys()
        return {model: self._ruling(model, listing.of(model), before.get(model)) for model in sorted(models)}

    def policies(self, rulings: Mapping[str, Ruling]) -> dict[str, ServingPolicy]:
        """Returns the policy of each model; a pin wins over a document."""
        pins = {model: pinned(version) for model, version in self._pins.items()}
        return {**{model: ruling.policy for model, ruling in rulings.items()}, **pins}

    def _ruling(self, model: str, versions: list[int], before: Ruling | None) -> Ruling:
        try:
            document = read_document(document_path(self._repository, self._serving_dir, model))
            if document is None:
                return Ruling()
            if before is not None and document == before.document:
                return replace(before, problem="")  # its versions were there when it began to rule
            ensure_present(document, versions)
        except ServingRefused as error:
            if before is not None:
                return replace(before, problem=str(error))
            last = next((each for each in self._history(model) if each.named <= {*versions}), None)
            return Ruling(last, str(error), last is None, self._stable_before(model, last))
        if model in self._pins:
            return Ruling(
                None, f"generation {document.generation} does not count: SACCADE_SERVE_VERSIONS names {model}"
            )
        return Ruling(document, before=self._stable_before(model, document))

    def _history(self, model: str, most: int = KEPT) -> list[ServingDocument]:
        """Returns the documents before, newest first; a server that starts knows no others."""
        return serving_history(self._repository, model, most) if self._serving_dir is None else []

    def _stable_before(self, model: str, document: ServingDocument | None) -> tuple[int, ...]:
        earlier = self._history(model, _MOST_BEFORE) if document is not None and STABLE in document.labels else []
        held = (each.labels.get(STABLE) for each in earlier if document and each.generation < document.generation)
        return tuple(dict.fromkeys(version for version in held if version is not None))


def has_new_problem(before: Mapping[str, Ruling], now: Mapping[str, Ruling]) -> bool:
    return any(ruling.problem not in ("", before.get(model, Ruling()).problem) for model, ruling in now.items())


def log_changes(before: Mapping[str, Ruling], now: Mapping[str, Ruling]) -> None:
    for model, ruling in now.items():
        last = before.get(model, Ruling())
        if ruling.problem and ruling.problem != last.problem:
            log.error("serving_refused", model=model, reason=ruling.problem)
        document = ruling.document
        if document is None and last.document is not None:
            log.info("serving_removed", model=model)
        elif document is not None and document != last.document:
            fields = {"policy": document.policy, "labels": document.labels, "reason": document.reason}
            log.info("serving_changed", model=model, generation=document.generation, by=document.changed_by, **fields)
