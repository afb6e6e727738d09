"""Permits and slots: bounded by one number, freed once, never across arenas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from saccade.service.api.admission import Admission
from saccade.service.errors import Overloaded, WorkerLost
from saccade.service.ipc.tensor_slots import SlotArena


class RecordedGauge:
    def __init__(self) -> None:
        self.value = -1.0

    def set(self, value: float) -> None:
        self.value = value


@pytest.fixture
def arenas() -> Iterator[list[SlotArena]]:
    """Two arenas of two slots."""
    with ExitStack() as stack:
        made = [SlotArena.create(2, 4096) for _ in range(2)]
        for arena in made:
            stack.callback(arena.close)
        yield made


@pytest.fixture
def gauge() -> RecordedGauge:
    return RecordedGauge()


@pytest.fixture
def admission(arenas: list[SlotArena], gauge: RecordedGauge) -> Admission:
    made = Admission(gauge)
    made.adopt(arenas[0])
    return made


def test_no_arena_answers_overloaded(gauge: RecordedGauge) -> None:
    with pytest.raises(Overloaded, match="1 of 0 slots"):
        Admission(gauge).admit(1, 1.0)


def test_full_admission_answers_overloaded_with_what_to_change(admission: Admission) -> None:
    admission.admit(2, 1.0)

    with pytest.raises(Overloaded, match=r"1 of 2 slots asked for, 0 free; .*SACCADE_SLOTS") as caught:
        admission.admit(1, 2.5)
    assert (caught.value.what, caught.value.retry_after_s) == ("slots", 2.5)


def test_several_permits_come_as_far_as_there_are(admission: Admission) -> None:
    admission.admit(1, 1.0)

    assert len(admission.admit(3, 1.0)) == 1
    assert admission.in_use == 2
    with pytest.raises(Overloaded):
        admission.admit(3, 1.0)


def test_low_priority_leaves_slots_to_the_others(admission: Admission) -> None:
    assert len(admission.admit(2, 1.0, left_free=0.5)) == 1

    with pytest.raises(Overloaded):
        admission.admit(1, 1.0, left_free=0.5)
    assert len(admission.admit(1, 1.0)) == 1


async def test_slots_that_come_back_go_to_those_in_line_in_turn(admission: Admission) -> None:
    held = admission.admit(2, 1.0)
    first, second = admission.next_permit(7), admission.next_permit(8)

    held[0].let_go()
    assert (first.done(), second.done()) == (True, False)
    with pytest.raises(Overloaded):  # a newcomer does not pass them
        admission.admit(1, 1.0)
    first.result().let_go()

    assert second.result().instance_id == 8
    assert admission.in_flight == {0: 1, 8: 1}


async def test_who_no_longer_waits_in_line_is_passed_over(admission: Admission) -> None:
    held = admission.admit(2, 1.0)
    gone, waiting = admission.next_permit(7), admission.next_permit(7)
    gone.cancel()

    held[0].let_go()

    assert waiting.done()
    waiting.result().let_go()
    assert admission.in_use == 1


async def test_free_slot_needs_no_line(admission: Admission) -> None:
    assert admission.next_permit(7).done()
    assert admission.in_use == 1


async def test_line_ends_with_the_arena(admission: Admission, arenas: list[SlotArena]) -> None:
    admission.admit(2, 1.0)
    waiting = admission.next_permit(7)

    admission.adopt(arenas[1])

    with pytest.raises(WorkerLost):
        await waiting


def test_permits_have_different_slots(admission: Admission) -> None:
    assert {permit.slot for permit in admission.admit(2, 1.0)} == {0, 1}


def test_slot_is_free_again_when_its_permit_is_let_go(admission: Admission, gauge: RecordedGauge) -> None:
    permits = admission.admit(2, 1.0)
    assert gauge.value == 2

    permits[0].let_go()

    assert gauge.value == 1
    assert admission.admit(1, 1.0)[0].slot == permits[0].slot


def test_slot_stays_taken_until_the_last_holder_lets_go(admission: Admission) -> None:
    # given a request, a decoding thread and a worker that all may touch the slot
    (permit,) = admission.admit(1, 1.0)
    permit.hold()
    permit.hold()

    permit.let_go()
    permit.let_go()
    assert admission.in_use == 1

    permit.let_go()
    assert admission.in_use == 0


def test_permit_of_a_retired_arena_does_not_free_a_slot_of_the_new_one(
    admission: Admission, arenas: list[SlotArena]
) -> None:
    (old,) = admission.admit(1, 1.0)
    admission.adopt(arenas[1])
    new = admission.admit(2, 1.0)
    assert len(new) == 2

    old.let_go()

    assert not admission.is_current(old)
    assert admission.is_current(new[0])
    assert admission.in_use == 2
    with pytest.raises(Overloaded):
        admission.admit(1, 1.0)
