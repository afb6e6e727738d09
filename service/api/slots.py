"""The shared-memory slots of one API process on one device: memory, queue and concurrency are bounded by their number.

A permit counts who may touch its slot: the request, the decoding thread, the worker. The slot is free again only when
the last of them has released the permit, so a request that gave up never hands its slot to another one too early.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from saccade.service.errors import WorkerLost
from saccade.service.ipc.tensor_slots import SlotArena

_SHOWN_EVERY_S = 0.05


class Permit:
    """The right to one request in flight, and its slot."""

    __slots__ = ("_holders", "_slots", "arena", "instance_id", "slot")

    def __init__(self, slots: Slots, arena: SlotArena, slot: int, instance_id: int) -> None:
        self._slots = slots
        self._holders = 1
        self.arena = arena
        self.slot = slot
        self.instance_id = instance_id

    def hold(self) -> None:
        """One more party may touch the slot."""
        self._holders += 1

    def release(self) -> None:
        """A party is done with the slot; the last one frees it."""
        self._holders -= 1
        if self._holders == 0:
            self._slots._free(self)


class Slots:
    """Free and taken slots. They belong to the event loop of their process and are not thread-safe."""

    def __init__(self, show_in_use: Callable[[int], None] = lambda count: None) -> None:
        self._arena: SlotArena | None = None
        self._free_slots: deque[int] = deque()
        self._show_in_use = show_in_use
        self._waiting: deque[tuple[asyncio.Future[Permit], int]] = deque()
        self.in_flight: Counter[int] = Counter()  # permits by instance; the worker may still be busy with them
        self.count = 0

    @property
    def in_use(self) -> int:
        return self.count - len(self._free_slots)

    @property
    def free(self) -> int:
        return len(self._free_slots)

    def adopt(self, arena: SlotArena) -> None:
        """Starts over with a fresh arena. Slots of the previous one are never free again."""
        self._arena = arena
        self.count = arena.slot_count
        self._free_slots = deque(range(arena.slot_count))
        self.in_flight.clear()
        waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            if not future.done():
                future.set_exception(WorkerLost("the device worker stopped before this image's turn; retry shortly"))
        self._show_in_use(0)

    def is_current(self, permit: Permit) -> bool:
        """False once the arena that the permit's slot lies in was replaced."""
        return permit.arena is self._arena

    def take(self, count: int, instance_id: int) -> list[Permit]:
        """Permits for an instance. Raises IndexError for more than are free: admission asks before."""
        return [self._permit(instance_id) for _ in range(count)]

    def next_permit(self, instance_id: int) -> asyncio.Future[Permit]:
        """The next slot that comes back, first come, first served. The future raises WorkerLost with the arena.

        Whoever stops waiting cancels the future, or releases the permit that it got.
        """
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        if self._free_slots:
            future.set_result(self._permit(instance_id))
        else:
            self._waiting.append((future, instance_id))
        return future

    def _permit(self, instance_id: int) -> Permit:
        slot = self._free_slots.popleft()
        assert self._arena is not None  # without an arena no slot is free
        permit = Permit(self, self._arena, slot, instance_id)
        self.in_flight[instance_id] += 1
        self._show_in_use(self.in_use)
        return permit

    def _free(self, permit: Permit) -> None:
        if not self.is_current(permit):
            return
        self._free_slots.append(permit.slot)
        self.in_flight[permit.instance_id] -= 1
        if self.in_flight[permit.instance_id] == 0:
            del self.in_flight[permit.instance_id]
        self._show_in_use(self.in_use)
        while self._waiting and self._free_slots:
            future, instance_id = self._waiting.popleft()
            if not future.done():
                future.set_result(self._permit(instance_id))


class SlotsInUse:
    """Shows the slots in use on all devices as one figure, once for many changes.

    The figure is written to a file that other processes read, which is too slow for every request.
    """

    def __init__(self, show: Callable[[int], None], later: Callable[[Callable[[], None]], object]) -> None:
        """`later` calls what it is given, once, soon; see `a_moment_later`."""
        self._show = show
        self._later = later
        self._counts: dict[str, int] = {}
        self._is_due = False

    def set(self, device: str, count: int) -> None:
        self._counts[device] = count
        if not self._is_due:
            self._is_due = True
            self._later(self._show_sum)

    def _show_sum(self) -> None:
        self._is_due = False
        self._show(sum(self._counts.values()))


def a_moment_later(show: Callable[[], None]) -> None:
    """Calls `show` from the running event loop."""
    asyncio.get_running_loop().call_later(_SHOWN_EVERY_S, show)
