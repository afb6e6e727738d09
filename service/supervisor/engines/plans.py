"""The plans of all versions on all GPUs: it keeps what was decided on each, and builds one plan at a time.

`plan_decision.py` decides, again after each change; `supervisor/desired.py` says what follows for instances. Nothing is
sent to workers from here, so a build that fails does not change what serves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from saccade.service.core import VersionKey
from saccade.service.device_names import worker_environment
from saccade.service.errors import RepositoryError
from saccade.service.ipc.child_process import inherited_environment
from saccade.service.ipc.messages import DeviceFacts, EngineStatus
from saccade.service.repository.build_marks import build_marks
from saccade.service.repository.plan_seal import engines_secret
from saccade.service.repository.plans import PlanStore
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.settings import Settings
from saccade.service.supervisor.engines.build_child import run_build
from saccade.service.supervisor.engines.build_wire import BuildOrder, BuildOutcome, BuildProgress
from saccade.service.supervisor.engines.plan_decision import (
    MissingPlan,
    PlanDecision,
    PlanFacts,
    StoredRecord,
    decide,
    is_judged,
)
from saccade.service.supervisor.placement.specs import InstanceSpec, has_plans

log = structlog.get_logger()

_LOOK_AGAIN_S = 30.0  # time between readings of the plan store, into which other processes may put plans
Follow = Callable[[BuildProgress], None]


@dataclass(frozen=True, slots=True)
class StoreView:
    """The plans of a version in the store, and those that other servers build for it."""

    records: tuple[StoredRecord, ...]
    built_elsewhere: frozenset[str] = frozenset()  # folder names of plans


@dataclass(frozen=True, slots=True)
class PlanSources:
    """Where plans come from."""

    stored: Callable[[VersionKey], StoreView]  # reads the plan store; called in a thread
    build: Callable[[str, BuildOrder, Follow], Awaitable[BuildOutcome]]  # runs one build on a device


@dataclass(slots=True)
class _Place:
    """What is known of the plans of one version on one device."""

    version: VerifiedVersion
    decision: PlanDecision | str | None = None  # str: why the version never serves there
    attempts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)  # of failed builds, by variant
    broken: set[str] = field(default_factory=set)  # variants whose plan passed its gate, but could not be opened
    building: EngineStatus | None = None

    def count_failure(self, variant: str, reason: str) -> None:
        self.attempts[variant] += 1
        self.reasons[variant] = reason

    @property
    def missing(self) -> MissingPlan | None:
        """The plan to build here next."""
        plan = self.decision.build if isinstance(self.decision, PlanDecision) else None
        return None if plan is None or plan.is_built_elsewhere else plan


class Plans:
    """The plans of one server; only the supervisor's event loop may call it."""

    def __init__(self, settings: Settings, changed: Callable[[], None], sources: PlanSources | None = None) -> None:
        """`changed` is called with every new decision or status. Raises SettingsError for an unreadable secret."""
        self._settings = settings
        self._changed = changed
        self._sources = sources or _sources(settings)
        self._facts: dict[str, DeviceFacts] = {}
        self._places: dict[tuple[VersionKey, str], _Place] = {}
        self._wake = asyncio.Event()
        self._build_task: asyncio.Task[None] | None = None
        self.devices = tuple(device for device in settings.devices if has_plans(device, settings))

    @property
    def decisions(self) -> dict[tuple[VersionKey, str], PlanDecision | str]:
        """What was decided, by version and device; str: why the version never serves there."""
        return {place: each.decision for place, each in self._places.items() if each.decision is not None}

    def device_found(self, device: str, facts: DeviceFacts) -> None:
        """Notes what a worker found on its device; decisions wait for that."""
        self._facts[device] = facts
        self._wake.set()

    def follow(self, versions: Mapping[VersionKey, VerifiedVersion]) -> None:
        """Decides on these versions from now on, and forgets all others; a build that runs continues."""
        places = {(key, device): version for key, version in versions.items() for device in self.devices}
        if places.keys() != self._places.keys():
            self._places = {place: self._places.get(place) or _Place(version) for place, version in places.items()}
            self._wake.set()

    def not_opened(self, key: VersionKey, spec: InstanceSpec, reason: str) -> None:
        """Notes that a worker could not open an accepted plan; it counts as a failed build, and is built again."""
        place = self._places.get((key, spec.device))
        if place is None or not spec.plan_dir or not isinstance(place.decision, PlanDecision):
            return
        serving = [each for each in (place.decision.serve, *place.decision.cheaper) if each is not None]
        if spec.plan_sha256 in [each.plan_sha256 for each in serving]:
            place.broken.add(spec.variant)
            place.count_failure(spec.variant, reason)
            self._wake.set()

    async def run(self) -> None:
        """Decides and builds until cancelled, which kills a running build."""
        async with asyncio.TaskGroup() as builds:
            while True:
                self._wake.clear()
                for (key, device), place in sorted(self._places.items(), key=lambda item: -item[0][0].version):
                    await self._decide(key, device, place)
                self._start_build(builds)
                try:
                    await asyncio.wait_for(self._wake.wait(), _LOOK_AGAIN_S)
                except TimeoutError:
                    continue

    async def _decide(self, key: VersionKey, device: str, place: _Place) -> None:
        facts = self._facts.get(device)
        if facts is None:
            return
        view = await asyncio.to_thread(self._sources.stored, key)
        if self._places.get((key, device)) is not place:  # it was dropped meanwhile
            return
        decision: PlanDecision | str
        fields = {**key.fields, "device": device}
        try:
            decision = decide(self._situation(device, place, facts, view))
        except RepositoryError as error:
            decision = str(error)
        if decision == place.decision:
            return
        place.decision = decision
        if isinstance(decision, str):
            log.error("version_refused", **fields, reason=decision)
        elif decision.reason:
            log.info("engine_missing", **fields, reason=decision.reason)
        self._changed()

    def _situation(self, device: str, place: _Place, facts: DeviceFacts, view: StoreView) -> PlanFacts:
        settings = self._settings
        return PlanFacts(
            manifest=place.version.manifest,
            wanted_variant=settings.variant,
            backend=settings.backend,
            device=device,
            facts=facts,
            stored=tuple(each for each in view.records if each.record.variant not in place.broken),
            built_elsewhere=view.built_elsewhere,
            attempts=place.attempts,
            may_build=settings.build_engines,
            serve_while_building=settings.serve_while_building,
            ladder=settings.ladder_names,
        )

    def _start_build(self, builds: asyncio.TaskGroup) -> None:
        """Builds the first missing plan of the newest version; two builds would disturb each other's kernel timings."""
        if self._build_task is not None and not self._build_task.done():
            return
        for (key, device), place in sorted(self._places.items(), key=lambda item: -item[0][0].version):
            if place.missing is not None:
                self._build_task = builds.create_task(self._build(key, device, place, place.missing))
                return

    async def _build(self, key: VersionKey, device: str, place: _Place, missing: MissingPlan) -> None:
        variant = missing.variant
        fields = {**key.fields, "variant": variant, "device": device}
        log.info("engine_building", **fields, plan=missing.key.place)
        self._show(place, EngineStatus(device, variant, "building", plan=missing.key.place))

        def follow(progress: BuildProgress) -> None:
            if place.building is not None:
                shown = {"stage": progress.stage.value, "share": round(progress.share, 2)}
                self._show(place, msgspec.structs.replace(place.building, **shown))

        try:
            outcome = await self._sources.build(device, self._order(place, missing), follow)
        finally:
            self._show(place, None)
        place.broken.discard(variant)
        is_stored = is_judged((await asyncio.to_thread(self._sources.stored, key)).records, missing)
        if outcome.accepted and is_stored:
            log.info("engine_ready", **fields, plan=outcome.plan_dir)
        elif outcome.denied and is_stored:
            log.warning("engine_denied", **fields, reason=outcome.reason)
        else:
            # A plan that the store does not show counts as failed, or it would be built again for ever.
            reason = outcome.reason or f"it was built, but {self._settings.engines_root} does not show it"
            place.count_failure(variant, reason)
            log.error("engine_failed", **fields, reason=reason)
        self._wake.set()

    def _order(self, place: _Place, missing: MissingPlan) -> BuildOrder:
        key_file = self._settings.engines_key_file
        return BuildOrder(
            version_dir=str(place.version.path),
            manifest_sha256=place.version.manifest_sha256,
            variant=missing.variant,
            engines_dir=str(self._settings.engines_root),
            engines_key_file=str(key_file) if key_file else "",
            key_json=missing.key.model_dump_json(),
            anew=missing.variant in place.broken,
        )

    def _show(self, place: _Place, status: EngineStatus | None) -> None:
        if status != place.building:
            place.building = status
            self._changed()

    def statuses(self, key: VersionKey) -> tuple[EngineStatus, ...]:
        """Returns the visible statuses of one version's plans."""
        return tuple(status for device in self.devices for status in self._statuses_on(key, device))

    def _statuses_on(self, key: VersionKey, device: str) -> Iterator[EngineStatus]:
        place = self._places.get((key, device))
        if place is None or not isinstance(place.decision, PlanDecision):
            return
        missing, serve = place.decision.build, place.decision.serve
        if place.building is not None:
            yield place.building
        elif missing is not None:
            reason = "another server builds it" if missing.is_built_elsewhere else ""
            yield EngineStatus(device, missing.variant, "waiting", plan=missing.key.place, reason=reason)
        if serve is not None and serve.plan_dir:
            yield EngineStatus(
                device, serve.variant, "ready", "", 1.0, Path(serve.plan_dir).name, "", serve.images_per_s
            )
        for variant, reason in place.reasons.items():
            yield EngineStatus(device, variant, "failed", reason=reason)
        if place.decision.reason:
            yield EngineStatus(device, "", "missing", reason=place.decision.reason)


def plan_store(settings: Settings) -> PlanStore:
    """Opens the store that the settings name. Raises SettingsError for a secret that cannot be read."""
    key_file = settings.engines_key_file
    return PlanStore(settings.engines_root, engines_secret(key_file) if key_file else None)


def _sources(settings: Settings) -> PlanSources:
    """Returns the plan store that the settings name, and builds in a child process."""
    store = plan_store(settings)

    def stored(key: VersionKey) -> StoreView:
        """Damaged plans are left out, and so built again."""
        records = tuple(
            StoredRecord(each.record, str(each.directory)) for each in store.survey(key.model, key.version).plans
        )
        marks = build_marks(store.root, key.model, key.version)
        return StoreView(records, frozenset(mark.place for mark in marks if not mark.is_ours))

    async def build(device: str, order: BuildOrder, follow: Follow) -> BuildOutcome:
        environment = worker_environment(device, inherited_environment())
        return await run_build(order, environment, settings.build_silence_ms / 1000, follow, _note)

    return PlanSources(stored, build)


def _note(text: str) -> None:
    log.info("engine_build_says", text=text)
