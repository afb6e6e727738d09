"""Admits requests by slot. Promises: memory, queue and concurrency bounded by one number; a slot comes back once.

A permit counts who may touch its slot: the request, the decoding thread, the worker. The slot is free again only
when the last of them let go, so a request that gave up never hands its slot to a neighbour too early.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Protocol

from service.errors import Overloaded
from service.workers.tensor_slots import SlotArena


class Gauge(Protocol):
    def set(self, value: float) -> None: ...


class Permit:
    """The right to one request in flight, and its slot."""

    __slots__ = ("_admission", "_holders", "arena", "instance_id", "slot")

    def __init__(self, admission: Admission, arena: SlotArena, slot: int, instance_id: int) -> None:
        self._admission = admission
        self._holders = 1
        self.arena = arena
        self.slot = slot
        self.instance_id = instance_id

    def hold(self) -> None:
        """One more party may touch the slot."""
        self._holders += 1

    def let_go(self) -> None:
        """A party is done with the slot; the last one frees it."""
        self._holders -= 1
        if self._holders == 0:
            self._admission._free(self)


class Admission:
    """The slots of one API process on one device. Belongs to its event loop; not thread-safe."""

    def __init__(self, slots_in_use: Gauge) -> None:
        self._arena: SlotArena | None = None
        self._free_slots: deque[int] = deque()
        self._slots_in_use = slots_in_use
        self.in_flight: Counter[int] = Counter()  # by instance; what a worker may still be at

    @property
    def in_use(self) -> int:
        return self._arena.slot_count - len(self._free_slots) if self._arena else 0

    @property
    def free(self) -> int:
        return len(self._free_slots)

    def adopt(self, arena: SlotArena) -> None:
        """Starts over with a fresh arena; permits of the previous one are left to expire on their own."""
        self._arena = arena
        self._free_slots = deque(range(arena.slot_count))
        self.in_flight.clear()
        self._slots_in_use.set(0)

    def is_current(self, permit: Permit) -> bool:
        """False once the arena the permit's slot lies in was retired."""
        return permit.arena is self._arena

    def admit(self, count: int, retry_after_s: float, instance_id: int = 0) -> list[Permit]:
        """`count` permits for an instance at once, or none. Raises Overloaded."""
        if self._arena is None or len(self._free_slots) < count:
            total = self._arena.slot_count if self._arena else 0
            raise Overloaded(
                f"{count} of {total} slots asked for, {len(self._free_slots)} free; retry later, or raise "
                "SACCADE_SLOTS if the latency allows",
                retry_after_s,
                "slots",
            )
        permits = [Permit(self, self._arena, self._free_slots.popleft(), instance_id) for _ in range(count)]
        self.in_flight[instance_id] += count
        self._slots_in_use.set(self.in_use)
        return permits

    def _free(self, permit: Permit) -> None:
        if self.is_current(permit):
            self._free_slots.append(permit.slot)
            self.in_flight[permit.instance_id] -= 1
            if self.in_flight[permit.instance_id] == 0:
                del self.in_flight[permit.instance_id]
            self._slots_in_use.set(self.in_use)
