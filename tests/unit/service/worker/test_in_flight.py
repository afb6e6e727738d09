"""What is expected of batches in flight."""

from __future__ import annotations

import pytest

from saccade.service.worker.in_flight import InFlight, StartedRun, outlook


def flight(started_s: float, expected_s: float) -> StartedRun[str]:
    return StartedRun("batch", 1, started_s, expected_s)


def test_batches_run_one_after_the_other() -> None:
    found = outlook([flight(10.0, 4.0), flight(11.0, 2.0)], now_s=11.0)

    assert found.ahead.ends_s == 16.0
    assert found.ahead.form_from_s == 15.5  # a quarter of the last run before its end
    assert found.finish_from_s == 13.0  # a quarter of the first one before its end


def test_batch_that_takes_longer_than_expected_is_expected_to_end_now() -> None:
    found = outlook([flight(10.0, 1.0), flight(10.5, 1.0)], now_s=20.0)

    assert found.ahead.ends_s == 21.0
    assert found.finish_from_s < 20.0


def test_short_runs_have_a_lead_that_suffices_to_gather() -> None:
    found = outlook([flight(10.0, 0.0004)], now_s=10.0)

    assert found.finish_from_s == pytest.approx(10.0 - 0.0001)


def test_oldest_is_taken_first_and_nothing_has_no_outlook() -> None:
    flights: InFlight[str] = InFlight()
    assert flights.outlook(1.0) is None
    first, second, third = flight(1.0, 1.0), flight(2.0, 1.0), flight(3.0, 1.0)
    for each in (first, second, third):
        flights.add(each)

    assert flights.take_oldest() is first
    assert flights.take_all() == [second, third]
    assert len(flights) == 0
