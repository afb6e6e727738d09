"""What an API process knows of a wait, and whom it refuses for it."""

from __future__ import annotations

import pytest

from saccade.service.api.load import PoolLoad
from saccade.service.api.priority import Priority, priority_from
from saccade.service.api.waits import Urgency, Wait, WaitBounds, WaitEstimates, excess_s
from saccade.service.errors import BadParameter


@pytest.fixture
def waits() -> WaitEstimates:
    """Instance 7 said at 100 s that one would wait 2 s, and 0.1 s more for each further image."""
    made = WaitEstimates()
    made.sent(7)
    made.answered(7, wait_s=2.0, image_s=0.1, run_s=0.4, now_s=100.0)
    return made


def test_instance_that_never_answered_is_not_waited_for() -> None:
    assert WaitEstimates().wait(7, in_flight=50, now_s=0.0) == Wait(0.0, 0.0)


def test_wait_shrinks_as_time_passes_and_is_gone_in_the_end(waits: WaitEstimates) -> None:
    assert waits.wait(7, 0, 100.5).wait_s == pytest.approx(1.5)
    assert waits.wait(7, 0, 103.0).wait_s == 0.0


def test_what_was_sent_since_and_what_is_still_decoded_comes_on_top(waits: WaitEstimates) -> None:
    for _ in range(3):
        waits.sent(7)

    assert waits.wait(7, in_flight=5, now_s=100.0).wait_s == pytest.approx(2.0 + 5 * 0.1)


def test_news_replace_what_was_known(waits: WaitEstimates) -> None:
    waits.sent(7)
    waits.answered(7, wait_s=0.5, image_s=0.1, run_s=0.0, now_s=101.0)

    assert waits.wait(7, 0, 101.0) == Wait(0.5, 0.4)


def test_run_time_follows_what_runs(waits: WaitEstimates) -> None:
    for _ in range(30):
        waits.sent(7)
        waits.answered(7, wait_s=0.0, image_s=0.1, run_s=0.8, now_s=101.0)

    assert waits.wait(7, 0, 101.0).run_s == pytest.approx(0.8, rel=0.01)


def test_gone_instances_and_retired_arenas_are_forgotten(waits: WaitEstimates) -> None:
    waits.keep_only({7})
    assert waits.wait(7, 0, 100.0).wait_s == 2.0
    waits.keep_only({8})
    assert waits.wait(7, 0, 100.0).wait_s == 0.0
    waits.sent(8)
    waits.clear()
    assert waits.wait(8, in_flight=3, now_s=100.0) == Wait(0.0, 0.0)


NORMAL = Urgency(Priority.NORMAL, allowed_s=1.0)


@pytest.mark.parametrize(
    ("urgency", "wait", "excess"),
    [
        (NORMAL, Wait(0.7, 0.1), 0.0),
        (NORMAL, Wait(0.9, 0.1), 0.2),
        (Urgency(Priority.HIGH, 1.0), Wait(0.9, 0.1), 0.05),
        (Urgency(Priority.LOW, 1.0), Wait(0.7, 0.1), 0.4),
        (Urgency(Priority.NORMAL, 1.0, decode_wait_s=0.9, decode_s=0.1), Wait(0.2, 0.1), 0.3),
        (Urgency(Priority.NORMAL, None), Wait(100.0, 0.1), 0.0),
        (Urgency(Priority.NORMAL, 0.05), Wait(0.0, 0.1), 0.0),  # would be late, but the worker decides
        (Urgency(Priority.NORMAL, 0.05), Wait(0.01, 0.1), 0.01),
    ],
)
def test_who_would_use_up_its_time_waiting_is_refused(urgency: Urgency, wait: Wait, excess: float) -> None:
    assert excess_s(urgency, wait, WaitBounds()) == pytest.approx(excess)


@pytest.mark.parametrize(("priority", "excess"), [(Priority.HIGH, 0.5), (Priority.NORMAL, 0.5), (Priority.LOW, 0.75)])
def test_bound_on_the_wait_is_half_for_low_priority(priority: Priority, excess: float) -> None:
    assert excess_s(Urgency(priority, 60.0), Wait(1.0, 0.0), WaitBounds(0.5)) == pytest.approx(excess)


BY_RUNS, WITHIN_A_SECOND = WaitBounds(has_objective=True), WaitBounds(has_objective=True, objective_s=1.0)
UNNAMED = Urgency(Priority.NORMAL, 10.0, names_deadline=False)


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
        (UNNAMED, WaitBounds(), Wait(7.0, 0.1), False),
        (Urgency(Priority.NORMAL, 10.0), BY_RUNS, Wait(7.0, 0.1), False),  # the client said that it has the time
        (Urgency(Priority.NORMAL, None, names_deadline=False), BY_RUNS, Wait(7.0, 0.1), False),  # it may still say so
    ],
)
def test_who_names_no_deadline_is_refused_by_the_objective(
    urgency: Urgency, bounds: WaitBounds, wait: Wait, is_refused: bool
) -> None:
    assert (excess_s(urgency, wait, bounds) > 0) is is_refused


@pytest.mark.parametrize(
    ("header", "priority"),
    [(None, Priority.NORMAL), (b"high", Priority.HIGH), (b" Low ", Priority.LOW), (b"NORMAL", Priority.NORMAL)],
)
def test_priority_is_read_from_its_header(header: bytes | None, priority: Priority) -> None:
    assert priority_from(header) is priority


@pytest.mark.parametrize("header", [b"", b"urgent", b"high,low", b"\xff"])
def test_other_priorities_are_refused(header: bytes) -> None:
    with pytest.raises(BadParameter, match="high, normal, low"):
        priority_from(header)


def test_pool_with_a_free_thread_keeps_nobody_waiting() -> None:
    load = PoolLoad(threads=2)
    load.begin()
    load.end(0.5)
    load.begin()

    assert load.wait_s == 0.0


def test_jobs_beyond_the_threads_are_waited_for() -> None:
    load = PoolLoad(threads=2)
    load.begin()
    load.end(0.5)
    for _ in range(5):
        load.begin()

    assert load.wait_s == pytest.approx(4 * 0.5 / 2)
    load.end(None)
    assert load.wait_s == pytest.approx(3 * 0.5 / 2)
    assert load.job_s == 0.5


def test_other_senders_are_taken_to_send_as_much() -> None:
    made = WaitEstimates(senders=2)
    made.sent(7)
    made.answered(7, wait_s=0.0, image_s=0.01, run_s=0.02, now_s=0.0)
    for _ in range(3):
        made.sent(7)

    assert made.wait(7, in_flight=3, now_s=0.0).wait_s == pytest.approx(0.06)
    assert made.wait(7, in_flight=4, now_s=0.0).wait_s == pytest.approx(0.08)  # one is still being decoded here
