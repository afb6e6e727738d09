"""The supervisor's table of versions, through which every change of a version's state goes.

A worker loads one instance at a time, so that it is known which one it loaded when it died. A version has an instance
on every device that serves it, and two on a device while one of them replaces the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import EngineStatus, InstanceState, InstanceStatus, Load, VersionStatus
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.policy import ServingPolicy
from saccade.service.supervisor.version_entry import Instance, InstanceSpec, VersionEntry
from saccade.service.supervisor.watch import KnownVersion, RepositoryPlan, plan_versions

_MAX_LOAD_CRASHES = 2  # a single crash may have another cause, such as too little memory at that moment


class VersionTable:
    """All versions that the server knows, by key."""

    def __init__(self) -> None:
        self._entries: dict[VersionKey, VersionEntry] = {}
        self._instance_ids = itertools.count(1)
        self._loading: dict[str, Instance] = {}  # the instance that each device's worker loads now

    def entry(self, key: VersionKey) -> VersionEntry | None:
        return self._entries.get(key)

    def entries(self) -> Iterator[tuple[VersionKey, VersionEntry]]:
        yield from self._entries.items()

    def plan(
        self,
        found: Iterable[FoundVersion],
        versions_per_model: int,
        policies: Mapping[str, ServingPolicy],
        kept: Collection[VersionKey],
    ) -> RepositoryPlan:
        known = {key: KnownVersion(_planned(entry), entry.found.fingerprint) for key, entry in self._entries.items()}
        return plan_versions(found, known, versions_per_model, policies, kept)

    def ready(self, model: str) -> list[int]:
        """Returns the versions of a model that can answer now, or after a load that their request causes."""
        return [
            key.version
            for key, entry in self._entries.items()
            if key.model == model and (entry.state is VersionState.READY or (entry.is_unloaded and not entry.refusal))
        ]

    def changed(self, found: Iterable[FoundVersion]) -> list[FoundVersion]:
        """Returns the verified versions whose files differ from those of the last look; each change is told once."""
        changed = []
        for version in found:
            entry = self._entries.get(version.key)
            if entry is None or entry.verified is None or entry.refusal:
                continue
            if version.fingerprint != (entry.found.fingerprint if entry.seen is None else entry.seen):
                entry.seen = version.fingerprint
                changed.append(version)
        return changed

    def note(self, key: VersionKey, notice: str) -> bool:
        """Notes what happened to a version's files while it is loaded; returns whether that is new."""
        entry = self._entries[key]
        is_new, entry.notice = entry.notice != notice, notice
        return is_new

    def missing(self, key: VersionKey, notice: str) -> bool:
        """Notes that a loaded version's files are gone; returns whether that is new."""
        self._entries[key].seen = ()  # a directory that comes back is compared
        return self.note(key, notice)

    def add(self, found: FoundVersion) -> None:
        self._entries[found.key] = VersionEntry(found)

    def forget(self, key: VersionKey) -> None:
        self._entries.pop(key, None)

    def refuse(self, key: VersionKey, reason: str) -> None:
        """Marks a version as one that no device may load."""
        entry = self._entries[key]
        entry.refusal = reason
        entry.instances.clear()

    def verified(self, key: VersionKey, version: VerifiedVersion, batch_sizes: tuple[int, ...]) -> None:
        """Notes that a version's files were verified; `desire` then adds its instances."""
        entry = self._entries[key]
        entry.verified = version
        entry.manifest_sha256 = version.manifest_sha256
        entry.allowed_batch_sizes = batch_sizes

    def desire(self, key: VersionKey, spec: InstanceSpec) -> Instance:
        """Adds an instance that is loaded once it has a place; a second one on a device may replace the first."""
        instance = Instance(spec)
        self._entries[key].instances.append(instance)
        return instance

    def building(self, key: VersionKey, device: str, variant: str) -> None:
        """Notes that a version cannot serve on a device until its plan is built."""
        self.desire(key, InstanceSpec(device, variant, "tensorrt")).state = VersionState.BUILDING

    def instances(self, key: VersionKey, device: str) -> list[Instance]:
        """Returns a version's instances on a device, without those being unloaded; empty for an unknown version."""
        entry = self._entries.get(key)
        found = () if entry is None else entry.instances
        return [item for item in found if item.spec.device == device and item.state is not VersionState.UNLOADING]

    def release(self, key: VersionKey, instance: Instance, generation: int) -> None:
        """Begins to unload an instance; from catalog `generation` on it gets no requests. One being loaded stays."""
        if instance not in self._loading.values():
            self._begin_unload(self._entries[key], instance, generation)

    def cannot(self, key: VersionKey, device: str, reason: str) -> None:
        """Notes that one device can load no variant of a version; other devices may."""
        self.desire(key, InstanceSpec(device, "", "")).fail(reason)

    def unplaced(self) -> list[tuple[VersionKey, VersionEntry, list[Instance]]]:
        """Returns the versions with instances that wait for a place, with one instance per device.

        The order is by ladder level, so that every version gets a place before any gets a second, then newest first.
        """
        found = []
        for key, entry in self._entries.items():
            by_device: dict[str, Instance] = {}
            waiting = [item for item in entry.instances if item.state is VersionState.LOADING and not item.is_placed]
            level = min((instance.spec.ladder_level for instance in waiting), default=0)
            for instance in waiting:
                if instance.spec.ladder_level == level:
                    by_device.setdefault(instance.spec.device, instance)
            if by_device:
                found.append((key, entry, list(by_device.values())))
        return sorted(found, key=lambda item: (item[2][0].spec.ladder_level, -item[0].version))

    def place(
        self, key: VersionKey, devices: Collection[str], refusals: Mapping[str, str], spared: Collection[str]
    ) -> None:
        """Applies a placement decision to the instances that `unplaced` returned."""
        entry = self._entries[key]
        for instance in next((waiting for found, _, waiting in self.unplaced() if found == key), ()):
            device = instance.spec.device
            if device in devices:
                instance.is_placed = True
            elif device in refusals:
                instance.fail(refusals[device])
                instance.lacks_room = True
            elif device in spared:
                entry.instances.remove(instance)

    def retry_refused(self) -> None:
        """Lets the instances that failed for lack of memory wait for a place again."""
        for entry in self._entries.values():
            for instance in entry.instances:
                if instance.lacks_room:
                    instance.lacks_room = False
                    instance.state = VersionState.LOADING
                    instance.reason = ""

    def next_load(self, device: str) -> Load | None:
        """Returns the next order to load for a worker, newest version first; None while the worker loads another."""
        if device in self._loading:
            return None
        waiting = [
            (entry, instance)
            for entry, instance in self._on(device)
            if instance.state is VersionState.LOADING and instance.is_placed and instance.instance_id == 0
        ]
        if not waiting:
            return None
        entry, instance = min(waiting, key=lambda item: (item[1].spec.ladder_level, -item[0].found.key.version))
        instance.instance_id = next(self._instance_ids)
        self._loading[device] = instance
        return Load(
            instance.instance_id,
            entry.found.key.model,
            entry.found.key.version,
            instance.spec.variant,
            str(entry.found.path),
            entry.manifest_sha256,
            entry.allowed_batch_sizes,
            instance.spec.backend,
            instance.spec.plan_dir,
            instance.spec.plan_sha256,
        )

    def report(self, update: InstanceState) -> tuple[VersionKey, Instance] | None:
        """Applies a worker's report; returns None when the instance is unknown or being unloaded."""
        found = self._find(update.instance_id)
        if found is None or found[1].state is VersionState.UNLOADING:
            return None
        entry, instance = found
        instance.state = VersionState(update.state)
        instance.reason = update.reason
        instance.provider = update.provider
        instance.memory_bytes = update.memory_bytes
        instance.decodes_jpegs = update.decodes_jpegs
        if instance.state is VersionState.READY:
            instance.load_seconds = update.seconds
            if instance.spec.ladder_level == 0 or not entry.load_seconds:
                entry.load_seconds = update.seconds
        if instance.state in (VersionState.READY, VersionState.FAILED):
            self._loading.pop(instance.spec.device, None)
            instance.load_crashes = 0
        if instance.state is VersionState.FAILED:
            instance.fail(update.reason)
        return entry.found.key, instance

    def worker_lost(self, device: str) -> None:
        """Has all instances of a device loaded again; one whose load keeps killing the worker fails."""
        for entry, instance in list(self._on(device)):
            if instance.state is VersionState.UNLOADING:
                self._drop(entry, instance)
            elif instance.state not in (VersionState.FAILED, VersionState.BUILDING):
                instance.start_over()
        culprit = self._loading.pop(device, None)
        if culprit is not None:
            culprit.load_crashes += 1
            if culprit.load_crashes >= _MAX_LOAD_CRASHES:
                culprit.fail(f"the worker died {culprit.load_crashes} times while loading it")

    def begin_unload(self, key: VersionKey, generation: int) -> None:
        """Begins to unload a version for good; from catalog `generation` on it gets no requests."""
        entry = self._entries[key]
        if any(instance in self._loading.values() for instance in entry.instances):
            return  # the next reading of the repository tries again
        entry.is_unloaded = False
        for instance in list(entry.instances):
            self._begin_unload(entry, instance, generation)
        if not entry.instances:
            self.forget(key)

    def unload(self, key: VersionKey, generation: int) -> bool:
        """Unloads a version until a request asks for it again; returns False while it is being loaded."""
        entry = self._entries[key]
        if any(instance in self._loading.values() for instance in entry.instances):
            return False
        entry.is_unloaded = True
        for instance in list(entry.instances):
            self._begin_unload(entry, instance, generation)
        return True

    def load(self, key: VersionKey) -> None:
        """Lets a version be loaded again: `desire` adds its instances, placed after those of earlier requests."""
        entry = self._entries[key] = self._entries.pop(key)
        entry.is_unloaded = False

    def on_demand(self, key: VersionKey, *, is_so: bool) -> None:
        """Sets whether a version is loaded by its first request."""
        self._entries[key].on_demand = is_so

    def _begin_unload(self, entry: VersionEntry, instance: Instance, generation: int) -> None:
        if instance.instance_id == 0:
            entry.instances.remove(instance)
        elif instance.state is not VersionState.UNLOADING:
            instance.state = VersionState.UNLOADING
            instance.unload_generation = generation

    def to_unload(self, acknowledged_generation: int) -> list[tuple[str, int]]:
        """Returns device and number of the instances that no API process uses any more; each is returned once."""
        found = []
        for entry in self._entries.values():
            for instance in entry.instances:
                generation = instance.unload_generation
                if generation is not None and generation <= acknowledged_generation:
                    instance.unload_generation = None
                    found.append((instance.spec.device, instance.instance_id))
        return found

    def unloaded(self, instance_id: int) -> None:
        found = self._find(instance_id)
        if found is not None:
            self._drop(*found)

    def has_no_load_pending(self) -> bool:
        """Returns whether every version is ready somewhere, has failed everywhere, or waits for its first request."""
        final = (VersionState.READY, VersionState.FAILED)
        return all(
            entry.state in final or (entry.on_demand and entry.verified is not None) for entry in self._entries.values()
        )

    def statuses(
        self, engines_of: Callable[[VersionKey], tuple[EngineStatus, ...]] = lambda key: ()
    ) -> tuple[VersionStatus, ...]:
        return tuple(
            VersionStatus(
                key.model,
                key.version,
                str(entry.found.path),
                entry.manifest_sha256,
                entry.state.value,
                entry.reason,
                entry.variant,
                tuple(_status(instance) for instance in entry.instances),
                engines_of(key),
                entry.on_demand,
                entry.load_seconds,
                entry.notice,
            )
            for key, entry in sorted(self._entries.items(), key=lambda item: (item[0].model, item[0].version))
        )

    def _on(self, device: str) -> Iterator[tuple[VersionEntry, Instance]]:
        for entry in self._entries.values():
            for instance in entry.instances:
                if instance.spec.device == device:
                    yield entry, instance

    def _find(self, instance_id: int) -> tuple[VersionEntry, Instance] | None:
        for entry in self._entries.values():
            for instance in entry.instances:
                if instance.instance_id == instance_id:
                    return entry, instance
        return None

    def _drop(self, entry: VersionEntry, instance: Instance) -> None:
        entry.instances.remove(instance)
        if not entry.instances and not entry.is_unloaded:
            self.forget(entry.found.key)


def _planned(entry: VersionEntry) -> VersionState:
    """Returns the state for `plan_versions`: ready only once no device has a load of the version pending."""
    if entry.is_unloaded and not entry.refusal:
        return VersionState.READY  # it counts as ready, because its first request loads it
    if entry.state is VersionState.READY and not entry.has_no_load_pending:
        return VersionState.WARMING
    return entry.state


def _status(instance: Instance) -> InstanceStatus:
    return InstanceStatus(
        instance.spec.device,
        instance.instance_id,
        instance.state.value,
        instance.reason,
        instance.spec.variant,
        instance.spec.backend,
        instance.provider,
        instance.decodes_jpegs,
        instance.spec.ladder_level,
    )
