"""Permits and slots: bounded by one number, freed once, never across arenas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from service.errors import Overloaded
from service.scheduling.admission import Admission
from service.workers.tensor_slots import SlotArena


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


def test_several_permits_come_all_or_none(admission: Admission) -> None:
    admission.admit(1, 1.0)

    with pytest.raises(Overloaded):
        admission.admit(2, 1.0)
    assert admission.in_use == 1


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

    old.let_go()

    assert not admission.is_current(old)
    assert admission.is_current(new[0])
    assert admission.in_use == 2
    with pytest.raises(Overloaded):
        admission.admit(1, 1.0)
