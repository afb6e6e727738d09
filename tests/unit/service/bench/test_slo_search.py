"""The search against simulated servers whose limit is known, and against those that have none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.service.bench.schedule import Poisson, schedule_of
from saccade.service.bench.slo_search import ALLOWED_LATE, SearchEnd, SearchLimits, SloSearch, Trial
from saccade.service.bench.statistics import Verdict

OBJECTIVE_S = 0.05
TRIAL_S = 20.0


def m_d_1_latencies_s(rate_rps: float, service_s: float, duration_s: float, seed: int) -> np.ndarray:
    """Poisson arrivals, one server, the same time for each: Lindley's recursion, unrolled."""
    due_s = schedule_of(Poisson(rate_rps, duration_s), seed).due_s
    before_s = np.arange(len(due_s)) * service_s
    return np.maximum.accumulate(due_s - before_s) + before_s + service_s - due_s


def searched(limits: SearchLimits, try_rate: Callable[[float, int], Trial]) -> SloSearch:
    search = SloSearch(limits)
    while (rate := search.next_rate()) is not None:
        search.record(try_rate(rate, len(search.trials)))
        assert len(search.trials) < 200
    return search


@pytest.mark.parametrize("service_s", [0.001, 0.004, 0.01])
@pytest.mark.parametrize("start_rps", [5.0, 5000.0])
def test_limit_of_an_m_d_1_queue_is_found(service_s: float, start_rps: float) -> None:
    def try_rate(rate: float, seed: int) -> Trial:
        latencies_s = m_d_1_latencies_s(rate, service_s, max(TRIAL_S, 300 / rate), seed)
        return Trial(rate, len(latencies_s), int(np.sum(latencies_s > OBJECTIVE_S)), None)

    search = searched(SearchLimits(start_rps, 1e5), try_rate)

    assert search.end is SearchEnd.FOUND
    assert search.met_rps is not None
    assert search.met_rps == pytest.approx(true_limit(service_s), rel=0.1)


def true_limit(service_s: float) -> float:
    """By bisection over one very long simulation per rate."""
    low, high = 0.1 / service_s, 1.0 / service_s
    for _ in range(8):
        middle = (low + high) / 2
        late = np.mean(m_d_1_latencies_s(middle, service_s, 40_000 * service_s, seed=99) > OBJECTIVE_S)
        low, high = (middle, high) if late <= ALLOWED_LATE else (low, middle)
    return low


@settings(max_examples=50)
@given(limit=st.floats(1.0, 1e4), start=st.floats(0.1, 1e5), precision=st.floats(0.01, 0.3), seed=st.integers(0, 1000))
def test_found_rate_met_the_objective_and_one_just_above_did_not(
    limit: float, start: float, precision: float, seed: int
) -> None:
    random = np.random.default_rng(seed)

    def try_rate(rate: float, _: int) -> Trial:
        late = random.binomial(1000, 0.001 if rate <= limit else 0.6)
        return Trial(rate, 1000, int(late), 1.0)

    search = searched(SearchLimits(start, 1e6, precision), try_rate)

    if search.end is SearchEnd.NO_RATE:
        assert start / 2**12 > limit
        return
    assert search.met_rps is not None
    assert search.missed_rps is not None
    assert search.met_rps <= limit * 1.001 < search.missed_rps * 1.002
    assert search.missed_rps / search.met_rps <= 1 + precision


def test_server_without_a_limit_is_tried_up_to_the_highest_rate() -> None:
    search = searched(SearchLimits(10.0, 300.0), lambda rate, _: Trial(rate, 1000, 0, 1.0))

    assert (search.end, search.met_rps) == (SearchEnd.RATE_LIMIT, 300.0)


def test_server_that_never_answers_ends_the_search() -> None:
    search = searched(SearchLimits(10.0, 300.0), lambda rate, _: Trial(rate, 1000, 1000, None))

    assert (search.end, search.met_rps) == (SearchEnd.NO_RATE, None)


def test_client_that_is_the_limit_ends_the_search_and_blames_no_server() -> None:
    search = searched(
        SearchLimits(100.0, 1e5), lambda rate, _: Trial(rate, 1000, 0 if rate < 500 else 500, 1.0, rate >= 500)
    )

    assert (search.end, search.met_rps, search.missed_rps) == (SearchEnd.CLIENT_LIMIT, 400.0, None)


def test_one_disturbance_does_not_condemn_a_rate() -> None:
    search = SloSearch(SearchLimits(100.0, 100.0))

    verdicts = [search.record(Trial(100.0, 1000, late, 1.0)) for late in (25, 0, 0)]

    assert verdicts == [Verdict.UNCLEAR, Verdict.UNCLEAR, Verdict.MET]


def test_collapse_needs_no_second_trial() -> None:
    search = SloSearch(SearchLimits(100.0, 1000.0))

    assert search.record(Trial(100.0, 1000, 200, 1.0)) is Verdict.MISSED


def test_rate_that_stays_unclear_is_decided_by_all_its_requests() -> None:
    search = SloSearch(SearchLimits(100.0, 100.0))

    verdicts = [search.record(Trial(100.0, 1000, late, 1.0)) for late in (9, 9, 13)]

    assert verdicts == [Verdict.UNCLEAR, Verdict.UNCLEAR, Verdict.MISSED]


def test_interrupted_search_keeps_what_it_knows() -> None:
    search = SloSearch(SearchLimits(100.0, 1000.0))
    search.record(Trial(100.0, 1000, 0, 1.0))

    search.interrupt()

    assert (search.next_rate(), search.met_rps, search.end) == (None, 100.0, SearchEnd.INTERRUPTED)


def test_search_ends_soon_where_requests_fail_whatever_the_rate() -> None:
    search = searched(SearchLimits(400.0, 400.0), lambda rate, seed: Trial(rate, 300, 60, None))

    assert search.end is SearchEnd.NO_RATE
    assert [trial.rate_rps for trial in search.trials] == [400.0, 200.0, 100.0]


def test_search_goes_on_while_a_server_is_far_beyond_its_capacity() -> None:
    search = searched(SearchLimits(4000.0, 4000.0), lambda rate, seed: Trial(rate, 1000, 990 if rate > 50 else 0, None))

    assert search.met_rps is not None
    assert 40.0 < search.met_rps <= 50.0
