"""Permits and slots: bounded by one number, freed once, never across arenas; one gauge for all devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from saccade.service.api.slots import Slots, SlotsInUse
from saccade.service.errors import WorkerLost
from saccade.service.ipc.tensor_slots import SlotArena


@pytest.fixture
def arenas() -> Iterator[list[SlotArena]]:
    """Two arenas of two slots."""
    with ExitStack() as stack:
        made = [SlotArena.create(2, 4096) for _ in range(2)]
        for arena in made:
            stack.callback(arena.close)
        yield made


@pytest.fixture
def shown() -> list[int]:
    """Every count of slots in use that was shown."""
    return []


@pytest.fixture
def slots(arenas: list[SlotArena], shown: list[int]) -> Slots:
    made = Slots(shown.append)
    made.adopt(arenas[0])
    return made


def test_without_an_arena_there_is_no_slot() -> None:
    slots = Slots()

    assert (slots.count, slots.free, slots.in_use) == (0, 0, 0)
    with pytest.raises(IndexError):
        slots.take(1, 7)


async def test_slots_that_come_back_go_to_whoever_waited_longest(slots: Slots) -> None:
    held = slots.take(2, 0)
    first, second = slots.next_permit(7), slots.next_permit(8)

    held[0].release()
    assert (first.done(), second.done()) == (True, False)
    assert slots.free == 0  # a newcomer does not pass them
    first.result().release()

    assert second.result().instance_id == 8
    assert slots.in_flight == {0: 1, 8: 1}


async def test_whoever_no_longer_waits_is_passed_over(slots: Slots) -> None:
    held = slots.take(2, 0)
    gone, waiting = slots.next_permit(7), slots.next_permit(7)
    gone.cancel()

    held[0].release()

    assert waiting.done()
    waiting.result().release()
    assert slots.in_use == 1


async def test_free_slot_is_had_at_once(slots: Slots) -> None:
    assert slots.next_permit(7).done()
    assert slots.in_use == 1


async def test_waiting_ends_with_the_arena(slots: Slots, arenas: list[SlotArena]) -> None:
    slots.take(2, 0)
    waiting = slots.next_permit(7)

    slots.adopt(arenas[1])

    with pytest.raises(WorkerLost):
        await waiting


def test_permits_have_different_slots(slots: Slots) -> None:
    assert {permit.slot for permit in slots.take(2, 0)} == {0, 1}


def test_slot_is_free_again_when_its_permit_is_released(slots: Slots, shown: list[int]) -> None:
    permits = slots.take(2, 0)
    assert shown[-1] == 2

    permits[0].release()

    assert shown[-1] == 1
    assert slots.take(1, 0)[0].slot == permits[0].slot


def test_slot_stays_taken_until_the_last_holder_releases_it(slots: Slots) -> None:
    # given a request, a decoding thread and a worker that all may touch the slot
    (permit,) = slots.take(1, 0)
    permit.hold()
    permit.hold()

    permit.release()
    permit.release()
    assert slots.in_use == 1

    permit.release()
    assert slots.in_use == 0


def test_permit_of_a_retired_arena_does_not_free_a_slot_of_the_new_one(slots: Slots, arenas: list[SlotArena]) -> None:
    (old,) = slots.take(1, 0)
    slots.adopt(arenas[1])
    new = slots.take(2, 0)
    assert len(new) == 2

    old.release()

    assert not slots.is_current(old)
    assert slots.is_current(new[0])
    assert (slots.in_use, slots.free) == (2, 0)


def test_slots_in_use_are_shown_once_for_many_changes() -> None:
    shown: list[int] = []
    due: list[Callable[[], None]] = []
    in_use = SlotsInUse(shown.append, due.append)

    for count in (1, 2, 3):
        in_use.set("cuda:0", count)
    in_use.set("cuda:1", 4)
    assert (shown, len(due)) == ([], 1)
    due[0]()

    assert shown == [7]
    in_use.set("cuda:0", 0)
    assert len(due) == 2
