"""The supervisor's one loop: observe, decide, act. It keeps loaded what should be, and says so in catalogs.

Everything that happens is noted in `observed.py` and wakes the loop. Each turn asks `desired.py` what should be,
applies the commands that lead there, and sends a catalog when it differs from the last one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
import structlog

from saccade.service.core import GIVEN_UP, STABLE, VersionKey
from saccade.service.ipc import messages
from saccade.service.repository.serving_document import ServingDocument
from saccade.service.repository.trusted_keys import SignaturePolicy
from saccade.service.settings import Settings
from saccade.service.supervisor.desired import (
    Command,
    Desired,
    Load,
    Put,
    Unload,
    commands,
    desired,
    is_waiting_for_nothing,
)
from saccade.service.supervisor.devices import DeviceSupervision
from saccade.service.supervisor.engines.plans import Plans
from saccade.service.supervisor.facts import instances_by_version
from saccade.service.supervisor.observed import Observed
from saccade.service.supervisor.placement.specs import specs_without
from saccade.service.supervisor.quarantine import Quarantines
from saccade.service.supervisor.repository_mirror import RepositoryMirror
from saccade.service.supervisor.repository_watch import RepositoryWatch
from saccade.service.supervisor.rollout.controller import Rollouts
from saccade.service.supervisor.serving_documents import Ruling
from saccade.service.supervisor.stable_versions import StableVersions
from saccade.service.supervisor.state import Failed, Loading, NoRoom, Placed, Ready, Slot, version_status

log = structlog.get_logger()

_REVIEW_PERIOD_S = 0.1  # short against the duration of any load
_GRACE_PERIOD_S = 1.0  # between looks at versions whose grace may have ended
_DIRECTORY_GONE = "its directory was removed; it stays loaded because SACCADE_SERVE_VERSIONS or serving.json names it"
_REPOSITORY_EMPTY = "the repository was found empty, so what is loaded stays; another version must appear to replace it"


class Reconciler:
    """What is loaded where; only the supervisor's event loop may call it."""

    def __init__(
        self,
        settings: Settings,
        signatures: SignaturePolicy,
        send: Callable[[messages.Catalog], None],
        acknowledged: Callable[[], int | None],
        mirror: RepositoryMirror | None = None,
    ) -> None:
        """`send` sends a catalog to every API process; `acknowledged` returns the oldest generation that one uses.

        Raises SettingsError when the secret of the plan store cannot be read.
        """
        self._send = send
        self._acknowledged = acknowledged
        self._changed = asyncio.Event()
        self.observed = Observed()
        self.plans = Plans(settings, self.wake)
        self.watch = RepositoryWatch(settings, signatures, self.plans.devices, self.observed, self.wake, mirror)
        self.rollouts = Rollouts(settings, self.watch, self.observed)
        self._settings = settings
        self._devices: Mapping[str, DeviceSupervision] = {}
        self._stable = StableVersions()
        self.quarantines = Quarantines(settings, self.observed, self.watch, self._stable, self.wake)
        self._ready_models: set[str] = set()  # of which a version was ready once
        self._was_settled = False
        self._is_waiting = False
        self.is_draining = False
        self.catalog = messages.Catalog(0, (), (), False)

    def runs(self, devices: Mapping[str, DeviceSupervision]) -> list[Coroutine[Any, Any, None]]:
        """Returns the coroutines to run, each until it is cancelled."""
        self._devices = devices
        return [self._run(), self.watch.look_again_and_again(), self.watch.verify_one_by_one(), self.rollouts.run()]

    def wake(self) -> None:
        """Has the loop turn, because something was observed."""
        self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                self.turn()
            except Exception:  # the last stop: what is loaded serves on, and the next turn tries again
                log.exception("reconcile_failed")
                self._is_waiting = True
                await asyncio.sleep(_REVIEW_PERIOD_S)
            wait_s = _REVIEW_PERIOD_S if self._is_waiting else _GRACE_PERIOD_S if self._stable.grace else None
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                continue

    def from_worker(self, device: str, message: messages.AnyMessage) -> None:
        """Notes a worker's message."""
        match message:
            case messages.WorkerReady():
                if message.facts.problem:
                    log.error("device_unusable", device=device, reason=message.facts.problem)
                self.observed.device_ready(device, message.facts)
                self.plans.device_found(device, message.facts)
            case messages.InstanceState():
                self._report(message)
            case messages.Unloaded():
                self.observed.unloaded(message.instance_id)
        self.wake()

    def _report(self, report: messages.InstanceState) -> None:
        reported = self.observed.reported(report, time.monotonic())
        if reported is None:
            return
        slot, state = reported
        fields = {**slot.key.fields, "variant": slot.spec.variant, "device": slot.device}
        if isinstance(state, Ready):
            log.info("version_ready", **fields, provider=state.provider, seconds=round(report.seconds, 2))
            self._ready_models.add(slot.key.model)
            self.quarantines.loaded(slot.key)
        elif isinstance(state, Failed):
            if self._choose_again(slot):
                log.warning("variant_passed_over", **fields, reason=state.reason, effect="the next best one is loaded")
                return
            log.error("version_failed", **fields, reason=state.reason)
            self.plans.not_opened(slot.key, slot.spec, state.reason)

    def _choose_again(self, failed: Slot) -> bool:
        """Has other variants of a version loaded on a device where all that were chosen failed; returns whether."""
        version, device = self.observed.versions.get(failed.key), failed.device
        if version is None or version.verified is None:
            return False
        specs, manifest = version.verified.specs, version.verified.version.manifest
        reasons = {}
        for spec in specs.by_device.get(device, ()):
            state = self.observed.instances.get(Slot(failed.key, spec))
            if not isinstance(state, Failed):  # another level of the ladder may answer
                return False
            reasons[spec.variant] = state.reason
        others = specs_without(specs, manifest, device, reasons, self._settings)
        if others is None:
            return False
        self.observed.chosen_again(failed.key, others)
        return True

    def desire(self, key: VersionKey) -> None:
        """Notes that requests wait for a version."""
        if self.observed.woken(key):
            log.info("version_wanted", **key.fields)
            self.wake()

    # One turn

    def turn(self) -> None:
        """Decides once, and acts; what that changes is seen by the next turn."""
        now_s = time.monotonic()
        self.quarantines.release()
        plans = self.plans.decisions
        policies = self.quarantines.policies(plans)
        self._stable.settle(policies, self._able(), now_s, self._returning())
        if self.watch.listing is not None and not self.is_draining:
            found, kept = self.watch.listing.versions, self._stable.grace.keys()
            facts = self.observed.facts(found, policies, kept, plans, now_s)
            wanted = desired(facts, self._settings)
            self._act_on_versions(wanted)
            generation = self.catalog.generation
            is_open = [name for name, device in self._devices.items() if device.is_open]
            acknowledged = self._acknowledged()
            oldest = generation if acknowledged is None else acknowledged
            for command in commands(wanted.instances, self.observed.instances, is_open, generation + 1, oldest):
                self._act(command)
                self.wake()
            self._is_waiting = wanted.is_waiting
        self._publish()

    def _act_on_versions(self, wanted: Desired) -> None:
        instances = instances_by_version(self.observed.instances)
        for key in wanted.leaving:
            if any(isinstance(state, Ready) for state in instances.get(key, {}).values()):
                log.info("version_unloading", **key.fields)
        for key in wanted.evicted:
            log.info("version_evicted", **key.fields)
            self.observed.evicted(key)
        for slot in wanted.released:
            log.warning("rung_gave_way", **slot.key.fields, variant=slot.spec.variant, device=slot.device)
        for key in wanted.forget:
            self.quarantines.forget(key)
        for found in wanted.verify:
            self.watch.verify(found)
        self._note_missing(wanted)
        awake = {
            key: version.verified.version
            for key, version in self.observed.versions.items()
            if version.verified is not None and not version.is_asleep and key not in wanted.leaving
        }
        self.plans.follow(awake)
        if wanted.evicted or wanted.forget or wanted.verify:
            self.wake()

    def _note_missing(self, wanted: Desired) -> None:
        is_empty = self.watch.listing is not None and not self.watch.listing.versions
        notice = _REPOSITORY_EMPTY if is_empty else _DIRECTORY_GONE
        there = [key for key in wanted.missing if key in self.observed.versions]
        news = [key for key in there if self.observed.missing(key, notice)]
        if news and is_empty:
            log.error("repository_empty", kept=len(there))
        elif news:
            log.error("named_version_removed", versions=[f"{key.model}/{key.version}" for key in news])

    def _act(self, command: Command) -> None:
        match command:
            case Put(slot, state):
                before = self.observed.instances.get(slot)
                self.observed.put(slot, state)
                if isinstance(state, NoRoom) and not isinstance(before, NoRoom):
                    _log_no_room(slot, state)
            case Load(slot, crashes):
                order = self.observed.loading(slot, crashes)
                if order is not None:
                    self._devices[slot.device].send(order)
            case Unload(slot, state):
                self.observed.told(slot, state)
                self._devices[slot.device].send(messages.Unload(state.instance_id))

    def _able(self) -> dict[str, list[int]]:
        """Returns the versions of each model that can answer."""
        instances = instances_by_version(self.observed.instances)
        able: dict[str, list[int]] = {}
        for key, version in self.observed.versions.items():
            is_ready = any(isinstance(state, Ready) for state in instances.get(key, {}).values())
            if version.quarantine is None and (is_ready or version.is_asleep):  # a request causes its load
                able.setdefault(key.model, []).append(key.version)
        return able

    def _returning(self) -> dict[str, list[int]]:
        """Returns the versions of each model that were ready until their worker ended, and are loaded again."""
        returning: dict[str, list[int]] = {}
        for slot, state in self.observed.instances.items():
            if isinstance(state, Placed | Loading) and state.was_ready:
                returning.setdefault(slot.key.model, []).append(slot.key.version)
        return returning

    # Catalogs

    def _publish(self) -> None:
        """Sends the whole catalog to every API process when it differs from the last one."""
        observed, watch = self.observed, self.watch
        instances = instances_by_version(observed.instances)
        versions = {
            key: version_status(key, version, instances.get(key, {}), self.plans.statuses(key))
            for key, version in sorted(observed.versions.items(), key=lambda item: (item[0].model, item[0].version))
        }
        catalog = messages.Catalog(
            self.catalog.generation,
            tuple(device.status(observed.memory_bytes(name)) for name, device in self._devices.items()),
            tuple(versions.values()),
            self.is_draining,
            tuple(messages.RefusedStatus(each.model, each.name, each.reason) for each in watch.listing.refused)
            if watch.listing
            else (),
            tuple(
                _model_status(model, ruling, self._stable.now.get(model), self.rollouts.state(model), versions)
                for model, ruling in watch.rulings.items()
                if ruling.document or ruling.problem
            ),
            self._newcomers(),
            observed.api_restarts,
        )
        if catalog != self.catalog:
            self.catalog = _next(catalog)
            self._send(self.catalog)

    def _newcomers(self) -> tuple[str, ...]:
        """Returns the models for whose first load nobody needs to wait, because the server was ready before."""
        self._was_settled = self._was_settled or self.is_settled
        models = {key.model for key in self.observed.versions} if self._was_settled else set()
        return tuple(sorted(models - self._ready_models))

    @property
    def is_settled(self) -> bool:
        """Whether the repository was looked at, and nothing that was found is still on its way."""
        return self.watch.listing is not None and is_waiting_for_nothing(
            self.observed.versions, self.observed.instances
        )


