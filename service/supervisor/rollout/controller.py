"""Carries automatic rollouts on: one thin loop, which asks `decide.py` and writes the document as a person would.

A document is replaced only if its generation is still the one that was judged, so that of two servers of a repository,
or of a server and a person, one wins and the other looks again. Counts belong to one generation and begin anew with it;
servers of one repository tell each other theirs (`shared_counts.py`).
"""

from __future__ import annotations

import asyncio
import copy
import math
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from saccade.service.core import STABLE, VersionKey, VersionState
from saccade.service.errors import RepositoryError
from saccade.service.ipc.messages import VersionTally
from saccade.service.repository.serving_document import ServingDocument
from saccade.service.repository.serving_history import write_document
from saccade.service.settings import Settings
from saccade.service.supervisor.facts import instances_by_version
from saccade.service.supervisor.observed import Observed
from saccade.service.supervisor.repository_watch import RepositoryWatch
from saccade.service.supervisor.rollout.decide import Arm, Decision, decide
from saccade.service.supervisor.rollout.shared_counts import exchanged, this_server
from saccade.service.supervisor.state import Ready, Refused, version_state

log = structlog.get_logger()

_PERIOD_S = 0.5  # as often as API processes tell their counts
_EXCHANGE_PERIOD_S = 1.0
_READ_ONLY = "SACCADE_SERVING_DIR rules, so the document is changed where it comes from"


@dataclass(slots=True)
class _Trial:
    """The counts of one generation of one model's document."""

    generation: int
    began_s: float | None = None  # when the canary was ready
    arms: dict[int, Arm] = field(default_factory=dict)  # by version
    elsewhere: dict[int, Arm] = field(default_factory=dict)  # what other servers of the repository counted
    exchanged_s: float = -math.inf
    is_alone: bool = False  # counts cannot be exchanged
    state: str = ""
    is_written: bool = False

    def arm(self, version: int) -> Arm:
        """Returns what all servers counted of a version."""
        total = Arm()
        for arms in (self.arms, self.elsewhere):
            if version in arms:
                total.add(arms[version])
        return total


