"""The pure decisions of admission: who is refused for the wait, and which of several offers is the best."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.api.admission_rules import (
    Offer,
    Urgency,
    WaitBounds,
    best_offer,
    excess_s,
    open_offers,
    refusal_of,
    roomy_offers,
)
from saccade.service.api.instance_estimates import Wait
from saccade.service.api.priority import Priority
from saccade.service.errors import NotReady, Overloaded
from tests.unit.service.api.catalogs import instance

DEVICES = ("cuda:0", "cuda:1", "cuda:2")
SLOTS = 16


def offer(device: str, image_s: float | None = 0.01, instance_id: int = 1, free_slots: int = SLOTS) -> Offer:
    return Offer(instance(device, instance_id), free_slots, SLOTS, Wait(0.0, 0.0), image_s)


def chosen(*offers: Offer, outstanding_s: dict[str, float] | None = None, images: int = 1, number: int = 0) -> str:
    return best_offer(offers, outstanding_s or {}, images, number).instance.device


def test_offer_with_slots_for_all_images_comes_before_a_faster_one() -> None:
    fast, roomy = offer("cuda:0", 0.001, free_slots=3), offer("cuda:1", 1.0, free_slots=4)

    assert roomy_offers([fast, roomy], 4, Priority.NORMAL) == [roomy]
    assert roomy_offers([fast, roomy], 3, Priority.NORMAL) == [fast, roomy]
    assert roomy_offers([fast, roomy], 9, Priority.NORMAL) == [roomy], "where none has enough, most slots count"


def test_slots_that_low_priority_leaves_to_others_do_not_count() -> None:
    first, second = offer("cuda:0", 0.001, free_slots=4), offer("cuda:1", 1.0, free_slots=8)

    assert roomy_offers([first, second], 1, Priority.LOW) == [second]
    assert roomy_offers([first, second], 1, Priority.HIGH) == [first, second]


def test_device_with_least_outstanding_work_answers() -> None:
    equals = [offer("cuda:0"), offer("cuda:1")]

    assert chosen(*equals, outstanding_s={"cuda:0": 0.05, "cuda:1": 0.04}) == "cuda:1"


def test_fast_device_is_preferred_to_an_idle_slow_one_while_it_would_be_done_sooner() -> None:
    fast, slow = offer("cuda:0", 0.001), offer("cuda:1", 0.1)

    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.05}) == "cuda:0"
    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.15}) == "cuda:1"


def test_all_images_of_a_request_count() -> None:
    fast, slow = offer("cuda:0", 0.01), offer("cuda:1", 0.02)

    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.03}, images=1) == "cuda:1"
    assert chosen(fast, slow, outstanding_s={"cuda:0": 0.03}, images=8) == "cuda:0"


def test_equals_take_turns() -> None:
    equals = [offer(device) for device in DEVICES]

    assert Counter(chosen(*equals, number=number) for number in range(9)) == dict.fromkeys(DEVICES, 3)


def test_unmeasured_instance_is_taken_for_as_fast_as_the_fastest() -> None:
    known, unknown = offer("cuda:0", 0.01), offer("cuda:1", None)

    assert chosen(known, unknown, outstanding_s={"cuda:0": 0.001}) == "cuda:1"
    assert chosen(known, unknown, outstanding_s={"cuda:1": 0.001}) == "cuda:0"


def test_faster_of_two_instances_on_one_device_answers() -> None:
    old, new = offer("cuda:0", 0.01, 1), offer("cuda:0", 0.002, 2)

    assert best_offer([old, new], {"cuda:0": 1.0}, 1, 0) is new


offers = st.lists(st.tuples(st.sampled_from(DEVICES), st.none() | st.floats(1e-5, 10.0)), min_size=1, max_size=6).map(
    lambda items: [offer(device, image_s, number) for number, (device, image_s) in enumerate(items, 1)]
)


@given(
    offers,
    st.dictionaries(st.sampled_from(DEVICES), st.floats(0.0, 1e3)),
    st.integers(1, 16),
    st.integers(0, 10**9),
)
def test_no_other_offer_would_be_done_sooner(
    given_offers: list[Offer], outstanding_s: dict[str, float], images: int, number: int
) -> None:
    found = best_offer(given_offers, outstanding_s, images, number)

    fastest_s = min((item.image_s for item in given_offers if item.image_s is not None), default=0.01)

    def done_s(item: Offer) -> float:
        return outstanding_s.get(item.instance.device, 0.0) + images * (
            fastest_s if item.image_s is None else item.image_s
        )

    assert found in given_offers
    assert done_s(found) <= min(map(done_s, given_offers)) + 1e-6


@given(st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=3), st.integers(50, 300))
def test_backlog_is_shared_by_speed(speeds_s: list[float], requests: int) -> None:
    """Nobody answers: when all have been handed out, no device is more than one image further behind than another."""
    given_offers = [offer(device, image_s) for device, image_s in zip(DEVICES, speeds_s, strict=False)]
    outstanding_s: Counter[str] = Counter()
    for number in range(requests):
        found = best_offer(given_offers, outstanding_s, 1, number)
        outstanding_s[found.instance.device] += found.image_s  # type: ignore[assignment]  # a counter of seconds

    behind = [outstanding_s[item.instance.device] for item in given_offers]
    assert max(behind) - min(behind) <= max(speeds_s) + 1e-5


NORMAL = Urgency(Priority.NORMAL, allowed_s=1.0)


@pytest.mark.parametrize(
    ("urgency", "wait", "excess"),
    [
        (NORMAL, Wait(0.7, 0.1), 0.0),
        (NORMAL, Wait(0.9, 0.1), 0.2),
        (Urgency(Priority.HIGH, 1.0), Wait(0.9, 0.1), 0.05),
        (Urgency(Priority.LOW, 1.0), Wait(0.7, 0.1), 0.4),
        (Urgency(Priority.NORMAL, 1.0, decode_wait_s=0.9, decode_s=0.1), Wait(0.2, 0.1), 0.3),
        (Urgency(Priority.NORMAL, 1.0, delay_s=0.1), Wait(0.9, 0.1), 0.2),  # within the share that may not be waited
        (Urgency(Priority.NORMAL, 1.0, delay_s=0.3), Wait(0.7, 0.1), 0.1),
        (Urgency(Priority.NORMAL, 1.0, delay_s=5.0), Wait(0.7, 0.1), 0.16),  # most of what may be waited is left
        (Urgency(Priority.NORMAL, None), Wait(100.0, 0.1), 0.0),
        (Urgency(Priority.NORMAL, 0.05), Wait(0.0, 0.1), 0.0),  # would be late, but the worker decides
        (Urgency(Priority.NORMAL, 0.05), Wait(0.01, 0.1), 0.01),
        (Urgency(Priority.NORMAL, 0.25, decode_s=2.0), Wait(0.0001, 0.1), 0.0),  # what decoding took is mended so alone
    ],
)
def test_who_would_use_up_its_time_waiting_is_refused(urgency: Urgency, wait: Wait, excess: float) -> None:
    assert excess_s(urgency, wait, WaitBounds()) == pytest.approx(excess)


@pytest.mark.parametrize(("priority", "excess"), [(Priority.HIGH, 0.5), (Priority.NORMAL, 0.5), (Priority.LOW, 0.75)])
def test_bound_on_the_wait_is_half_for_low_priority(priority: Priority, excess: float) -> None:
    assert excess_s(Urgency(priority, 60.0), Wait(1.0, 0.0), WaitBounds(0.5)) == pytest.approx(excess)


BY_RUNS, WITHIN_A_SECOND = WaitBounds(has_objective=True), WaitBounds(has_objective=True, objective_s=1.0)
UNNAMED = Urgency(Priority.NORMAL, 10.0, names_deadline=False)


def of_its_own(objective_s: float) -> Urgency:
    return Urgency(Priority.NORMAL, 10.0, names_deadline=False, objective_s=objective_s)


@pytest.mark.parametrize(
    ("urgency", "bounds", "wait", "is_refused"),
    [
        (UNNAMED, BY_RUNS, Wait(0.6, 0.1), False),  # ten runs are 1 s, of which 0.8 s less the run may be waited
        (UNNAMED, BY_RUNS, Wait(0.8, 0.1), True),
        (UNNAMED, BY_RUNS, Wait(0.15, 0.001), False),  # a tiny model: the least objective
        (UNNAMED, BY_RUNS, Wait(0.25, 0.001), True),
        (UNNAMED, BY_RUNS, Wait(0.0, 0.0), False),  # nothing was measured
        (UNNAMED, BY_RUNS, Wait(7.0, 5.0), True),  # the default deadline is nearer than ten runs
        (UNNAMED, WITHIN_A_SECOND, Wait(0.6, 0.1), False),
        (UNNAMED, WITHIN_A_SECOND, Wait(0.8, 0.01), True),
        (of_its_own(2.0), WITHIN_A_SECOND, Wait(1.4, 0.1), False),  # the model's own objective comes first
        (of_its_own(0.2), BY_RUNS, Wait(0.18, 0.1), True),
        (of_its_own(0.2), WaitBounds(), Wait(7.0, 0.1), False),
        (UNNAMED, WaitBounds(), Wait(7.0, 0.1), False),
        (Urgency(Priority.NORMAL, 10.0), BY_RUNS, Wait(7.0, 0.1), False),  # the client said that it has the time
        (Urgency(Priority.NORMAL, None, names_deadline=False), BY_RUNS, Wait(7.0, 0.1), False),  # it may still say so
    ],
)
def test_who_names_no_deadline_is_refused_by_the_objective(
    urgency: Urgency, bounds: WaitBounds, wait: Wait, is_refused: bool
) -> None:
    assert (excess_s(urgency, wait, bounds) > 0) is is_refused


def waiting(wait_s: float, run_s: float = 0.25, *, free_slots: int = SLOTS) -> Offer:
    return Offer(instance("cuda:0", 1), free_slots, SLOTS, Wait(wait_s, run_s))


SOON = Urgency(Priority.NORMAL, allowed_s=1.25)  # of which 1 s, less the run, may be waited


def test_who_uses_up_exactly_its_time_enters() -> None:
    assert refusal_of(waiting(0.75), SOON, WaitBounds()) is None
    assert refusal_of(waiting(0.5), Urgency(Priority.NORMAL), WaitBounds(0.5)) is None


def test_refusal_says_how_long_the_wait_is_and_when_to_retry() -> None:
    refused = refusal_of(waiting(1.0), SOON, WaitBounds())

    assert refused is not None
    assert (refused.what, refused.retry_after_s) == ("wait", 0.25)
    assert "would wait about 1000 ms" in str(refused)


@pytest.mark.parametrize(("wait_s", "retry_after_s"), [(0.0, 1.0), (2.5, 2.5)])
def test_full_slots_refuse_for_a_second_or_for_the_wait(wait_s: float, retry_after_s: float) -> None:
    refused = refusal_of(waiting(wait_s, free_slots=0), SOON, WaitBounds())

    assert refused is not None
    assert (refused.what, refused.retry_after_s) == ("slots", retry_after_s)


def test_last_free_slot_is_given_but_not_to_low_priority() -> None:
    last = waiting(0.0, free_slots=1)

    assert refusal_of(last, Urgency(Priority.NORMAL), WaitBounds()) is None
    assert refusal_of(last, Urgency(Priority.LOW), WaitBounds()) is not None


def test_shortest_time_to_retry_is_named_where_all_refuse_and_those_that_do_not_are_kept() -> None:
    long, short, free = waiting(5.0), waiting(2.0), waiting(0.0)

    assert open_offers([long, free, short], SOON, WaitBounds()) == [free]
    with pytest.raises(Overloaded) as caught:
        open_offers([long, short], SOON, WaitBounds())
    assert caught.value.retry_after_s == 1.25
    with pytest.raises(NotReady):
        open_offers([], SOON, WaitBounds())


@pytest.mark.parametrize(("run_s", "allowed_s"), [(0.01, 0.25), (0.025, 0.25), (0.5, 5.0), (2.0, 10.0)])
def test_objective_is_ten_runs_but_neither_less_than_a_quarter_second_nor_more_than_the_deadline(
    run_s: float, allowed_s: float
) -> None:
    assert BY_RUNS.allowed_s(UNNAMED, run_s) == allowed_s
