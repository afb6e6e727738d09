"""Computes what a device's memory holds, and whether it has room for one more instance."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.service.ipc.messages import DeviceFacts

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Need:
    """The device memory of one instance."""

    size_bytes: int
    is_measured: bool  # True: measured at a load of the same files; False: estimated from the size of its files

    def __str__(self) -> str:
        return f"{mib(self.size_bytes)} MiB ({'measured' if self.is_measured else 'estimated from its files'})"


@dataclass(frozen=True, slots=True)
class Holding:
    """An instance that is loaded, or for which memory is reserved."""

    name: str  # such as "detector/3 int8-trt"
    need: Need


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of one device whose worker has reported it."""

    device: str
    capacity_bytes: int | None  # None: not bounded, as for a CPU without a limit
    holdings: tuple[Holding, ...]
    problem: str = ""  # reason why the device cannot be used at all

    @property
    def held_bytes(self) -> int:
        return sum(holding.need.size_bytes for holding in self.holdings)

    @property
    def free_bytes(self) -> int | None:
        """Free bytes; negative where a measurement exceeds the estimate that it replaced."""
        return None if self.capacity_bytes is None else self.capacity_bytes - self.held_bytes

    def refusal(self, need: Need) -> str | None:
        """Returns the reason why an instance with this need does not fit; None when it fits."""
        if self.problem:
            return self.problem
        free_bytes = self.free_bytes
        if self.capacity_bytes is None or free_bytes is None or need.size_bytes <= free_bytes:
            return None
        largest = sorted(self.holdings, key=lambda holding: -holding.need.size_bytes)
        held = ", ".join(f"{holding.name} {holding.need}" for holding in largest) or "nothing"
        return (
            f"needs {need}; {self.device} has {mib(free_bytes)} of {mib(self.capacity_bytes)} MiB free, "
            f"held by: {held}. "
            "It is tried again when a version is unloaded; SACCADE_DEVICE_MEMORY_LIMIT_MB and "
            "SACCADE_DEVICE_MEMORY_RESERVE_MB set what may be used"
        )


def capacity_bytes(facts: DeviceFacts, reserve_mb: int, limit_mb: int) -> int | None:
    """Returns the bytes that models may hold: those free before any load, less the reserve, up to the limit.

    A limit of 0 means no limit. Only the limit bounds a device that reports no memory.
    """
    found = facts.memory_free_bytes or facts.memory_total_bytes
    bounds = []
    if found:
        bounds.append(max(0, found - reserve_mb * _MIB))
    if limit_mb:
        bounds.append(limit_mb * _MIB)
    return min(bounds, default=None)


def mib(size_bytes: int) -> str:
    """Formats bytes in MiB, with one decimal below 100 MiB."""
    value = size_bytes / _MIB
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"
