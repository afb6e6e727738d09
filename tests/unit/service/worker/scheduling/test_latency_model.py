"""Expected run times: median of the last runs, next larger size for one never seen."""

from __future__ import annotations

import math

import pytest

from saccade.service.worker.scheduling.latency_model import LatencyModel


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


def test_slow_drift_is_followed() -> None:
    model = LatencyModel()
    for number in range(200):
        model.observe(1, 0.010 * (1 + number / 100))

    assert model.batch_s(1) == pytest.approx(0.030, rel=0.05)


def test_stall_now_and_then_does_not_move_the_estimate() -> None:
    model = LatencyModel()
    for number in range(200):
        model.observe(1, 0.400 if number % 5 == 0 else 0.010)

    assert model.batch_s(1) == 0.010


def test_large_size_that_looked_slow_once_is_tried_again() -> None:
    # given a size that warm-up measured in a slow spell, so that deadlines kept it from running since
    model = LatencyModel()
    for _ in range(3):
        model.observe(8, 4.0)
    for _ in range(64):
        model.observe(4, 0.02)
    assert model.batch_s(8) == 4.0

    model.observe(4, 0.02)

    assert model.batch_s(8) == pytest.approx(0.04), "no worse than two batches of four"
    model.observe(8, 3.0)
    assert model.batch_s(8) == 4.0, "measured again: it is that slow"


def test_old_figure_is_not_faster_than_a_smaller_batch_now() -> None:
    # given a device that became slower since the large size ran last
    model = LatencyModel()
    model.observe(8, 0.010)
    for _ in range(70):
        model.observe(4, 0.050)

    assert model.batch_s(8) == 0.050


def test_usual_range_leaves_out_the_fastest_tenth_and_the_slowest_fifth() -> None:
    model = LatencyModel()
    for number in range(15):
        model.observe(4, float(number))

    assert model.usual_range_s(4) == (1.0, 11.0)
    assert LatencyModel().usual_range_s(4) == (0.0, math.inf)


def test_time_since_a_size_ran_is_what_others_have_run() -> None:
    model = LatencyModel()
    assert model.since_s(1) == 0.0
    for size, seconds in ((1, 0.5), (4, 2.0), (8, 4.0)):
        model.observe(size, seconds)

    assert [model.since_s(size) for size in (1, 2, 4, 8)] == [6.0, 6.5, 4.0, 0.0]


def test_size_is_known_once_it_ran_as_often_as_its_figures_count() -> None:
    model = LatencyModel()
    for _ in range(14):
        model.observe(2, 0.1)
    assert not model.is_known(2)
    model.observe(2, 0.1)

    assert model.is_known(2)
    assert not model.is_known(1)
