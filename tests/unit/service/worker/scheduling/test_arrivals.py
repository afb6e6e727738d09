"""Gaps between requests, and whether waiting for the next ones pays."""

from __future__ import annotations

import pytest

from saccade.service.worker.scheduling.arrivals import Arrivals
from saccade.service.worker.scheduling.batching import BatchLimits, next_batch, wait_that_pays_s
from tests.unit.service.worker.scheduling.test_batching import Request, Table

SIZES = (1, 2, 4)
PATIENT = BatchLimits(SIZES, max_queue_delay_s=0.1)
TABLE = Table(fixed_s=0.010, each_s=0.001)  # every run that is saved saves 10 ms


def test_gap_is_unknown_before_two_requests() -> None:
    arrivals = Arrivals()
    assert arrivals.gap_s(0.0) is None
    arrivals.observe(1.0)
    assert arrivals.gap_s(2.0) is None


def test_steady_requests_have_their_gap() -> None:
    arrivals = Arrivals()
    for number in range(30):
        arrivals.observe(0.01 * number)

    assert arrivals.gap_s(0.29) == pytest.approx(0.01)


def test_silence_counts_at_once() -> None:
    arrivals = Arrivals()
    for number in range(30):
        arrivals.observe(0.01 * number)

    assert arrivals.gap_s(5.29) == pytest.approx(5.0)


def test_requests_out_of_order_are_no_negative_gap() -> None:
    arrivals = Arrivals()
    for at_s in (1.0, 0.9, 1.1):
        arrivals.observe(at_s)

    gap_s = arrivals.gap_s(1.1)
    assert gap_s is not None
    assert gap_s >= 0.0


@pytest.mark.parametrize(
    ("count", "gap_s", "wait_s"),
    [
        (1, 0.001, 0.003),  # three more within 3 ms save two runs
        (1, 0.004, 0.012),  # still the best, though a second one alone would pay too
        (1, 0.008, 0.008),  # a second one pays, two more do not
        (1, 0.011, 0.0),  # costs more than the run it saves
        (2, 0.004, 0.008),
        (3, 0.004, 0.004),
        (4, 0.001, 0.0),  # full
    ],
)
def test_waiting_pays_where_it_saves_more_than_it_costs(count: int, gap_s: float, wait_s: float) -> None:
    assert wait_that_pays_s(count, gap_s, SIZES, TABLE, at_most_s=1.0) == pytest.approx(wait_s)


def test_waiting_beyond_the_queue_delay_does_not_count() -> None:
    assert wait_that_pays_s(1, 0.004, SIZES, TABLE, at_most_s=0.003) == 0.0


def test_waiting_that_only_makes_up_for_its_cost_does_not_pay() -> None:
    # given two runs of 0.75 s against one of 1 s, and the next request in exactly the 0.5 s that this saves
    assert wait_that_pays_s(1, 0.5, (1, 2), Table(fixed_s=0.5, each_s=0.25), at_most_s=1.0) == 0.0


def test_batch_goes_at_once_when_nobody_is_expected() -> None:
    request = Request(10.0, submitted_s=0.0)

    assert next_batch([request], 0.0, PATIENT, TABLE, gap_s=0.5).batch == (request,)


def test_batch_waits_for_those_that_are_expected_soon() -> None:
    request = Request(10.0, submitted_s=0.0)

    decision = next_batch([request], 0.0, PATIENT, TABLE, gap_s=0.001)

    assert decision.batch == ()
    assert decision.look_again_s == pytest.approx(0.003)


def test_batch_does_not_wait_for_those_that_come_after_the_queue_delay() -> None:
    # given a clock that has run for long, and a next request 4 ms away with 2 ms of the queue delay left
    request = Request(200.0, submitted_s=100.0)
    limits = BatchLimits(SIZES, max_queue_delay_s=0.005)

    assert next_batch([request], 100.003, limits, TABLE, gap_s=0.004).batch == (request,)


def test_wait_is_never_too_short_for_a_thread() -> None:
    decision = next_batch([Request(10.0)], 0.0, PATIENT, TABLE, gap_s=1e-6)

    assert decision.look_again_s == pytest.approx(0.0001)
