"""Intervals. Promises: they cover the truth at the stated rate in simulation, near 0 and 1 too; none has no width."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.qualification.bootstrap import (
    BootstrapInterval,
    class_drop_interval,
    interval_of,
    mean_interval,
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
cached_class_drop = cache(class_drop_interval)


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


@pytest.mark.parametrize("images", [10, 50, 200])
@pytest.mark.parametrize(
    ("worse", "better"), [(0.0, 0.003), (0.002, 0.002), (0.01, 0.0), (0.02, 0.01), (0.04, 0.0), (0.1, 0.05), (0.3, 0.2)]
)
def test_interval_of_a_classs_drop_covers_it(images: int, worse: float, better: float) -> None:
    draws = np.random.default_rng(3).multinomial(images, [worse, better, 1.0 - worse - better], DRAWS)

    found = [cached_class_drop(lost, gained, images) for lost, gained, _ in draws.tolist()]

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


@pytest.mark.parametrize("images", [10, 20, 110])
@pytest.mark.parametrize(
    ("mean", "draw"),
    [
        (0.98, lambda rng, images: rng.beta(490, 10, images)),
        (0.98, lambda rng, images: rng.beta(49, 1, images)),
        (0.98, lambda rng, images: rng.beta(9.8, 0.2, images)),
        (0.02, lambda rng, images: rng.beta(1, 49, images)),
        (0.8, lambda rng, images: rng.beta(8, 2, images)),
        (0.99, lambda rng, images: np.where(rng.random(images) < 0.98, 1.0, rng.random(images))),
    ],
    ids=["alike", "skewed", "very skewed", "near 0", "spread", "mostly equal"],
)
def test_interval_of_a_mean_of_scores_covers_it(images: int, mean: float, draw: Draw) -> None:
    rng = np.random.default_rng(4)

    found = [mean_interval(draw(rng, images)) for _ in range(DRAWS)]

    assert np.mean([each.low <= mean <= each.high for each in found]) >= STATED


def test_pictures_that_are_all_alike_have_a_narrow_interval() -> None:
    scores = np.random.default_rng(5).beta(490, 10, 110)  # similarities of a good denoiser

    found, counted = mean_interval(scores), rate_interval(float(scores.sum()), 110)

    assert found.high - found.low < 0.005 < 0.05 < counted.high - counted.low


@pytest.mark.parametrize("images", [2, 5, 19])
def test_few_scores_have_no_narrower_interval_than_a_rate(images: int) -> None:
    found, counted = mean_interval(np.linspace(0.98, 0.981, images)), rate_interval(0.9805 * images, images)

    assert found.low <= counted.low + 1e-6
    assert found.high >= counted.high - 1e-6


@pytest.mark.parametrize("images", [1, 5, 400])
def test_no_interval_has_no_width(images: int) -> None:
    same = np.ones(200)

    for found in (
        rate_interval(images, images),
        rate_interval(0, images),
        rate_drop_interval(0, 0, images),
        class_drop_interval(0, 0, images),
        metric_interval(1.0, same, images),
        mean_interval(np.ones(images)),
        metric_drop_interval(0.0, np.zeros(200), images),
    ):
        assert found.low <= found.value <= found.high
        assert found.high - found.low >= 1.0 / images / 2.0


def test_one_right_image_says_nearly_nothing() -> None:
    found = rate_interval(1, 1)

    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.1


def test_a_rate_is_as_in_newcombes_table() -> None:
    # Newcombe 1998, table I, method 4: 81 of 263, 15 of 148, 0 of 20 and 1 of 29, rounded to four digits.
    found = [rate_interval(hits, images) for hits, images in ((81, 263), (15, 148), (0, 20), (1, 29))]

    assert [(round(each.low, 4), round(each.high, 4)) for each in found] == [
        (0.2535, 0.3682),
        (0.0598, 0.1644),
        (0.0, 0.2005),
        (0.0018, 0.1963),
    ]


@pytest.mark.parametrize("hits", [0, 1, 10, 19, 20])
def test_share_of_wrong_images_has_the_interval_of_the_right_ones_backwards(hits: int) -> None:
    right, wrong = rate_interval(hits, 20), rate_interval(20 - hits, 20)

    assert bounds(right) == pytest.approx((1.0 - wrong.high, 1.0 - wrong.low))


def bounds(found: BootstrapInterval) -> tuple[float, float]:
    return found.low, found.high


Z = 1.959964  # 97.5 % of a normal distribution lie below


def test_drop_of_a_rate_adds_the_two_distances_and_what_they_share() -> None:
    only_lost, as_many = rate_drop_interval(15, 0, 148), rate_drop_interval(16, 16, 64)

    rate, none, quarter = rate_interval(15, 148), rate_interval(0, 148), rate_interval(16, 64)
    assert bounds(only_lost) == pytest.approx((rate.value - math.hypot(rate.value - rate.low, none.high), rate.high))
    half = math.hypot(quarter.high - 0.25, 0.25 - quarter.low, Z * math.sqrt(2 * 0.25 * 0.25 / 64))
    assert bounds(as_many) == pytest.approx((-half, half))


def test_gain_has_the_interval_of_the_drop_backwards() -> None:
    drop, gain = rate_drop_interval(9, 3, 100), rate_drop_interval(3, 9, 100)

    assert drop.value == pytest.approx(0.06)
    assert (drop.value, *bounds(drop)) == pytest.approx((-gain.value, -gain.high, -gain.low))


def test_percentiles_of_the_resamples_leave_equal_tails() -> None:
    assert bounds(interval_of(0.3, np.arange(1001) / 1000)) == pytest.approx((0.025, 0.975))


TWO_VALUES = np.tile([-0.1, 0.1], 100)  # standard deviation 0.1


def test_interval_of_a_metric_is_as_wide_as_the_resamples_deviation_says() -> None:
    half = Z * 0.1 * math.sqrt(10 / 9)

    assert bounds(metric_interval(0.5, 0.5 + TWO_VALUES, 10)) == pytest.approx((0.5 - half, 0.5 + half))
    assert bounds(metric_interval(0.5, 0.5 + 10 * TWO_VALUES, 10)) == (0.0, 1.0)
    assert bounds(metric_drop_interval(0.0, TWO_VALUES, 10)) == pytest.approx((-half, half))


@pytest.mark.parametrize("value", [0.4, 0.6])
def test_interval_of_a_metric_few_images_from_its_end_covers_the_one_of_a_rate(value: float) -> None:
    found = metric_interval(value, value + TWO_VALUES / 100, 10)

    assert bounds(found) == pytest.approx(bounds(rate_interval(10 * value, 10)))


def test_interval_of_a_metric_that_no_resample_changes_is_the_one_of_a_rate() -> None:
    assert bounds(metric_interval(0.5, np.full(200, 0.5), 100)) == pytest.approx(bounds(rate_interval(50, 100)))


def test_drop_that_no_resample_shows_allows_for_images_not_drawn() -> None:
    unseen = rate_interval(0, 20).high

    assert bounds(metric_drop_interval(0.25, np.full(200, 0.25), 20)) == pytest.approx((0.25 - unseen, 0.25 + unseen))
