"""The running mean and the running quantile: what a value counts for, and how fast they follow."""

from __future__ import annotations

import random

import pytest

from saccade.service.running_figures import RunningMean, RunningQuantile


def test_mean_of_nothing_is_unknown_and_the_first_value_counts_fully() -> None:
    mean = RunningMean(0.1)
    assert mean.value is None

    mean.add(8.0)

    assert mean.value == 8.0


def test_every_later_value_counts_for_its_share() -> None:
    mean = RunningMean(0.25)
    for value in (8.0, 4.0, 11.0):
        mean.add(value)

    assert mean.value == pytest.approx(0.75 * 7.0 + 0.25 * 11.0)


def test_first_value_is_an_ordinary_one_after_a_start() -> None:
    mean = RunningMean(0.25, start=0.0)

    mean.add(8.0)

    assert mean.value == 2.0


def test_quantile_settles_where_its_share_of_the_values_is_below_it() -> None:
    quantile = RunningQuantile(0.9, step=0.1)
    values = [float(number) for number in range(100)]
    random.Random(0).shuffle(values)

    for _ in range(100):
        for value in values:
            quantile.add(value)

    assert quantile.value == pytest.approx(90.0, abs=2.0)


def test_quantile_is_never_below_nothing() -> None:
    quantile = RunningQuantile(0.9, step=0.1)

    quantile.add(-5.0)

    assert quantile.value == 0.0
