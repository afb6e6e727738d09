"""Decides which versions are in memory when models are loaded on demand; pinned models are never unloaded.

Where all models are loaded, it unloads cheaper ladder levels to make room for a version without a place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import Usage
from saccade.service.supervisor.placement.eviction import CachedVersion, Shortage, can_be_met, to_evict
from saccade.service.supervisor.version_entry import Instance, VersionEntry
from saccade.service.supervisor.versions import VersionTable


class Room(Enum):
    """Whether there is room for a version that waits for a place."""

    THERE = "there"
    COMING = "coming"  # another version is being unloaded, or will be as soon as it may
    NEVER = "never"  # there is none unless something else changes


@dataclass(frozen=True, slots=True)
class ModelCacheRule:
    on_demand: bool
    pinned: frozenset[str]
    max_models: int  # 0: only memory is a bound


@dataclass(frozen=True, slots=True)
class ModelCacheEvents:
    """The functions that unload."""

    unload: Callable[[VersionKey], None]  # unloads a version until a request asks for it again
    release: Callable[[VersionKey, Instance], None]  # unloads one instance for good


class ModelCache:
    """The model cache over one version table; only the supervisor's event loop may call it."""

    def __init__(
        self,
        table: VersionTable,
        rule: ModelCacheRule,
        held_bytes: Callable[[VersionEntry, Instance], int],
        events: ModelCacheEvents,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`held_bytes` returns the device memory that an instance holds."""
        self._table = table
        self._rule = rule
        self._held_bytes = held_bytes
        self._events = events
        self._clock = clock
        self._usages: dict[str, dict[VersionKey, Usage]] = {}  # the usages that each API process reported
        self._ready_s: dict[VersionKey, float] = {}
        self._requested: list[VersionKey] = []
        self._has_released = False
        self.is_waiting = False  # whether a version waits for others that may be unloaded later

    def is_on_demand(self, key: VersionKey) -> bool:
        return self._rule.on_demand and key.model not in self._rule.pinned

    def starts_unloaded(self, key: VersionKey) -> bool:
        """Returns whether a new version waits for its first request; one of a loaded model is loaded at once."""
        self._ready_s.pop(key, None)
        is_loaded = any(
            other.model == key.model and entry.instances and not entry.is_unloaded
            for other, entry in self._table.entries()
        )
        return self.is_on_demand(key) and not is_loaded

    def desire(self, key: VersionKey) -> None:
        """Notes that requests wait for a version."""
        if key not in self._requested:
            self._requested.append(key)

    def take_requested(self) -> list[VersionKey]:
        """Returns the unloaded versions to load now; those still being unloaded are kept for later."""
        ready = []
        for key in list(self._requested):
            entry = self._table.entry(key)
            if entry is not None and entry.is_unloaded and entry.instances:
                continue
            self._requested.remove(key)
            if entry is not None and entry.is_unloaded:
                ready.append(key)
        return ready

    def ready(self, key: VersionKey) -> None:
        """Notes that an instance of a version is ready."""
        self._ready_s.setdefault(key, self._clock())

    def used(self, api: str, usages: Iterable[Usage]) -> None:
        self._usages.setdefault(api, {}).update({VersionKey(usage.model, usage.version): usage for usage in usages})

    def api_gone(self, api: str) -> None:
        """Forgets the usages of an API process that ended."""
        self._usages.pop(api, None)

    def has_released(self) -> bool:
        """Returns whether anything was unloaded since the last call, so that a new catalog must be sent."""
        had, self._has_released = self._has_released, False
        return had

    def room(self, key: VersionKey, missing_bytes: Mapping[str, int]) -> Room:
        """Returns whether a version may be placed now, and unloads others where that helps.

        `missing_bytes` maps devices to the bytes that they lack for it; room on one of them is enough.
        """
        models = self._models_too_many(key)
        if not missing_bytes and models <= 0:
            return Room.THERE
        by_size = sorted(missing_bytes.items(), key=lambda item: item[1])
        shortages = [Shortage({device: missing}, models) for device, missing in by_size] or [Shortage({}, models)]
        left = [self._without_leaving(shortage) for shortage in shortages]
        is_coming = any(not shortage.bytes_by_device and shortage.models <= 0 for shortage in left)
        if is_coming or any(self._release_cheaper_levels(key, shortage) for shortage in left) or self._evict(key, left):
            self.is_waiting = True
            return Room.COMING
        return Room.NEVER

    def _models_too_many(self, key: VersionKey) -> int:
        if not (self._rule.on_demand and self._rule.max_models):
            return 0
        loaded = {other.model for other, entry in self._table.entries() if _is_loaded(entry)}
        return len(loaded | {key.model}) - self._rule.max_models

    def _without_leaving(self, shortage: Shortage) -> Shortage:
        """Returns what is still missing once all instances that are being unloaded are gone."""
        leaving: dict[str, int] = {}
        loaded: set[str] = set()
        staying: set[str] = set()
        for key, entry in self._table.entries():
            for instance in entry.instances:
                if instance.state is VersionState.UNLOADING:
                    device = instance.spec.device
                    leaving[device] = leaving.get(device, 0) + self._held_bytes(entry, instance)
                    loaded.add(key.model)
                elif instance.is_placed and instance.state is not VersionState.FAILED:
                    staying.add(key.model)
        missing = {
            device: size - leaving.get(device, 0)
            for device, size in shortage.bytes_by_device.items()
            if size > leaving.get(device, 0)
        }
        return Shortage(missing, shortage.models - len(loaded - staying))

    def _release_cheaper_levels(self, key: VersionKey, shortage: Shortage) -> bool:
        """Unloads cheaper ladder levels of other versions where that is enough for a version without a place."""
        if shortage.models > 0:
            return False
        chosen: list[tuple[VersionKey, Instance]] = []
        for device, missing in shortage.bytes_by_device.items():
            freed = 0
            for owner, entry, instance in self._loaded_cheaper_levels(device, key):
                if freed >= missing:
                    break
                freed += self._held_bytes(entry, instance)
                chosen.append((owner, instance))
            if freed < missing:
                return False
        for owner, instance in chosen:
            self._events.release(owner, instance)
            self._has_released = True
        return bool(chosen)

    def _loaded_cheaper_levels(self, device: str, but: VersionKey) -> list[tuple[VersionKey, VersionEntry, Instance]]:
        found = [
            (key, entry, instance)
            for key, entry in self._table.entries()
            for instance in entry.instances
            if key != but and instance.spec.device == device and instance.spec.ladder_level > 0
            if instance.state is VersionState.READY
        ]
        return sorted(found, key=lambda item: -item[2].spec.ladder_level)

    def _evict(self, key: VersionKey, shortages: Iterable[Shortage]) -> bool:
        """Unloads other versions; returns True when there will be room, now or later."""
        if not self._rule.on_demand:
            return False
        cached = [version for version in self._cached_versions() if version.key != key]
        for shortage in shortages:
            chosen = to_evict(cached, shortage, self._clock())
            if chosen is not None:
                for each in chosen:
                    self._ready_s.pop(each, None)
                    self._events.unload(each)
                    self._has_released = True
                return True
        return any(can_be_met(cached, shortage) for shortage in shortages)

    def _cached_versions(self) -> list[CachedVersion]:
        found = []
        for key, entry in self._table.entries():
            if entry.is_unloaded or not _is_loaded(entry):
                continue
            usages = [usages[key] for usages in self._usages.values() if key in usages]
            now_s = self._clock()
            ready_s = self._ready_s.get(key, now_s) if entry.has_no_load_pending else now_s
            held: dict[str, int] = {}
            for instance in entry.instances:
                if instance.is_placed and instance.state is not VersionState.FAILED:
                    held[instance.spec.device] = held.get(instance.spec.device, 0) + self._held_bytes(entry, instance)
            found.append(
                CachedVersion(
                    key,
                    held,
                    ready_s,
                    entry.load_seconds,
                    max([ready_s, *(usage.last_used_s for usage in usages)]),
                    sum(usage.in_flight for usage in usages),
                    not self.is_on_demand(key),
                )
            )
        return found


def _is_loaded(entry: VersionEntry) -> bool:
    """Returns whether any instance of a version holds memory or has a place."""
    return any(instance.is_placed and instance.state is not VersionState.FAILED for instance in entry.instances)
