"""Arrivals: their rate, their order, their warm-up, and that a seed decides all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.bench.schedule import (
    MAX_REQUESTS,
    Arrivals,
    Constant,
    Poisson,
    Recorded,
    duration_of,
    request_count,
    schedule_of,
)
from saccade.service.errors import BadParameter

rates = st.floats(1.0, 500.0)
durations = st.floats(1.0, 20.0)
processes = st.one_of(
    st.builds(Constant, rates, durations),
    st.builds(Poisson, rates, durations),
    st.builds(Recorded, st.lists(st.floats(0.0, 60.0), min_size=1, max_size=50).map(tuple), st.floats(0.5, 4.0)),
)


@given(arrivals=processes, seed=st.integers(0, 2**32), warm_up_s=st.floats(0.0, 3.0))
def test_arrivals_ascend_within_the_warm_up_and_the_duration(arrivals: Arrivals, seed: int, warm_up_s: float) -> None:
    try:
        schedule = schedule_of(arrivals, seed, warm_up_s)
    except BadParameter:  # a Poisson process of few requests may have none
        assert request_count(arrivals) < 20
        return
    measured_s = schedule.due_s[schedule.warm_up_count :]

    assert np.all(np.diff(schedule.due_s) >= 0)
    assert schedule.due_s[0] >= -warm_up_s
    assert measured_s[-1] <= schedule.duration_s == duration_of(arrivals)


@given(arrivals=processes, seed=st.integers(0, 1000))
def test_seed_alone_decides_the_plan(arrivals: Arrivals, seed: int) -> None:
    def plan() -> bytes:
        try:
            return schedule_of(arrivals, seed, 0.5).due_s.tobytes()
        except BadParameter:
            return b""

    assert plan() == plan()


@given(
    arrivals=st.one_of(
        st.builds(Constant, rates, durations),
        st.builds(Poisson, rates, durations),
    ),
    seed=st.integers(0, 1000),
    requests=st.integers(1, 500),
)
def test_number_of_requests_is_exact_when_it_is_given(arrivals: Arrivals, seed: int, requests: int) -> None:
    schedule = schedule_of(arrivals, seed, 1.0, requests)

    assert len(schedule.due_s) - schedule.warm_up_count == requests


@given(arrivals=processes, seed=st.integers(0, 1000))
def test_number_of_requests_is_that_of_the_rate(arrivals: Arrivals, seed: int) -> None:
    expected = request_count(arrivals)
    try:
        count = len(schedule_of(arrivals, seed).due_s)
    except BadParameter:
        count = 0

    assert abs(count - expected) <= 7 * expected**0.5 + 2


def test_warm_up_leaves_what_is_measured_as_it_was() -> None:
    cold = schedule_of(Poisson(50.0, 10.0), seed=3)
    warm = schedule_of(Poisson(50.0, 10.0), seed=3, warm_up_s=5.0)

    assert warm.warm_up_count > 150
    assert np.array_equal(warm.due_s[warm.warm_up_count :], cold.due_s)


def test_constant_rate_is_evenly_spaced() -> None:
    assert schedule_of(Constant(4.0, 1.0), seed=0).due_s.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_gaps_of_a_poisson_process_are_exponential() -> None:
    gaps_s = np.diff(schedule_of(Poisson(1000.0, 100.0), seed=1).due_s)

    assert np.mean(gaps_s) == pytest.approx(0.001, rel=0.02)
    assert np.std(gaps_s) == pytest.approx(0.001, rel=0.02)
    assert np.mean(gaps_s > 0.002) == pytest.approx(np.exp(-2), rel=0.05)


def test_recording_is_replayed_faster() -> None:
    assert schedule_of(Recorded((4.0, 0.0, 1.0), speed=2.0), seed=0).due_s.tolist() == [0.0, 0.5, 2.0]


def test_plan_that_is_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(BadParameter, match=str(MAX_REQUESTS)):
        schedule_of(Poisson(1e9, 1e9), seed=0)


def test_plan_without_a_request_is_refused() -> None:
    with pytest.raises(BadParameter, match="no request"):
        schedule_of(Poisson(1e-9, 1.0), seed=0)
