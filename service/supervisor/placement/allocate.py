"""Gives instances a place on their devices within memory, and says what leaves to make room. Pure.

Every version gets a place before any gets a second: instances go by ladder level, then newest version first. What has
a place keeps it, also while its worker restarts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from saccade.service.core import VersionKey
from saccade.service.device_names import is_cpu
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.settings import Settings
from saccade.service.supervisor.facts import Facts, memory_key
from saccade.service.supervisor.placement.device_memory import DeviceMemory, Holding, Need, capacity_bytes
from saccade.service.supervisor.placement.eviction import CachedVersion, Shortage, can_be_met, to_evict
from saccade.service.supervisor.placement.place import Placement, place
from saccade.service.supervisor.state import (
    Held,
    Leaving,
    NoRoom,
    Placed,
    Ready,
    Slot,
    Verified,
    Waiting,
    is_settled,
)

# A first estimate: the weights, and as much again for activations, workspace and the runtime. It was not measured; the
# first load on a device of this kind replaces it by a measurement.
FILE_FACTOR = 2
_TOO_MANY_MODELS = "SACCADE_MAX_LOADED_MODELS are loaded, and none of them may leave: all are pinned"


@dataclass(frozen=True, slots=True)
class Group:
    """The instances of one version and ladder level that need a place: one per device, or one of them."""

    key: VersionKey
    level: int
    slots: Mapping[str, Slot]
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Allocation:
    states: Mapping[Slot, Placed | Waiting | NoRoom]  # a slot that is not here is not needed
    evicted: frozenset[VersionKey] = frozenset()  # versions that sleep from now on
    released: frozenset[Slot] = frozenset()  # cheaper ladder levels that give way
    is_waiting: bool = False  # something may leave later, when requests have ended or it is old enough


class Room(Enum):
    """Whether there is room for a version that waits for a place."""

    THERE = "there"
    COMING = "coming"  # another version is leaving, or will as soon as it may
    NEVER = "never"  # there is none unless something else changes


def allocate(groups: Iterable[Group], staying: Iterable[Slot], facts: Facts, settings: Settings) -> Allocation:
    """Decides on the groups in their order; instances outside `staying` that hold memory are expected to leave."""
    books = _Books(facts, settings, frozenset(staying))
    states: dict[Slot, Placed | Waiting | NoRoom] = {}
    blocked: set[VersionKey] = set()  # versions whose better level waits for its place
    chosen: dict[VersionKey, set[str]] = {}
    for group in sorted(groups, key=lambda item: (item.level, -item.key.version, item.turn)):
        if settings.placement == "spread" and group.level and group.key in chosen:
            slots = {device: slot for device, slot in group.slots.items() if device in chosen[group.key]}
        else:
            slots = dict(group.slots)
        placement = None if group.key in blocked else books.placement(group, slots)
        for device, slot in slots.items():
            if placement is not None and device in placement.devices:
                states[slot] = Placed()
                books.held[slot] = books.need(slot)
                chosen.setdefault(group.key, set()).add(device)
            elif placement is not None and device in placement.refusals:
                states[slot] = NoRoom(placement.refusals[device])
            elif placement is None or device not in placement.spared:
                states[slot] = Waiting()
                blocked.add(group.key)
    return Allocation(states, frozenset(books.evicted), frozenset(books.released), books.is_waiting)


class _Books:
    """The memory of all devices while `allocate` decides."""

    def __init__(self, facts: Facts, settings: Settings, staying: frozenset[Slot]) -> None:
        self._facts = facts
        self._settings = settings
        self.held: dict[Slot, Need] = {}
        self.going: set[Slot] = set()
        for slot, state in facts.instances.items():
            if isinstance(state, Held):
                self.held[slot] = self.need(slot)
                if isinstance(state, Leaving) or slot not in staying:
                    self.going.add(slot)
        self.evicted: set[VersionKey] = set()
        self.released: set[Slot] = set()
        self.is_waiting = False

    def need(self, slot: Slot) -> Need:
        state = self._facts.instances.get(slot)
        measured = state.memory_bytes if isinstance(state, Ready | Leaving) else 0
        version = self._facts.versions.get(slot.key)
        if not measured and version is not None and isinstance(version.check, Verified):
            measured = self._facts.measured.get(memory_key(slot, version.check), 0)
        return Need(measured, True) if measured else Need(FILE_FACTOR * slot.spec.file_bytes, False)

    def memory(self, device: str) -> DeviceMemory:
        facts = self._facts.devices[device]
        # A host's free memory is not used: it leaves out caches that could be freed, and the server's own processes.
        counted = DeviceFacts() if is_cpu(device) else facts
        capacity = capacity_bytes(
            counted, self._settings.device_memory_reserve_mb, self._settings.device_memory_limit_mb
        )
        holdings = tuple(
            Holding(f"{slot.key.model}/{slot.key.version} {slot.spec.variant}", need)
            for slot, need in self.held.items()
            if slot.device == device
        )
        return DeviceMemory(device, capacity, holdings, facts.problem)

    def placement(self, group: Group, slots: Mapping[str, Slot]) -> Placement | None:
        """Decides on one group; None where it waits until memory is free."""
        needs = {device: self.need(slot) for device, slot in slots.items()}
        memory = {device: self.memory(device) for device in self._facts.devices}
        placement = place(needs, memory, self._facts.lost, self._settings.placement)
        if group.level or not (placement.devices or placement.refusals):
            return placement
        missing = {} if placement.devices else _missing(needs, memory, placement)
        room = self._room(group.key, missing)
        if room is Room.NEVER and placement.devices:
            return Placement((), dict.fromkeys(slots, _TOO_MANY_MODELS))
        return None if room is Room.COMING else placement

    def _room(self, key: VersionKey, missing_bytes: Mapping[str, int]) -> Room:
        """Returns whether a version may be placed now, and has others leave where that helps.

        `missing_bytes` maps devices to the bytes that they lack for it; room on one of them is enough.
        """
        models = self._models_too_many(key)
        if not missing_bytes and models <= 0:
            return Room.THERE
        by_size = sorted(missing_bytes.items(), key=lambda item: item[1])
        shortages = [Shortage({device: missing}, models) for device, missing in by_size] or [Shortage({}, models)]
        left = [self._without_going(shortage) for shortage in shortages]
        is_coming = any(not shortage.bytes_by_device and shortage.models <= 0 for shortage in left)
        if is_coming or any(self._release_levels(key, shortage) for shortage in left) or self._evict(key, left):
            self.is_waiting = True
            return Room.COMING
        return Room.NEVER

    def _models_too_many(self, key: VersionKey) -> int:
        if self._settings.load_models == "all" or not self._settings.max_loaded_models:
            return 0
        return len({slot.key.model for slot in self.held} | {key.model}) - self._settings.max_loaded_models

    def _without_going(self, shortage: Shortage) -> Shortage:
        """Returns what is still missing once everything that leaves is gone."""
        missing = {
            device: size - going
            for device, size in shortage.bytes_by_device.items()
            if size > (going := self._bytes(slot for slot in self.going if slot.device == device))
        }
        left = {slot.key.model for slot in self.going} - {slot.key.model for slot in self.held.keys() - self.going}
        return Shortage(missing, shortage.models - len(left))

    def _bytes(self, slots: Iterable[Slot]) -> int:
        return sum(self.held[slot].size_bytes for slot in slots)

    def _release_levels(self, key: VersionKey, shortage: Shortage) -> bool:
        """Has cheaper ladder levels of other versions leave where that is enough for a version without a place."""
        if shortage.models > 0:
            return False
        chosen: list[Slot] = []
        for device, missing in shortage.bytes_by_device.items():
            freed = 0
            for slot in self._cheaper_levels(device, key):
                if freed >= missing:
                    break
                freed += self.held[slot].size_bytes
                chosen.append(slot)
            if freed < missing:
                return False
        self.released |= {*chosen}
        self.going |= {*chosen}
        return bool(chosen)

    def _cheaper_levels(self, device: str, but: VersionKey) -> list[Slot]:
        found = [
            slot
            for slot in self.held.keys() - self.going
            if slot.key != but and slot.device == device and slot.level > 0
            if isinstance(self._facts.instances.get(slot), Ready)
        ]
        return sorted(found, key=lambda slot: -slot.level)

    def _evict(self, key: VersionKey, shortages: Sequence[Shortage]) -> bool:
        """Has other versions leave; returns True when there will be room, now or later."""
        if self._settings.load_models == "all":
            return False
        cached = [version for version in self._cached() if version.key != key]
        for shortage in shortages:
            chosen = to_evict(cached, shortage, self._facts.now_s)
            if chosen is not None:
                self.evicted |= {*chosen}
                self.going |= {slot for slot in self.held if slot.key in self.evicted}
                return True
        return any(can_be_met(cached, shortage) for shortage in shortages)

    def _cached(self) -> list[CachedVersion]:
        now_s = self._facts.now_s
        found = []
        for key, version in self._facts.versions.items():
            verified, held = version.verified, [slot for slot in self.held.keys() - self.going if slot.key == key]
            if verified is None or not held:
                continue
            states = self._facts.of(key).values()
            ready_s = now_s if verified.ready_s is None or not is_settled(version, states) else verified.ready_s
            usages = self._facts.usages.get(key, ())
            found.append(
                CachedVersion(
                    key,
                    {device: self._bytes(s for s in held if s.device == device) for device in {s.device for s in held}},
                    ready_s,
                    verified.load_seconds,
                    max([ready_s, *(usage.last_used_s for usage in usages)]),
                    sum(usage.in_flight for usage in usages),
                    not verified.on_demand,
                )
            )
        return found


def _missing(
    needs: Mapping[str, Need], memory_by_device: Mapping[str, DeviceMemory], placement: Placement
) -> dict[str, int]:
    """Returns the bytes that each device lacks; unusable devices, and those too small when empty, are left out."""
    missing = {}
    for device in placement.refusals:
        memory, size = memory_by_device[device], needs[device].size_bytes
        if not memory.problem and memory.capacity_bytes is not None and size <= memory.capacity_bytes:
            missing[device] = size - (memory.free_bytes or 0)
    return missing
