"""The search for the highest rate within an objective: pure, so a server can be a formula."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.load.closed_loop import LoadResult
from tests.load.gpu_search import Trial, best_trial, next_connections, next_of, shares, trial_of

OBJECTIVE_MS = 15.0


def server(connections: int, *, most: float = 8000.0, service_ms: float = 1.0) -> Trial:
    """Answers `most` a second; beyond that, requests wait (Little's law)."""
    per_second = min(most, connections / service_ms * 1000)
    latency_ms = connections / per_second * 1000
    return Trial(connections, per_second, latency_ms, 1.5 * latency_ms, 0)


def searched(most_connections: int = 1024, **options: float) -> list[Trial]:
    tried: list[Trial] = []
    while (connections := next_connections(tried, OBJECTIVE_MS, most_connections)) is not None:
        tried.append(server(connections, **options))
        assert len(tried) < 30, "the search must end"
    return tried


def test_search_finds_what_the_server_can_answer_in_time() -> None:
    best = best_trial(searched(), OBJECTIVE_MS)

    assert best is not None
    assert best.per_second == 8000
    assert best.p99_ms <= OBJECTIVE_MS


def test_server_whose_rate_grows_with_its_latency_is_searched_up_to_the_objective() -> None:
    tried: list[Trial] = []
    while (connections := next_connections(tried, OBJECTIVE_MS, 1024)) is not None:
        tried.append(Trial(connections, 100.0 * connections, 0.1 * connections, 0.2 * connections, 0))

    best = best_trial(tried, OBJECTIVE_MS)
    assert best is not None
    assert 65 <= best.connections <= 75, "75 connections are the most that keep 15 ms"


def test_slow_server_is_asked_with_fewer_connections_before_the_search_gives_up() -> None:
    tried = searched(service_ms=50.0, most=20.0)

    assert [trial.connections for trial in tried] == [4, 2, 1]
    assert best_trial(tried, OBJECTIVE_MS) is None


def test_search_stays_within_the_slots_of_the_server() -> None:
    assert max(trial.connections for trial in searched(most_connections=6)) <= 6


@pytest.mark.parametrize(
    "trial", [Trial(4, 900.0, 1.0, 2.0, 3), Trial(4, 0.0, 0.0, 0.0, 0), Trial(4, 900.0, 1.0, 15.1, 0)]
)
def test_errors_no_answers_and_late_answers_do_not_keep_an_objective(trial: Trial) -> None:
    assert not trial.keeps(OBJECTIVE_MS)


def test_clients_share_connections_without_losing_one() -> None:
    assert shares(10, 4) == [3, 3, 2, 2]
    assert shares(2, 4) == [1, 1]


def test_figures_of_several_clients_are_those_of_all_requests() -> None:
    results = [
        LoadResult(2.0, [0.001] * 98, Counter({200: 98})),
        LoadResult(2.0, [0.050, 0.050], Counter({200: 2, 503: 1})),
    ]

    found = trial_of(8, results)

    assert (found.per_second, found.not_200) == (50.0, 1)
    assert found.p50_ms == pytest.approx(1.0)
    assert found.p99_ms > 1.4


def test_load_without_any_answer_is_a_trial_as_well() -> None:
    assert trial_of(4, [LoadResult(1.0, [], Counter({0: 4}))]) == Trial(4, 0.0, 0.0, 0.0, 4)


def test_one_flat_step_does_not_end_the_search() -> None:
    rates = {4: 1000.0, 8: 990.0, 16: 3000.0, 32: 3000.0, 64: 3000.0}
    tried: list[Trial] = []
    while (connections := next_connections(tried, OBJECTIVE_MS, 1024)) is not None:
        tried.append(Trial(connections, rates[connections], 1.0, 2.0, 0))

    assert [trial.connections for trial in tried] == [4, 8, 16, 32, 64]


def test_numbers_that_somebody_named_are_tried_in_order_whatever_is_found() -> None:
    tried: list[Trial] = []
    while (connections := next_of((4, 64, 8), tried)) is not None:
        tried.append(Trial(connections, 0.0, 0.0, 0.0, 5))

    assert [trial.connections for trial in tried] == [4, 64, 8]