def _next(catalog: messages.Catalog) -> messages.Catalog:
    return msgspec.structs.replace(catalog, generation=catalog.generation + 1)


def _log_no_room(slot: Slot, state: NoRoom) -> None:
    fields = {**slot.key.fields, "device": slot.device, "reason": state.reason}
    if slot.level:  # the version serves without it
        log.warning("rung_has_no_room", **fields, variant=slot.spec.variant)
    else:
        log.error("version_has_no_room", **fields)


def _model_status(
    model: str,
    ruling: Ruling,
    stable: int | None,
    rollout: str,
    versions: Mapping[VersionKey, messages.VersionStatus],
) -> messages.ModelStatus:
    document = ruling.document
    if document is None:
        return messages.ModelStatus(model, problem=ruling.problem)
    labels = tuple((label, version) for label, version in sorted(document.labels.items()) if label != STABLE)
    held = versions.get(VersionKey(model, document.labels.get(STABLE, 0)))
    canary = document.canary
    return messages.ModelStatus(
        model,
        document.generation,
        (stable or 0) if STABLE in document.labels else 0,
        labels,
        canary.version if canary else 0,
        canary.share if canary else 0.0,
        canary.salt if canary else "",
        document.reason,
        ruling.problem or _held_problem(document, stable, held),
        document.shadow.version if document.shadow else 0,
        document.shadow.sample if document.shadow else 0.0,
        rollout,
        (document.objective_ms or 0.0) / 1000,
    )


def _held_problem(document: ServingDocument, stable: int | None, held: messages.VersionStatus | None) -> str:
    """Returns why the version that a document holds as stable does not answer; empty where it does, or will."""
    if held is None or held.state not in GIVEN_UP:
        return ""
    answers = "no version was stable before" if stable in (None, held.version) else f"version {stable} is stable here"
    stands = f"generation {document.generation} holds version {held.version} as stable, which is {held.state}"
    return f"{stands} ({held.reason}): {answers}"
