"""Expected run times: median of the last runs, next larger size for one never seen."""

from __future__ import annotations

import pytest

from service.scheduling.latency_model import LatencyModel


def test_nothing_observed_answers_zero() -> None:
    assert LatencyModel().batch_s(4) == 0.0


def test_single_outlier_does_not_move_the_estimate() -> None:
    model = LatencyModel()
    for seconds in (0.010, 0.011, 5.0, 0.010, 0.011):
        model.observe(1, seconds)

    assert model.batch_s(1) == 0.011


def test_lasting_change_is_followed_within_the_window() -> None:
    model = LatencyModel()
    for seconds in [0.010] * 15 + [0.040] * 8:
        model.observe(1, seconds)

    assert model.batch_s(1) == 0.040


@pytest.mark.parametrize(("size", "seconds"), [(1, 0.1), (2, 0.4), (4, 0.4), (8, 0.4)])
def test_unseen_size_answers_for_the_next_larger_one(size: int, seconds: float) -> None:
    model = LatencyModel()
    model.observe(4, 0.4)
    model.observe(1, 0.1)

    assert model.batch_s(size) == seconds


def test_drain_time_counts_the_largest_batches_first() -> None:
    model = LatencyModel()
    for size, seconds in ((1, 0.1), (4, 0.2)):
        model.observe(size, seconds)

    assert model.drain_s(9, (1, 4)) == pytest.approx(2 * 0.2 + 0.1)
    assert model.drain_s(0, (1, 4)) == 0.0
