"""Bounds that hold at every look: they cover, also when one stops at the worst moment, and they narrow."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.service.supervisor.rollout.bounds import interval, is_above, is_below


@pytest.mark.parametrize("mean", [0.001, 0.03, 0.5, 0.99])
def test_true_mean_is_hardly_ever_excluded_however_often_one_looks(mean: float) -> None:
    random, alpha, wrong = np.random.default_rng(1), 0.05, 0
    for _ in range(200):
        totals = np.cumsum(random.random(2000) < mean)
        looks = np.unique(np.geomspace(1, 2000, 100).astype(int))
        excluded = [
            is_above(mean, int(totals[count - 1]), int(count), alpha)
            or is_below(mean, int(totals[count - 1]), int(count), alpha)
            for count in looks
        ]
        wrong += any(excluded)

    assert wrong <= 10 + 9  # 5 % of 200, and three standard deviations


def test_values_between_zero_and_one_are_covered_too() -> None:
    random = np.random.default_rng(2)
    sums = np.cumsum(random.beta(2.0, 1.0, (200, 1000)), axis=1)  # mean 2/3

    wrong = [any(is_below(2 / 3, total, count + 1, 0.05) for count, total in enumerate(row.tolist())) for row in sums]

    assert sum(wrong) <= 10


@pytest.mark.parametrize(("total", "count"), [(0, 10), (3, 10), (10, 10), (0.5, 1000), (20, 1000)])
def test_interval_holds_exactly_the_means_that_are_not_excluded(total: float, count: int) -> None:
    low, high = interval(total, count, 0.01)

    assert low <= total / count <= high
    for mean in np.linspace(0.001, 0.999, 50).tolist():
        excluded = is_above(mean, total, count, 0.01) or is_below(mean, total, count, 0.01)
        assert excluded == (mean < low or mean > high)


def test_interval_narrows_and_says_nothing_without_values() -> None:
    widths = [high - low for low, high in (interval(0.1 * count, count, 0.01) for count in (10, 100, 1000, 10_000))]

    assert interval(0.0, 0, 0.01) == (0.0, 1.0)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03
