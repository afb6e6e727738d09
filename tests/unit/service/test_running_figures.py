"""The running mean: what the first value counts for, and how fast it follows."""

from __future__ import annotations

import pytest

from saccade.service.running_figures import RunningMean


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
