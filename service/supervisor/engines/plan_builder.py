"""Keeps the TensorRT plans of all versions on one device; it decides after each change, and builds one plan at a time.

It calls `plan_decision.py`, tells the supervisor what must serve, and has missing plans built. It sends nothing to
workers itself, so a build that fails does not change what serves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from saccade.models.contract.manifest import Manifest
from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError
from saccade.service.ipc.messages import DeviceFacts, EngineStatus
from saccade.service.settings import Settings
from saccade.service.supervisor.engines.build_wire import BuildOrder, BuildOutcome, BuildProgress
from saccade.service.supervisor.engines.plan_decision import (
    MissingPlan,
    PlanDecision,
    PlanFacts,
    StoredRecord,
    decide,
    is_judged,
)

log = structlog.get_logger()

_LOOK_AGAIN_S = 30.0  # time between readings of the plan store, into which other processes may put plans
Follow = Callable[[BuildProgress], None]
RunBuild = Callable[[BuildOrder, Follow], Awaitable[BuildOutcome]]
"""Runs one build on this device, while no other build runs."""


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """The properties of a verified version that the builder reads."""

    key: VersionKey
    manifest: Manifest
    manifest_sha256: str
    version_dir: Path


@dataclass(frozen=True, slots=True)
class PlanBuilderEvents:
    """The functions that are called about a version, by its key and the device."""

    decided: Callable[[VersionKey, str, PlanDecision], None]  # called with each new decision
    refused: Callable[[VersionKey, str, str], None]  # called with the reason why it can never serve there
    changed: Callable[[], None]  # called when a visible status has changed


@dataclass(frozen=True, slots=True)
class StoreView:
    """The plans of a version in the store, and those that other servers build for it."""

    records: tuple[StoredRecord, ...]
    built_elsewhere: frozenset[str] = frozenset()  # folder names of plans


class PlanBuilder:
    """The plans of one device; only the supervisor's event loop may call it."""

    def __init__(
        self,
        device: str,
        settings: Settings,
        stored: Callable[[VersionKey], StoreView],
        run_build: RunBuild,
        events: PlanBuilderEvents,
    ) -> None:
        """`stored` reads the plan store; it is called in a thread."""
        self._device = device
        self._settings = settings
        self._stored = stored
        self._run_build = run_build
        self._events = events
        self._facts: DeviceFacts | None = None
        self._versions: dict[VersionKey, ServedVersion] = {}
        self._decisions: dict[VersionKey, PlanDecision] = {}
        self._refusals: dict[VersionKey, str] = {}
        self._attempts: dict[VersionKey, Counter[str]] = {}
        self._reasons: dict[VersionKey, dict[str, str]] = {}  # reasons of failed builds, by variant
        self._broken: dict[VersionKey, set[str]] = {}  # variants whose plan passed its gate, but could not be opened
        self._building: EngineStatus | None = None
        self._building_of: VersionKey | None = None
        self._changed = asyncio.Event()

    def device_found(self, facts: DeviceFacts) -> None:
        """Notes what a worker found on the device; decisions wait for that."""
        self._facts = facts
        self._changed.set()

    def keep(self, version: ServedVersion) -> None:
        self._versions[version.key] = version
        self._changed.set()

    def drop(self, key: VersionKey) -> None:
        """Forgets a version that is being unloaded; a build of its plan continues, and the plan stays in the store."""
        tables = (self._versions, self._decisions, self._refusals, self._attempts, self._reasons, self._broken)
        for table in tables:
            table.pop(key, None)

    def plan_failed(self, key: VersionKey, variant: str, reason: str) -> None:
        """Notes that a worker could not open an accepted plan; it counts as a failed build, and is built again."""
        if key in self._versions:
            self._broken.setdefault(key, set()).add(variant)
            self._count_failure(key, variant, reason)
            self._changed.set()

    async def run(self) -> None:
        """Decides and builds until cancelled, which kills a running build."""
        while True:
            self._changed.clear()
            first = await self._decide_all()
            if first is not None:
                await self._build(*first)
                continue
            try:
                await asyncio.wait_for(self._changed.wait(), _LOOK_AGAIN_S)
            except TimeoutError:
                continue

    async def _decide_all(self) -> tuple[ServedVersion, MissingPlan] | None:
        """Decides on all versions, and returns the first missing plan of the newest version that has one."""
        first: tuple[ServedVersion, MissingPlan] | None = None
        for version in sorted(self._versions.values(), key=lambda item: -item.key.version):
            decision = await self._decide(version)
            missing = None if decision is None else decision.build
            if missing is not None and not missing.is_built_elsewhere and first is None:
                first = (version, missing)
        return first

    async def _decide(self, version: ServedVersion) -> PlanDecision | None:
        facts = self._facts
        if facts is None:
            return None
        view = await self._usable(version.key)
        if version.key not in self._versions:  # it was dropped meanwhile
            return None
        try:
            decision = decide(self._situation(version, facts, view))
        except RepositoryError as error:
            self._refuse(version.key, str(error))
            return None
        self._refusals.pop(version.key, None)
        if decision != self._decisions.get(version.key):
            self._decisions[version.key] = decision
            self._events.decided(version.key, self._device, decision)
        return decision

    def _refuse(self, key: VersionKey, reason: str) -> None:
        self._decisions.pop(key, None)
        if self._refusals.get(key) != reason:
            self._refusals[key] = reason
            self._events.refused(key, self._device, reason)

    async def _usable(self, key: VersionKey) -> StoreView:
        view = await asyncio.to_thread(self._stored, key)
        broken = self._broken.get(key, set())
        records = tuple(each for each in view.records if each.record.variant not in broken)
        return StoreView(records, view.built_elsewhere)

    def _situation(self, version: ServedVersion, facts: DeviceFacts, view: StoreView) -> PlanFacts:
        return PlanFacts(
            manifest=version.manifest,
            wanted_variant=self._settings.variant,
            backend=self._settings.backend,
            device=self._device,
            facts=facts,
            stored=view.records,
            built_elsewhere=view.built_elsewhere,
            attempts=self._attempts.get(version.key, Counter()),
            may_build=self._settings.build_engines,
            serve_while_building=self._settings.serve_while_building,
            ladder=self._settings.ladder_names,
        )

    async def _build(self, version: ServedVersion, missing: MissingPlan) -> None:
        key = version.key
        fields = {"model": key.model, "version": key.version, "variant": missing.variant, "device": self._device}
        log.info("engine_building", **fields, plan=missing.key.place)
        self._show(key, EngineStatus(self._device, missing.variant, "building", plan=missing.key.place))
        try:
            outcome = await self._run_build(self._order(version, missing), self._follow)
        finally:
            self._building, self._building_of = None, None
            self._events.changed()
        self._broken.get(key, set()).discard(missing.variant)
        is_stored = is_judged((await self._usable(key)).records, missing)
        if outcome.accepted and is_stored:
            log.info("engine_ready", **fields, plan=outcome.plan_dir)
        elif outcome.denied and is_stored:
            log.warning("engine_denied", **fields, reason=outcome.reason)
        else:
            # A plan that the store does not show counts as failed, or it would be built again for ever.
            reason = outcome.reason or f"it was built, but {self._settings.engines_root} does not show it"
            self._count_failure(key, missing.variant, reason)
            log.error("engine_failed", **fields, reason=reason)

    def _order(self, version: ServedVersion, missing: MissingPlan) -> BuildOrder:
        key_file = self._settings.engines_key_file
        return BuildOrder(
            version_dir=str(version.version_dir),
            manifest_sha256=version.manifest_sha256,
            variant=missing.variant,
            engines_dir=str(self._settings.engines_root),
            engines_key_file=str(key_file) if key_file else "",
            key_json=missing.key.model_dump_json(),
            anew=missing.variant in self._broken.get(version.key, set()),
        )

    def _follow(self, progress: BuildProgress) -> None:
        if self._building is not None and self._building_of is not None:
            shown = msgspec.structs.replace(self._building, stage=progress.stage.value, share=round(progress.share, 2))
            self._show(self._building_of, shown)

    def _show(self, key: VersionKey, status: EngineStatus) -> None:
        if status != self._building:
            self._building, self._building_of = status, key
            self._events.changed()

    def _count_failure(self, key: VersionKey, variant: str, reason: str) -> None:
        self._attempts.setdefault(key, Counter())[variant] += 1
        self._reasons.setdefault(key, {})[variant] = reason

    def statuses(self, key: VersionKey) -> Iterator[EngineStatus]:
        """Yields the visible statuses of one version's plans on this device."""
        decision = self._decisions.get(key)
        if decision is None:
            return
        if self._building_of == key and self._building is not None:
            yield self._building
        elif decision.build is not None:
            missing = decision.build
            reason = "another server builds it" if missing.is_built_elsewhere else ""
            yield EngineStatus(self._device, missing.variant, "waiting", plan=missing.key.place, reason=reason)
        if decision.serve is not None and decision.serve.plan_dir:
            place = Path(decision.serve.plan_dir).name
            serve = decision.serve
            yield EngineStatus(self._device, serve.variant, "ready", "", 1.0, place, "", serve.images_per_s)
        for variant, reason in self._reasons.get(key, {}).items():
            yield EngineStatus(self._device, variant, "failed", reason=reason)
        if decision.reason:
            yield EngineStatus(self._device, "", "missing", reason=decision.reason)
