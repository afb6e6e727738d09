"""The supervisor's table of versions. Promises: every state change goes through here; one load at a time.

Loading one version at a time means that a worker which dies while loading names the culprit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from models.manifest import Manifest
from service.core import VersionKey, VersionState
from service.repository.open import FoundVersion
from service.repository.verify import VerifiedVersion
from service.repository.watch import KnownVersion, RepositoryPlan, plan_versions
from service.workers.messages import InstanceState, Load, VersionStatus

_MAX_LOAD_CRASHES = 2  # one may be bad luck, such as the machine running out of memory


@dataclass(slots=True)
class VersionEntry:
    """What is known of one version; `instance_id` 0 means it is not on the worker."""

    found: FoundVersion
    state: VersionState = VersionState.LOADING
    reason: str = ""
    manifest: Manifest | None = None
    manifest_sha256: str = ""
    variant: str = ""
    allowed_batch_sizes: tuple[int, ...] = (1,)
    instance_id: int = 0
    load_crashes: int = 0
    unload_generation: int | None = None


class VersionTable:
    """All versions the server has tried, by key."""

    def __init__(self, device: str, backend: str) -> None:
        self._device = device
        self._backend = backend
        self._entries: dict[VersionKey, VersionEntry] = {}
        self._instance_ids = itertools.count(1)
        self._loading: VersionKey | None = None

    def plan(self, found: Iterable[FoundVersion], versions_per_model: int) -> RepositoryPlan:
        known = {key: KnownVersion(entry.state, entry.found.fingerprint) for key, entry in self._entries.items()}
        return plan_versions(found, known, versions_per_model)

    def add(self, found: FoundVersion) -> None:
        self._entries[found.key] = VersionEntry(found)

    def forget(self, key: VersionKey) -> None:
        self._entries.pop(key, None)

    def verified(self, key: VersionKey, version: VerifiedVersion, variant: str, batch_sizes: tuple[int, ...]) -> None:
        entry = self._entries[key]
        entry.manifest = version.manifest
        entry.manifest_sha256 = version.manifest_sha256
        entry.variant = variant
        entry.allowed_batch_sizes = batch_sizes

    def fail(self, key: VersionKey, reason: str) -> None:
        entry = self._entries[key]
        entry.state = VersionState.FAILED
        entry.reason = reason
        entry.instance_id = 0

    def next_load(self) -> Load | None:
        """The next version to send to the worker: verified, not there yet; newest first. None while one loads."""
        if self._loading is not None:
            return None
        waiting = [
            entry
            for entry in self._entries.values()
            if entry.state is VersionState.LOADING and entry.manifest is not None and entry.instance_id == 0
        ]
        if not waiting:
            return None
        entry = max(waiting, key=lambda item: item.found.key.version)
        entry.instance_id = next(self._instance_ids)
        self._loading = entry.found.key
        return Load(
            entry.instance_id,
            entry.found.key.model,
            entry.found.key.version,
            entry.variant,
            str(entry.found.path),
            entry.manifest_sha256,
            entry.allowed_batch_sizes,
            self._backend,
        )

    def report(self, update: InstanceState) -> VersionEntry | None:
        """Applies a worker's report; None when the instance is no longer of interest."""
        entry = next((item for item in self._entries.values() if item.instance_id == update.instance_id), None)
        if entry is None or entry.state is VersionState.UNLOADING:
            return None
        entry.state = VersionState(update.state)
        entry.reason = update.reason
        if entry.state in (VersionState.READY, VersionState.FAILED):
            self._loading = None
            entry.load_crashes = 0
        if entry.state is VersionState.FAILED:
            entry.instance_id = 0
        return entry

    def worker_lost(self) -> None:
        """Everything has to be loaded again; a version that keeps killing the worker is given up."""
        for key, entry in list(self._entries.items()):
            if entry.state is VersionState.UNLOADING:
                del self._entries[key]
            elif entry.state is not VersionState.FAILED:
                entry.instance_id = 0
                entry.state = VersionState.LOADING
        if self._loading is not None and self._loading in self._entries:
            entry = self._entries[self._loading]
            entry.load_crashes += 1
            if entry.load_crashes >= _MAX_LOAD_CRASHES:
                self.fail(self._loading, f"the worker died {entry.load_crashes} times while loading it")
        self._loading = None

    def begin_unload(self, key: VersionKey, generation: int) -> None:
        """From catalog `generation` on, nobody may send it requests. One that was never loaded just goes."""
        entry = self._entries[key]
        if key == self._loading:
            return  # the next look at the repository finds it loaded
        if entry.instance_id == 0:
            self.forget(key)
            return
        entry.state = VersionState.UNLOADING
        entry.unload_generation = generation

    def to_unload(self, acknowledged_generation: int) -> list[int]:
        """Instances that every API process has stopped using; each is named once."""
        instance_ids = []
        for entry in self._entries.values():
            if entry.unload_generation is not None and entry.unload_generation <= acknowledged_generation:
                entry.unload_generation = None
                instance_ids.append(entry.instance_id)
        return instance_ids

    def unloaded(self, instance_id: int) -> None:
        for key, entry in list(self._entries.items()):
            if entry.instance_id == instance_id:
                del self._entries[key]

    def is_settled(self) -> bool:
        """Nothing is on its way to ready."""
        return all(entry.state in (VersionState.READY, VersionState.FAILED) for entry in self._entries.values())

    def statuses(self) -> tuple[VersionStatus, ...]:
        return tuple(
            VersionStatus(
                key.model,
                key.version,
                str(entry.found.path),
                entry.manifest_sha256,
                entry.state.value,
                entry.reason,
                entry.variant,
                entry.instance_id,
                self._device if entry.instance_id else "",
            )
            for key, entry in sorted(self._entries.items(), key=lambda item: (item[0].model, item[0].version))
        )
