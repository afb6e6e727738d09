"""What the supervisor has observed: versions and instances as they are, devices, usage. Each event changes one thing.

Only the supervisor's event loop may call it. It decides nothing; `desired.py` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from saccade.service.core import VersionKey
from saccade.service.ipc.messages import DeviceFacts, Load, Usage
from saccade.service.ipc.messages import InstanceState as Report
from saccade.service.repository.open import FoundVersion
from saccade.service.supervisor.engines.plan_decision import PlanDecision
from saccade.service.supervisor.facts import Facts, MemoryKey, memory_key
from saccade.service.supervisor.placement.specs import Specs
from saccade.service.supervisor.policy import ServingPolicy
from saccade.service.supervisor.state import (
    Failed,
    InstanceState,
    Leaving,
    Loading,
    Placed,
    Quarantine,
    Ready,
    Refused,
    Slot,
    Verified,
    Version,
)

_KEPT_MEASURED = 16  # of versions that are not known now: one that comes back is placed by what it took


class Observed:
    """All that is known, by key and slot."""

    def __init__(self) -> None:
        self.versions: dict[VersionKey, Version] = {}
        self.instances: dict[Slot, InstanceState] = {}
        self.api_restarts = 0
        self._devices: dict[str, DeviceFacts] = {}
        self._lost: set[str] = set()
        self._measured: dict[MemoryKey, int] = {}
        self._usages: dict[str, dict[VersionKey, Usage]] = {}  # by API process
        self._instance_ids = itertools.count(1)
        self._turns = itertools.count(1)

    def facts(
        self,
        found: Sequence[FoundVersion],
        policies: Mapping[str, ServingPolicy],
        kept: Collection[VersionKey],
        plans: Mapping[tuple[VersionKey, str], PlanDecision | str],
        now_s: float,
    ) -> Facts:
        usages: dict[VersionKey, tuple[Usage, ...]] = {}
        for reported in self._usages.values():
            for key, usage in reported.items():
                usages[key] = (*usages.get(key, ()), usage)
        seen = (self.versions, self.instances, self._devices, frozenset(self._lost), self._measured, usages)
        return Facts(found, policies, kept, plans, *seen, now_s)

    # Versions

    def added(self, found: FoundVersion) -> None:
        self.versions[found.key] = Version(found)

    def forgotten(self, key: VersionKey) -> None:
        """Forgets a version and its instances, except those that a worker still has to unload."""
        self.versions.pop(key, None)
        for slot in [slot for slot, state in self.instances.items() if slot.key == key]:
            if not isinstance(self.instances[slot], Leaving | Loading | Ready):
                del self.instances[slot]
        for reported in self._usages.values():
            reported.pop(key, None)
        known = {version.verified.version.manifest_sha256 for version in self.versions.values() if version.verified}
        others = [measured for measured in self._measured if measured.manifest_sha256 not in known]
        for measured in others[:-_KEPT_MEASURED]:
            del self._measured[measured]

    def checked(self, found: FoundVersion, check: Refused | Verified) -> None:
        """Notes the result of a verification, unless the version was removed or replaced meanwhile."""
        version = self.versions.get(found.key)
        if version is not None and version.found == found:
            self.versions[found.key] = replace(version, check=check)

    def chosen_again(self, key: VersionKey, specs: Specs) -> None:
        """Notes other instances for a version, and forgets those that failed."""
        version = self.versions[key]
        if version.verified is None:
            return
        choice = specs.choice(is_compared_here=version.verified.version.is_compared_here)
        self.versions[key] = replace(version, check=replace(version.verified, specs=specs, choice=choice))
        kept = {spec for levels in specs.by_device.values() for spec in levels}
        for slot, state in list(self.instances.items()):
            if slot.key == key and isinstance(state, Failed) and slot.spec not in kept:
                del self.instances[slot]

    def is_loaded(self, model: str) -> bool:
        """Returns whether a version of a model is loaded, or was asked for."""
        return any(
            key.model == model and version.verified is not None and not version.is_asleep
            for key, version in self.versions.items()
        )

    def woken(self, key: VersionKey) -> bool:
        """Has a sleeping version loaded, after those of earlier requests; returns whether it slept."""
        version = self.versions.get(key)
        if version is None or version.verified is None or not version.is_asleep:
            return False
        check = replace(version.verified, is_asleep=False, turn=next(self._turns), ready_s=None)
        self.versions[key] = replace(version, check=check)
        return True

    def evicted(self, key: VersionKey) -> None:
        """Has a version sleep until a request asks for it again."""
        version = self.versions[key]
        if version.verified is not None:
            self.versions[key] = replace(version, check=replace(version.verified, is_asleep=True))

    def replaced(self, found: Iterable[FoundVersion]) -> list[FoundVersion]:
        """Returns the verified versions whose files differ from those of the last look; each change is told once."""
        changed = []
        for each in found:
            version = self.versions.get(each.key)
            if version is None or version.verified is None:
                continue
            if each.fingerprint != (version.found.fingerprint if version.seen is None else version.seen):
                self.versions[each.key] = replace(version, seen=each.fingerprint)
                changed.append(each)
        return changed

    def missing(self, key: VersionKey, notice: str) -> bool:
        """Notes that a loaded version's files are gone; returns whether that is new."""
        self.versions[key] = replace(self.versions[key], seen=())  # a directory that comes back is compared
        return self.noticed(key, notice)

    def noticed(self, key: VersionKey, notice: str) -> bool:
        """Notes what happened to a version's files while it is loaded; returns whether that is new."""
        version = self.versions[key]
        self.versions[key] = replace(version, notice=notice)
        return version.notice != notice

    # Workers and API processes

    def device_ready(self, device: str, facts: DeviceFacts) -> None:
        self._devices[device] = facts
        self._lost.discard(device)

    def device_lost(self, device: str) -> None:
        """Has all instances of a device loaded again, those first that were ready."""
        self._devices.pop(device, None)
        self._lost.add(device)
        for slot, state in list(self.instances.items()):
            if slot.device != device:
                continue
            match state:
                case Leaving():
                    del self.instances[slot]
                case Loading():
                    self.instances[slot] = Placed(state.was_ready)
                case Ready():
                    self.instances[slot] = Placed(was_ready=True)

    def culprit(self, device: str, running: int) -> tuple[VersionKey, bool] | None:
        """Returns the version to blame for the end of a device's worker, and whether it was being loaded.

        `running` is the instance that was at its run, or 0. Beside a load it is not blamed: the newcomer is more likely
        to be at fault.
        """
        for slot, state in self.instances.items():
            if slot.device == device and isinstance(state, Loading):
                return slot.key, True
        slot_running = self._slot(running, Ready, Leaving)
        return None if slot_running is None else (slot_running.key, False)

    def quarantined(self, key: VersionKey, quarantine: Quarantine) -> None:
        """Has a version unloaded, and not loaded again until it is forgotten."""
        self.versions[key] = replace(self.versions[key], quarantine=quarantine)

    def is_proven(self, key: VersionKey) -> bool:
        """Returns whether a version may answer: it is ready, or was until its worker ended."""
        version = self.versions.get(key)
        return (
            version is not None
            and version.quarantine is None
            and any(
                isinstance(state, Ready) or (isinstance(state, Placed | Loading) and state.was_ready)
                for slot, state in self.instances.items()
                if slot.key == key
            )
        )

    def shares_device_with_others(self, instance_id: int) -> bool | None:
        """Returns whether other versions answer on the device that loads this instance; None when none loads it."""
        mine = self._slot(instance_id, Loading)
        if mine is None:
            return None
        return any(
            slot.device == mine.device and slot.key != mine.key and isinstance(state, Ready)
            for slot, state in self.instances.items()
        )

    def reported(self, report: Report, now_s: float) -> tuple[Slot, InstanceState] | None:
        """Applies a worker's report; returns None for an instance that is unknown or leaves."""
        slot = self._slot(report.instance_id, Loading, Ready)
        if slot is None:
            return None
        before = self.instances[slot]
        was_ready = isinstance(before, Loading) and before.was_ready
        match report.state:
            case "ready":
                ready = Ready(
                    report.instance_id, report.provider, report.memory_bytes, report.decodes_jpegs, report.gives
                )
                self.instances[slot] = ready
                self._note_load(slot, report, now_s)
            case "failed":
                self.instances[slot] = Failed(report.reason)
            case state:
                self.instances[slot] = Loading(report.instance_id, was_ready, is_warming=state == "warming")
        return slot, self.instances[slot]

    def _note_load(self, slot: Slot, report: Report, now_s: float) -> None:
        version = self.versions.get(slot.key)
        if version is None or version.verified is None:
            return
        check = version.verified
        if report.memory_bytes:
            self._measured[memory_key(slot, check)] = report.memory_bytes
        seconds = report.seconds if slot.level == 0 or not check.load_seconds else check.load_seconds
        ready_s = now_s if check.ready_s is None else check.ready_s
        self.versions[slot.key] = replace(version, check=replace(check, load_seconds=seconds, ready_s=ready_s))

    def unloaded(self, instance_id: int) -> None:
        slot = self._slot(instance_id, Leaving)
        if slot is not None:
            del self.instances[slot]

    def put(self, slot: Slot, state: InstanceState | None) -> None:
        """Changes the state of an instance that no worker is told of; None forgets it."""
        if state is None:
            del self.instances[slot]
        else:
            self.instances[slot] = state

    def told(self, slot: Slot, state: Leaving) -> None:
        """Notes that the worker was told to unload an instance."""
        self.instances[slot] = replace(state, is_told=True)

    def loading(self, slot: Slot, was_ready: bool) -> Load | None:
        """Returns the order to load an instance, under a number of its own; None when its version is gone."""
        version = self.versions.get(slot.key)
        if version is None or version.verified is None:
            return None
        instance_id = next(self._instance_ids)
        self.instances[slot] = Loading(instance_id, was_ready)
        key, spec, check = slot.key, slot.spec, version.verified
        return Load(
            instance_id,
            key.model,
            key.version,
            spec.variant,
            str(version.found.path),
            check.version.manifest_sha256,
            check.batch_sizes,
            spec.backend,
            spec.plan_dir,
            spec.plan_sha256,
        )

    def _slot(self, instance_id: int, *kinds: type) -> Slot | None:
        for slot, state in self.instances.items():
            if isinstance(state, kinds) and getattr(state, "instance_id", None) == instance_id:
                return slot
        return None

    def memory_bytes(self, device: str) -> int:
        """Returns the memory that the loaded instances of a device were measured to hold."""
        states = [state for slot, state in self.instances.items() if slot.device == device]
        return sum(state.memory_bytes for state in states if isinstance(state, Ready | Leaving))

    def used(self, api: str, usages: Iterable[Usage]) -> None:
        by_key = {VersionKey(usage.model, usage.version): usage for usage in usages}
        known = {key: usage for key, usage in by_key.items() if key in self.versions}  # others were forgotten meanwhile
        self._usages.setdefault(api, {}).update(known)

    def api_gone(self, api: str, restarts: int) -> None:
        """Forgets the usages of an API process that ended; `restarts` counts those of all API processes."""
        self._usages.pop(api, None)
        self.api_restarts = restarts
