"""Accounts for device memory, and gives the waiting instances of the version table a place where they fit.

An instance keeps its place while its worker restarts, so a restart does not change which versions serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from saccade.service.core import VersionKey, VersionState
from saccade.service.device_names import device_kind, is_cpu
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.supervisor.placement.device_memory import DeviceMemory, Holding, Need, capacity_bytes
from saccade.service.supervisor.placement.model_cache import Room
from saccade.service.supervisor.placement.place import Placement, Policy, place
from saccade.service.supervisor.version_entry import Instance, VersionEntry
from saccade.service.supervisor.versions import VersionTable

# A first estimate: the weights, and as much again for activations, workspace and the runtime. It was not measured; the
# first load on a device of this kind replaces it by a measurement.
FILE_FACTOR = 2


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    reserve_mb: int
    limit_mb: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An instance for which a device has no room."""

    key: VersionKey
    device: str
    reason: str
    variant: str
    ladder_level: int  # above 0, the version serves without this instance


@dataclass(frozen=True, slots=True)
class _MemoryKey:
    """What determines the memory of an instance; all devices of one kind in a machine are treated as equal."""

    kind: str
    manifest_sha256: str
    variant: str
    backend: str
    plan_dir: str
    allowed_batch_sizes: tuple[int, ...]


_TOO_MANY_MODELS = "SACCADE_MAX_LOADED_MODELS are loaded, and none of them may leave: all are pinned"
MakesRoom = Callable[[VersionKey, Mapping[str, int]], Room]
"""`ModelCache.room`."""


class DevicePlacement:
    """Decides which devices hold which instances of a version table, by the memory that each device has left."""

    def __init__(self, table: VersionTable, policy: Policy, limits: MemoryLimits) -> None:
        self._table = table
        self._policy: Policy = policy
        self._limits = limits
        self._facts: dict[str, DeviceFacts] = {}
        self._lost: set[str] = set()
        self._measured: dict[_MemoryKey, int] = {}

    def device_ready(self, device: str, facts: DeviceFacts) -> None:
        """Notes what a worker found on its device."""
        self._facts[device] = facts
        self._lost.discard(device)
        self._table.retry_refused()

    def device_lost(self, device: str) -> None:
        self._facts.pop(device, None)
        self._lost.add(device)

    def instance_gone(self) -> None:
        """Tries refused instances again, because an instance was unloaded."""
        self._table.retry_refused()

    def reconcile(self, room: MakesRoom | None = None) -> list[Refused]:
        """Places the waiting instances that fit, newest version first, and returns those that were refused now.

        `room` is called before a version gets its first place, or when none is free; it may unload others.
        """
        self._remember()
        refused: list[Refused] = []
        is_changing = True
        while is_changing:  # `unplaced` returns one ladder level of a version at a time
            is_changing = False
            for key, entry, waiting in self._table.unplaced():
                memory_by_device = {device: self.memory(device) for device in self._facts}
                by_device = {instance.spec.device: instance for instance in waiting}
                needs = {device: self._need(entry, instance) for device, instance in by_device.items()}
                placement = place(needs, memory_by_device, self._lost, self._policy)
                is_first = all(instance.spec.ladder_level == 0 for instance in waiting)
                is_decided = bool(placement.devices or placement.refusals)
                if room is not None and is_first and is_decided:
                    missing = {} if placement.devices else _missing(needs, memory_by_device, placement)
                    verdict = room(key, missing)
                    if verdict is Room.COMING:
                        continue  # the version waits until memory is free
                    if verdict is Room.NEVER and placement.devices:
                        placement = Placement((), dict.fromkeys(placement.devices, _TOO_MANY_MODELS))
                self._table.place(key, placement.devices, placement.refusals, placement.spared)
                for device, reason in placement.refusals.items():
                    spec = by_device[device].spec
                    refused.append(Refused(key, device, reason, spec.variant, spec.ladder_level))
                is_changing |= bool(placement.devices or placement.refusals or placement.spared)
        return refused

    def memory(self, device: str) -> DeviceMemory:
        facts = self._facts.get(device, DeviceFacts())
        # A host's free memory is not used: it leaves out caches that could be freed, and the server's own processes.
        counted = DeviceFacts() if is_cpu(device) else facts
        capacity = capacity_bytes(counted, self._limits.reserve_mb, self._limits.limit_mb)
        holdings = tuple(
            Holding(f"{key.model}/{key.version} {instance.spec.variant}", self._need(entry, instance))
            for key, entry, instance in self._held(device)
        )
        return DeviceMemory(device, capacity, holdings, facts.problem)

    def held_bytes(self, entry: VersionEntry, instance: Instance) -> int:
        """Returns the device memory of an instance, measured or estimated."""
        return self._need(entry, instance).size_bytes

    def measured_bytes(self, device: str) -> int:
        """Returns the memory that the loaded instances of a device were measured to hold."""
        return sum(instance.memory_bytes for _, _, instance in self._held(device))

    def _held(self, device: str) -> Iterator[tuple[VersionKey, VersionEntry, Instance]]:
        for key, entry in self._table.entries():
            for instance in entry.instances:
                is_held = instance.is_placed and instance.state is not VersionState.FAILED
                if is_held and instance.spec.device == device:
                    yield key, entry, instance

    def _need(self, entry: VersionEntry, instance: Instance) -> Need:
        measured = instance.memory_bytes or self._measured.get(_memory_key(entry, instance), 0)
        return Need(measured, True) if measured else Need(FILE_FACTOR * instance.spec.file_bytes, False)

    def _remember(self) -> None:
        """Keeps measured memory, so that the next instance of the same files needs no estimate."""
        for _, entry in self._table.entries():
            for instance in entry.instances:
                if instance.memory_bytes:
                    self._measured[_memory_key(entry, instance)] = instance.memory_bytes


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


def _memory_key(entry: VersionEntry, instance: Instance) -> _MemoryKey:
    spec = instance.spec
    kind = device_kind(spec.device)
    return _MemoryKey(kind, entry.manifest_sha256, spec.variant, spec.backend, spec.plan_dir, entry.allowed_batch_sizes)
