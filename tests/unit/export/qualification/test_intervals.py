"""Intervals. Promises: they cover the truth at the stated rate in simulation, near 0 and 1 too; none has no width."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.qualification.bootstrap import (
    metric_drop_interval,
    metric_interval,
    rate_drop_interval,
    rate_interval,
    resample_weights,
)

DRAWS = 2000
STATED = 0.94  # of 2,000 draws at 95 %; three standard errors of the simulation below it are 0.935
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
cached_rate, cached_drop = cache(rate_interval), cache(rate_drop_interval)


@pytest.mark.parametrize("images", [50, 400, 2000])
@pytest.mark.parametrize("rate", [0.001, 0.005, 0.02, 0.1, 0.5, 0.9, 0.98, 0.995, 0.999])
def test_interval_of_a_rate_covers_it(images: int, rate: float) -> None:
    hits = np.random.default_rng(0).binomial(images, rate, DRAWS).tolist()

    covered = [cached_rate(each, images).low <= rate <= cached_rate(each, images).high for each in hits]

    assert np.mean(covered) >= STATED


@pytest.mark.parametrize("images", [50, 400, 2000])
@pytest.mark.parametrize(("worse", "better"), [(0.0, 0.003), (0.001, 0.001), (0.002, 0.0), (0.01, 0.005), (0.2, 0.1)])
def test_interval_of_a_paired_drop_covers_it(images: int, worse: float, better: float) -> None:
    draws = np.random.default_rng(1).multinomial(images, [worse, better, 1.0 - worse - better], DRAWS)

    found = [cached_drop(lost, gained, images) for lost, gained, _ in draws.tolist()]

    assert np.mean([each.low <= worse - better <= each.high for each in found]) >= STATED


@pytest.mark.parametrize("images", [50, 200])
@pytest.mark.parametrize(
    ("mean", "draw"),
    [
        (0.8, lambda rng, images: rng.beta(8, 2, images)),
        (0.5 / 0.6, lambda rng, images: rng.beta(0.5, 0.1, images)),
        (0.99, lambda rng, images: np.where(rng.random(images) < 0.98, 1.0, rng.random(images))),
        (0.005, lambda rng, images: np.where(rng.random(images) < 0.99, 0.0, rng.random(images))),
    ],
    ids=["spread", "skewed", "near 1", "near 0"],
)
def test_interval_of_a_metric_over_images_covers_it(images: int, mean: float, draw: Draw) -> None:
    rng, weights = np.random.default_rng(2), resample_weights(images, 200)

    def covers(values: NDArray[np.float64]) -> bool:
        found = metric_interval(float(values.mean()), weights @ values / images, images)
        return found.low <= mean <= found.high

    assert np.mean([covers(draw(rng, images)) for _ in range(DRAWS)]) >= STATED


@pytest.mark.parametrize("images", [1, 5, 400])
def test_no_interval_has_no_width(images: int) -> None:
    same = np.ones(200)

    for found in (
        rate_interval(images, images),
        rate_interval(0, images),
        rate_drop_interval(0, 0, images),
        metric_interval(1.0, same, images),
        metric_drop_interval(0.0, np.zeros(200), images),
    ):
        assert found.low <= found.value <= found.high
        assert found.high - found.low >= 1.0 / images / 2.0


def test_one_right_image_says_nearly_nothing() -> None:
    found = rate_interval(1, 1)

    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.1


def test_a_rate_is_as_in_newcombes_table() -> None:
    # Newcombe 1998, table I, method 4: 81 of 263 and 15 of 148, rounded to four digits.
    found = [rate_interval(81, 263), rate_interval(15, 148)]

    assert [(round(each.low, 4), round(each.high, 4)) for each in found] == [(0.2535, 0.3682), (0.0598, 0.1644)]