class Rollouts:
    """The automatic rollouts of one server; only the supervisor's event loop may call it."""

    def __init__(self, settings: Settings, watch: RepositoryWatch, observed: Observed) -> None:
        self._settings = settings
        self._watch = watch
        self._observed = observed
        self._trials: dict[str, _Trial] = {}
        self._name = this_server()

    def state(self, model: str) -> str:
        """Returns in words where the rollout of a model stands; empty without one."""
        ruling = self._watch.rulings.get(model)
        document = None if ruling is None else ruling.document
        if document is None or document.rollout is None:
            return ""
        share = document.rollout.steps[document.rollout.step].share
        return f"step {document.rollout.step + 1} of {len(document.rollout.steps)}: {share:.3g} of the requests"

    def told(self, tallies: Iterable[VersionTally]) -> None:
        """Adds the counts of an API process."""
        for tally in tallies:
            trial = self._trials.get(tally.model)
            if trial is None or trial.generation != tally.generation:
                continue
            arm = trial.arms.setdefault(tally.version, Arm())
            arm.answered += tally.answered
            arm.errors += tally.errors
            arm.compared += tally.compared
            arm.agreement += tally.agreement
            for number, count in tally.latencies:
                arm.latencies[number] += count

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                await self._look(time.monotonic())
            except Exception:  # the last stop: the step stays as it is, and the next look tries again
                log.exception("rollout_look_failed")

    async def _look(self, now_s: float) -> None:
        under_way = {
            model: ruling.document
            for model, ruling in self._watch.rulings.items()
            if ruling.document is not None and ruling.document.rollout is not None
        }
        self._trials = {model: trial for model, trial in self._trials.items() if model in under_way}
        for model, document in under_way.items():
            trial = self._trials.get(model)
            if trial is None or trial.generation != document.generation:
                trial = self._trials[model] = _Trial(document.generation)
            await self._exchange(model, trial, now_s)
            decision = self._decision(model, document, trial, now_s)
            said = f"{decision.kind}: {decision.reason}"
            if said.partition(":")[0] != trial.state.partition(":")[0]:
                log.info("rollout_judged", model=model, generation=document.generation, decision=said)
            trial.state = said
            if decision.kind != "hold" and not trial.is_written:
                trial.is_written = True
                await self._write(model, document, decision)

    async def _exchange(self, model: str, trial: _Trial, now_s: float) -> None:
        if trial.is_alone or now_s - trial.exchanged_s < _EXCHANGE_PERIOD_S:
            return
        trial.exchanged_s = now_s
        given = {version: copy.deepcopy(arm) for version, arm in trial.arms.items()}
        place = (self._settings.repository, model, trial.generation, self._name)
        try:
            trial.elsewhere = await asyncio.to_thread(exchanged, *place, given)
        except OSError as error:  # a read-only volume: this server judges by its own requests
            trial.is_alone = True
            log.info("rollout_counts_not_shared", model=model, generation=trial.generation, why=error.strerror)

    def _decision(self, model: str, document: ServingDocument, trial: _Trial, now_s: float) -> Decision:
        assert document.canary is not None  # a document with a rollout has one
        assert document.rollout is not None
        key = VersionKey(model, document.canary.version)
        version = self._observed.versions.get(key)
        instances = instances_by_version(self._observed.instances).get(key, {})
        if version is not None:
            if isinstance(version.check, Refused):
                return Decision("back", f"version {key.version} was refused: {version.check.reason}")
            if version.quarantine is not None:
                return Decision("back", f"version {key.version} was quarantined: {version.quarantine.reason}")
            if version_state(version, instances.values()) is VersionState.FAILED:
                return Decision("back", f"version {key.version} failed")
        if trial.began_s is None:
            if not any(isinstance(state, Ready) for state in instances.values()):
                return Decision("hold", f"version {key.version} is being loaded")
            trial.began_s = now_s
        stable, canary = (trial.arm(number) for number in (document.labels[STABLE], key.version))
        has_shadow = document.shadow is not None and document.shadow.version == key.version
        return decide(document.rollout, now_s - trial.began_s, stable, canary, has_shadow=has_shadow)

    async def _write(self, model: str, document: ServingDocument, decision: Decision) -> None:
        fields = {"model": model, "generation": document.generation + 1, "reason": decision.reason}
        if self._settings.serving_dir is not None:
            log.warning("rollout_not_written", **fields, decision=decision.kind, why=_READ_ONLY)
            return
        changed = after(document, decision)
        try:
            await asyncio.to_thread(write_document, self._settings.repository, model, changed, document.generation)
        except RepositoryError as error:  # somebody else was first, or the volume is read-only
            log.warning("rollout_not_written", **fields, decision=decision.kind, why=str(error))
            return
        event = "rollout_taken_back" if decision.kind == "back" else "rollout_went_on"
        log.info(event, **fields, is_over=changed.rollout is None)


def after(document: ServingDocument, decision: Decision) -> ServingDocument:
    """Returns the document that follows: the next step, the canary as stable, or stable alone as before."""
    assert document.canary is not None
    assert document.rollout is not None
    values: dict[str, Any] = {
        **document.model_dump(),
        "generation": document.generation + 1,
        "changed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed_by": f"saccade at {socket.gethostname()}"[:256],
        "reason": decision.reason[:1000],
    }
    step, version = document.rollout.step + 1, document.canary.version
    if decision.kind == "next" and step < len(document.rollout.steps):
        values["rollout"]["step"] = step
        values["canary"]["share"] = document.rollout.steps[step].share
        return ServingDocument.model_validate(values)
    if decision.kind == "next":
        values["labels"] = {**document.labels, STABLE: version}
    if document.shadow is not None and document.shadow.version == version:
        values["shadow"] = None
    return ServingDocument.model_validate({**values, "canary": None, "rollout": None})
