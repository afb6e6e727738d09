"""Admits requests by slot. Promises: memory, queue and concurrency bounded by one number; a slot comes back once.

A request of more images than there are slots gets what is free, and each of its other images the next slot that comes
back, in turn. An image holds one slot and waits for nothing while it does, so that two such requests cannot block each
other.

A permit counts who may touch its slot: the request, the decoding thread, the worker. The slot is free again only
when the last of them let go, so a request that gave up never hands its slot to a neighbour too early.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Protocol

from saccade.service.api.waits import WaitEstimates
from saccade.service.errors import Overloaded, WorkerLost
from saccade.service.ipc.tensor_slots import SlotArena


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

    def __init__(self, slots_in_use: Gauge, senders: int = 1) -> None:
        """`senders` processes have slots of their own on the device, this one included."""
        self._arena: SlotArena | None = None
        self._free_slots: deque[int] = deque()
        self._slots_in_use = slots_in_use
        self._in_line: deque[tuple[asyncio.Future[Permit], int]] = deque()
        self.in_flight: Counter[int] = Counter()  # by instance; what a worker may still be at
        self.waits = WaitEstimates(senders)

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
        self.waits.clear()
        in_line, self._in_line = self._in_line, deque()
        for waiting, _ in in_line:
            if not waiting.done():
                waiting.set_exception(WorkerLost("the device worker stopped before this image's turn; retry shortly"))
        self._slots_in_use.set(0)

    def is_current(self, permit: Permit) -> bool:
        """False once the arena the permit's slot lies in was retired."""
        return permit.arena is self._arena

    def room_for(self, count: int, left_free: float = 0.0) -> int:
        """How many of `count` permits may be had now, when that share of all slots is to stay free."""
        total = self._arena.slot_count if self._arena else 0
        return max(0, min(count, len(self._free_slots) - int(left_free * total)))

    def admit(self, count: int, retry_after_s: float, instance_id: int = 0, left_free: float = 0.0) -> list[Permit]:
        """Permits for an instance: `count`, or as many as there are, one at least. Raises Overloaded."""
        given = self.room_for(count, left_free)
        if self._arena is None or given == 0:
            raise self.refusal(count, retry_after_s)
        return [self._permit(self._arena, instance_id) for _ in range(given)]

    def refusal(self, count: int, retry_after_s: float) -> Overloaded:
        """What to raise where there is no room."""
        total = self._arena.slot_count if self._arena else 0
        return Overloaded(
            f"{count} of {total} slots asked for, {len(self._free_slots)} free; retry later, or raise "
            "SACCADE_SLOTS if the latency allows",
            retry_after_s,
            "slots",
        )

    def next_permit(self, instance_id: int) -> asyncio.Future[Permit]:
        """The next slot that comes back, in turn. Whoever stops waiting cancels it, or lets go what it got.

        The future raises WorkerLost when the arena was retired.
        """
        waiting: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        if self._arena is not None and self._free_slots:
            waiting.set_result(self._permit(self._arena, instance_id))
        else:
            self._in_line.append((waiting, instance_id))
        return waiting

    def _permit(self, arena: SlotArena, instance_id: int) -> Permit:
        permit = Permit(self, arena, self._free_slots.popleft(), instance_id)
        self.in_flight[instance_id] += 1
        self._slots_in_use.set(self.in_use)
        return permit

    def _free(self, permit: Permit) -> None:
        if self.is_current(permit):
            self._free_slots.append(permit.slot)
            self.in_flight[permit.instance_id] -= 1
            if self.in_flight[permit.instance_id] == 0:
                del self.in_flight[permit.instance_id]
            self._slots_in_use.set(self.in_use)
            while self._in_line and self._free_slots:
                waiting, instance_id = self._in_line.popleft()
                if not waiting.done():
                    waiting.set_result(self._permit(permit.arena, instance_id))
