"""The shared-memory slots of one API process for one device; their number bounds memory, queue and concurrency.

A permit counts its holders, which are those that may use the slot: the request, the decoding thread, the worker. The
slot is free again only when the last holder has released the permit, so a slot that somebody still uses is never given
to another request.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from saccade.service.errors import WorkerLost
from saccade.service.ipc.tensor_slots import SlotArena

_SHOWN_EVERY_S = 0.05


class Permit:
    """The right of one image to be in flight, and its slot."""

    __slots__ = ("_holders", "_slots", "arena", "instance_id", "slot")

    def __init__(self, slots: Slots, arena: SlotArena, slot: int, instance_id: int) -> None:
        self._slots = slots
        self._holders = 1
        self.arena = arena
        self.slot = slot
        self.instance_id = instance_id

    def hold(self) -> None:
        """Adds a holder that may use the slot."""
        self._holders += 1

    def release(self) -> None:
        """Removes a holder; the last one frees the slot."""
        self._holders -= 1
        if self._holders == 0:
            self._slots._free(self)


class Slots:
    """The free and taken slots; only the event loop of the process may call it, since it is not thread-safe."""

    def __init__(self, show_in_use: Callable[[int], None] = lambda count: None) -> None:
        self._arena: SlotArena | None = None
        self._free_slots: deque[int] = deque()
        self._show_in_use = show_in_use
        self._waiting: deque[tuple[asyncio.Future[Permit], int]] = deque()
        self.in_flight: Counter[int] = Counter()  # permits by instance number, until their slots are free again
        self.count = 0

    @property
    def in_use(self) -> int:
        return self.count - len(self._free_slots)

    @property
    def free(self) -> int:
        return len(self._free_slots)

    def adopt(self, arena: SlotArena) -> None:
        """Replaces the arena by a fresh one; slots of the previous arena are never used again."""
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
        """Whether the arena of the permit's slot is still the present one."""
        return permit.arena is self._arena

    def take(self, count: int, instance_id: int) -> list[Permit]:
        """Takes free slots for an instance. Raises IndexError when fewer are free, which admission checks before."""
        return [self._permit(instance_id) for _ in range(count)]

    def next_permit(self, instance_id: int) -> asyncio.Future[Permit]:
        """Returns a future for the next free slot, first come, first served.

        The future raises WorkerLost when the arena is replaced. A caller that stops waiting cancels the future, or
        releases the permit that it got.
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
    """Shows the number of slots in use on all devices, once for many changes.

    The figure is written to a file that other processes read, which is too slow for every request.
    """

    def __init__(self, show: Callable[[int], None], later: Callable[[Callable[[], None]], object]) -> None:
        """`later` calls its argument once, soon; see `a_moment_later`."""
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
    """Calls `show` from the running event loop after 50 ms."""
    asyncio.get_running_loop().call_later(_SHOWN_EVERY_S, show)
