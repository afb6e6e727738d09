"""The supervisor's table of versions. Promises: every state change goes through here; one load at a time per worker.

Loading one instance at a time means that a worker which dies while loading names the culprit.

A version has an instance on every device that is to serve it, two on a device while one replaces the other. Its own
state is derived, see `service/supervisor/version_entry.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import EngineStatus, InstanceState, InstanceStatus, Load, VersionStatus
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.version_entry import Instance, InstanceSpec, VersionEntry
from saccade.service.supervisor.watch import KnownVersion, RepositoryPlan, plan_versions

_MAX_LOAD_CRASHES = 2  # one may be bad luck, such as the machine running out of memory


class VersionTable:
    """All versions the server has tried, by key."""

    def __init__(self) -> None:
        self._entries: dict[VersionKey, VersionEntry] = {}
        self._instance_ids = itertools.count(1)
        self._loading: dict[str, Instance] = {}  # by device

    def entry(self, key: VersionKey) -> VersionEntry | None:
        return self._entries.get(key)

    def entries(self) -> Iterator[tuple[VersionKey, VersionEntry]]:
        yield from self._entries.items()

    def plan(self, found: Iterable[FoundVersion], versions_per_model: int) -> RepositoryPlan:
        known = {key: KnownVersion(_planned(entry), entry.found.fingerprint) for key, entry in self._entries.items()}
        return plan_versions(found, known, versions_per_model)

    def add(self, found: FoundVersion) -> None:
        self._entries[found.key] = VersionEntry(found)

    def forget(self, key: VersionKey) -> None:
        self._entries.pop(key, None)

    def refuse(self, key: VersionKey, reason: str) -> None:
        """No device shall load it."""
        entry = self._entries[key]
        entry.refusal = reason
        entry.instances.clear()

    def verified(self, key: VersionKey, version: VerifiedVersion, batch_sizes: tuple[int, ...]) -> None:
        """Its files may be served; `want` says where."""
        entry = self._entries[key]
        entry.verified = version
        entry.manifest_sha256 = version.manifest_sha256
        entry.allowed_batch_sizes = batch_sizes

    def desire(self, key: VersionKey, spec: InstanceSpec) -> Instance:
        """One instance more, once it has a place. A second one on the same device may replace the first."""
        instance = Instance(spec)
        self._entries[key].instances.append(instance)
        return instance

    def building(self, key: VersionKey, device: str, variant: str) -> None:
        """Nothing serves there until its plan is built."""
        self.desire(key, InstanceSpec(device, variant, "tensorrt")).state = VersionState.BUILDING

    def instances(self, key: VersionKey, device: str) -> list[Instance]:
        """Those of a version on a device, without what is on its way out; empty for an unknown version."""
        entry = self._entries.get(key)
        found = () if entry is None else entry.instances
        return [item for item in found if item.spec.device == device and item.state is not VersionState.UNLOADING]

    def release(self, key: VersionKey, instance: Instance, generation: int) -> None:
        """It is replaced, or not wanted any more. From catalog `generation` on, nobody may send it requests."""
        if instance not in self._loading.values():
            self._begin_unload(self._entries[key], instance, generation)

    def cannot(self, key: VersionKey, device: str, reason: str) -> None:
        """This device can load nothing of it, others may."""
        self.desire(key, InstanceSpec(device, "", "")).fail(reason)

    def unplaced(self) -> list[tuple[VersionKey, VersionEntry, list[Instance]]]:
        """Versions with instances that wait for a place, one instance per device.

        Best levels come first, so that every version has its place before any has a second; then newest versions.
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
        """Applies a decision on what `unplaced` named."""
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
        """What found no room waits for a place again."""
        for entry in self._entries.values():
            for instance in entry.instances:
                if instance.lacks_room:
                    instance.lacks_room = False
                    instance.state = VersionState.LOADING
                    instance.reason = ""

    def next_load(self, device: str) -> Load | None:
        """The next instance to send to a worker: placed, not there yet; newest version first. None while one loads."""
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
        """Applies a worker's report; None when the instance is no longer of interest."""
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
        """Everything there has to be loaded again; a version that keeps killing the worker is given up there."""
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
        """From catalog `generation` on, nobody may send it requests. What was never loaded just goes."""
        entry = self._entries[key]
        if any(instance in self._loading.values() for instance in entry.instances):
            return  # the next look at the repository finds it loaded
        entry.is_unloaded = False
        for instance in list(entry.instances):
            self._begin_unload(entry, instance, generation)
        if not entry.instances:
            self.forget(key)

    def unload(self, key: VersionKey, generation: int) -> bool:
        """Unloads it like `begin_unload`, but remembers it: a request loads it again. False while it loads."""
        entry = self._entries[key]
        if any(instance in self._loading.values() for instance in entry.instances):
            return False
        entry.is_unloaded = True
        for instance in list(entry.instances):
            self._begin_unload(entry, instance, generation)
        return True

    def load(self, key: VersionKey) -> None:
        """It rests no more; `want` says what of it is loaded. Those that were woken before come before it."""
        entry = self._entries[key] = self._entries.pop(key)
        entry.is_unloaded = False

    def on_demand(self, key: VersionKey, *, is_so: bool) -> None:
        """Whether requests load it."""
        self._entries[key].on_demand = is_so

    def _begin_unload(self, entry: VersionEntry, instance: Instance, generation: int) -> None:
        if instance.instance_id == 0:
            entry.instances.remove(instance)
        elif instance.state is not VersionState.UNLOADING:
            instance.state = VersionState.UNLOADING
            instance.unload_generation = generation

    def to_unload(self, acknowledged_generation: int) -> list[tuple[str, int]]:
        """Devices and instances that every API process has stopped using; each is named once."""
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
        """Every version is ready somewhere, failed everywhere, or waits for its first request."""
        settled = (VersionState.READY, VersionState.FAILED)
        return all(
            entry.state in settled or (entry.on_demand and entry.verified is not None)
            for entry in self._entries.values()
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
    """A version counts as ready for those it replaces only once all its devices have settled."""
    if entry.is_unloaded and not entry.refusal:
        return VersionState.READY  # as good as: it answers when asked
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
