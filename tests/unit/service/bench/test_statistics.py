"""Percentiles are exact, intervals hold what they promise, and too few values give no figure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.bench.statistics import (
    BATCHES,
    MIN_BATCH,
    Verdict,
    curve_of,
    interval_of,
    latency_of,
    percentiles,
    verdict_of,
)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=300), st.sampled_from([50.0, 90.0, 99.0, 99.9]))
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    (found,) = percentiles(np.array(values), (percent,))

    ordered = sorted(values)
    expected = next(value for rank, value in enumerate(ordered, 1) if rank / len(values) >= percent / 100 - 1e-12)
    assert found == expected


def test_latency_of_nothing_is_unknown() -> None:
    assert latency_of(np.zeros(0)) is None
    assert curve_of(np.zeros(0)) == ()


def test_curve_shows_no_percentile_that_so_few_values_cannot_tell() -> None:
    percents = [percent for percent, _ in curve_of(np.arange(100.0))]

    assert percents[-2:] == [99.0, 100.0]


def test_interval_holds_the_true_percentile_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    true_ms = -np.log(0.5)
    held = 0
    for _ in range(200):
        interval = interval_of(random.exponential(size=BATCHES * MIN_BATCH), 50.0)
        assert interval is not None
        held += interval.low_ms <= true_ms <= interval.high_ms

    assert held == pytest.approx(190, abs=10)


def test_interval_of_values_that_wander_is_wide_although_there_are_many() -> None:
    random = np.random.default_rng(0)
    independent = random.exponential(size=30_000)
    wandering = independent * np.repeat(random.uniform(0.5, 2.0, BATCHES), 3000)

    narrow, wide = interval_of(independent, 50.0), interval_of(wandering, 50.0)

    assert narrow is not None
    assert wide is not None
    assert wide.high_ms - wide.low_ms > 5 * (narrow.high_ms - narrow.low_ms)


def test_interval_holds_its_own_percentile_and_nothing_negative() -> None:
    stalled = np.concatenate([np.ones(2700), np.full(300, 1000.0)])  # all of the stall in the last batch

    interval = interval_of(stalled, 99.0)

    assert interval is not None
    assert 0.0 <= interval.low_ms <= 1000.0 <= interval.high_ms


def test_few_values_have_no_interval() -> None:
    assert interval_of(np.ones(BATCHES * MIN_BATCH - 1), 50.0) is None
    assert interval_of(np.ones(BATCHES * MIN_BATCH), 50.0) is not None


@pytest.mark.parametrize(
    ("count", "beyond", "verdict"),
    [
        (0, 0, Verdict.UNCLEAR),
        (100, 0, Verdict.UNCLEAR),
        (300, 0, Verdict.MET),
        (300, 3, Verdict.UNCLEAR),
        (300, 10, Verdict.MISSED),
        (5, 5, Verdict.MISSED),
        (100_000, 900, Verdict.MET),
        (100_000, 1100, Verdict.MISSED),
    ],
)
def test_verdict_needs_enough_requests(count: int, beyond: int, verdict: Verdict) -> None:
    assert verdict_of(count, beyond, 0.01) is verdict
