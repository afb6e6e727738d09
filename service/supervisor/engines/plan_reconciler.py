"""Applies decisions about TensorRT plans to the version table; what serves stays until its replacement is ready.

It handles only the devices on which TensorRT may serve; `serving.py` handles the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from saccade.models.contract.manifest import Manifest
from saccade.service.core import VersionKey, VersionState
from saccade.service.device_names import device_kind, worker_environment
from saccade.service.ipc.child_process import inherited_environment
from saccade.service.ipc.messages import DeviceFacts, EngineStatus
from saccade.service.repository.build_marks import build_marks
from saccade.service.repository.plan_seal import engines_secret
from saccade.service.repository.plans import PlanStore
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.settings import Settings
from saccade.service.supervisor.engines.build_child import run_build
from saccade.service.supervisor.engines.build_wire import BuildOrder, BuildOutcome
from saccade.service.supervisor.engines.plan_builder import (
    Follow,
    PlanBuilder,
    PlanBuilderEvents,
    ServedVersion,
    StoreView,
)
from saccade.service.supervisor.engines.plan_decision import PlanDecision, Serving, StoredRecord
from saccade.service.supervisor.version_entry import Instance, InstanceSpec
from saccade.service.supervisor.versions import VersionTable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PlanReconcilerEvents:
    """The functions of the supervisor that are called when something has changed."""

    instances_changed: Callable[[], None]  # there are instances to load or unload
    changed: Callable[[], None]  # a visible status has changed
    next_generation: Callable[[], int]  # number of the catalog that will be sent next


class PlanReconciler:
    """The plan builders of all devices, and their effects on one version table."""

    def __init__(self, settings: Settings, table: VersionTable, events: PlanReconcilerEvents) -> None:
        """Raises SettingsError when the secret of the plan store cannot be read."""
        self._settings = settings
        self._table = table
        self._events = events
        self._store = plan_store(settings)
        self._building = asyncio.Lock()  # one build at a time: two would disturb each other's kernel timings
        self._desired: dict[tuple[VersionKey, str], InstanceSpec] = {}
        self._cheaper: dict[tuple[VersionKey, str], tuple[InstanceSpec, ...]] = {}  # ladder levels from 1 on
        self._waiting: dict[VersionKey, dict[str, InstanceSpec | None]] = {}  # placed once all devices have decided
        builder_events = PlanBuilderEvents(self._decided, self._refused, events.changed)
        self._builders = {
            device: PlanBuilder(device, settings, self._stored, partial(self._build, device), builder_events)
            for device in settings.devices
            if may_use_tensorrt(device, settings)
        }

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices on which TensorRT may serve."""
        return tuple(self._builders)

    def runs(self) -> list[Coroutine[Any, Any, None]]:
        """Returns one coroutine to run per device, each until it is cancelled."""
        return [builder.run() for builder in self._builders.values()]

    def device_found(self, device: str, facts: DeviceFacts) -> None:
        if device in self._builders:
            self._builders[device].device_found(facts)

    def keep(self, version: VerifiedVersion) -> None:
        """Begins to serve a verified version."""
        manifest = version.manifest
        served = ServedVersion(_key(manifest), manifest, version.manifest_sha256, version.path)
        for builder in self._builders.values():
            builder.keep(served)

    def drop(self, key: VersionKey) -> None:
        """Forgets a version that is being unloaded."""
        self._waiting.pop(key, None)
        for device, builder in self._builders.items():
            builder.drop(key)
            self._desired.pop((key, device), None)
            self._cheaper.pop((key, device), None)

    def reported(self, key: VersionKey, instance: Instance) -> None:
        """Applies a worker's report: it releases replaced instances, and notes plans that could not be opened."""
        device = instance.spec.device
        levels = self._cheaper.get((key, device), ())
        if (
            instance.spec.ladder_level and instance.spec not in levels and device in self._builders
        ):  # it is no longer on the ladder
            self._table.release(key, instance, self._events.next_generation())
        if instance.spec not in (self._desired.get((key, device)), *levels):
            return
        if instance.state is VersionState.READY and instance.spec.ladder_level == 0:
            self._release_others(key, instance)
        elif instance.state is VersionState.FAILED and instance.spec.plan_dir and not instance.lacks_room:
            self._builders[device].plan_failed(key, instance.spec.variant, instance.reason)

    def statuses(self, key: VersionKey) -> tuple[EngineStatus, ...]:
        return tuple(status for builder in self._builders.values() for status in builder.statuses(key))

    def _decided(self, key: VersionKey, device: str, decision: PlanDecision) -> None:
        if decision.reason:
            log.info("engine_missing", model=key.model, version=key.version, device=device, reason=decision.reason)
        if decision.serve is None:
            if decision.build is not None and not self._table.instances(key, device):
                self._table.building(key, device, decision.build.variant)
            self._events.changed()
            return
        self._desire(key, device, _spec(device, decision.serve))
        self._desire_ladder(key, device, decision.cheaper)

    def _refused(self, key: VersionKey, device: str, reason: str) -> None:
        """Notes that a version can never serve on a device; instances that serve there stay."""
        log.error("version_refused", model=key.model, version=key.version, device=device, reason=reason)
        for instance in self._table.instances(key, device):
            if instance.state is VersionState.BUILDING:
                self._table.release(key, instance, self._events.next_generation())
        if not self._table.instances(key, device):
            self._table.cannot(key, device, reason)
        if self._settings.placement == "spread":
            self._spread(key, device, None)
        self._events.instances_changed()

    def _desire(self, key: VersionKey, device: str, spec: InstanceSpec) -> None:
        present = self._best(key, device)
        if self._settings.placement == "spread" and not present:
            self._spread(key, device, spec)
            return
        self._desired[key, device] = spec
        same = next((item for item in present if item.spec == spec and item.state is not VersionState.FAILED), None)
        if same is None:
            self._table.desire(key, spec)
        for instance in present:
            if instance is not same and instance.instance_id == 0:  # never loaded, because it failed, is built or waits
                self._table.release(key, instance, self._events.next_generation())
        if same is not None and same.state is VersionState.READY:
            self._release_others(key, same)
        self._events.instances_changed()

    def _desire_ladder(self, key: VersionKey, device: str, cheaper: Sequence[Serving]) -> None:
        """Adds and releases cheaper levels at once, because level 0 still answers requests."""
        is_there = bool(self._best(key, device))  # False where another device was chosen
        specs = tuple(_spec(device, item, level) for level, item in enumerate(cheaper, start=1)) if is_there else ()
        self._cheaper[key, device] = specs
        present = [instance for instance in self._table.instances(key, device) if instance.spec.ladder_level]
        for instance in present:
            if instance.spec not in specs:
                self._table.release(key, instance, self._events.next_generation())
        missing = [spec for spec in specs if spec not in [instance.spec for instance in present]]
        for spec in missing:
            self._table.desire(key, spec)
        if missing or present:
            self._events.instances_changed()

    def _best(self, key: VersionKey, device: str) -> list[Instance]:
        return [instance for instance in self._table.instances(key, device) if instance.spec.ladder_level == 0]

    def _spread(self, key: VersionKey, device: str, spec: InstanceSpec | None) -> None:
        """Waits until all devices have decided, because the version is placed on the one with most room."""
        if any(self._table.instances(key, each) for each in self.devices if each != device and spec is not None):
            return  # another device has the version
        waiting = self._waiting.setdefault(key, {})
        waiting[device] = spec
        if len(waiting) < len(self._builders):
            return
        for each in self._waiting.pop(key).values():
            if each is not None:
                self._desired[key, each.device] = each
                self._table.desire(key, each)
        self._events.instances_changed()

    def _release_others(self, key: VersionKey, kept: Instance) -> None:
        for instance in self._best(key, kept.spec.device):
            if instance is not kept:
                self._table.release(key, instance, self._events.next_generation())

    def _stored(self, key: VersionKey) -> StoreView:
        """Reads the plan store, in a thread; damaged plans are left out, and so built again."""
        survey = self._store.survey(key.model, key.version)
        records = tuple(StoredRecord(plan.record, str(plan.directory)) for plan in survey.plans)
        marks = build_marks(self._store.root, key.model, key.version)
        return StoreView(records, frozenset(mark.place for mark in marks if not mark.is_ours))

    async def _build(self, device: str, order: BuildOrder, follow: Follow) -> BuildOutcome:
        environment = worker_environment(device, inherited_environment())
        async with self._building:
            return await run_build(order, environment, self._settings.build_silence_ms / 1000, follow, _note)


def plan_store(settings: Settings) -> PlanStore:
    """Opens the store that the settings name. Raises SettingsError for a secret that cannot be read."""
    key_file = settings.engines_key_file
    return PlanStore(settings.engines_root, engines_secret(key_file) if key_file else None)


def may_use_tensorrt(device: str, settings: Settings) -> bool:
    return device_kind(device) == "cuda" and settings.backend in ("auto", "tensorrt")


def _spec(device: str, serving: Serving, ladder_level: int = 0) -> InstanceSpec:
    opened = (serving.plan_dir, serving.plan_sha256, serving.file_bytes)
    return InstanceSpec(device, serving.variant, serving.backend, *opened, ladder_level)


def _key(manifest: Manifest) -> VersionKey:
    return VersionKey(manifest.model, manifest.version)


def _note(text: str) -> None:
    log.info("engine_build_says", text=text)
