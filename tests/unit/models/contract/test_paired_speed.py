"""Paired speeds: the interval covers at its stated rate, disturbances that meet both cancel, and words follow it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from saccade.models.contract.paired_speed import MIN_ROUNDS, PairedSpeed, median_interval, paired_speed

DRAWS = 2000


def pair(mine: list[float], theirs: list[float]) -> PairedSpeed:
    found = paired_speed(
        [[each] for each in mine], [[each] for each in theirs], against="fp32", device_kind="cpu", batch_sizes=(1,)
    )
    assert found is not None
    return found


@pytest.mark.parametrize("rounds", [6, 9, 40])
def test_interval_covers_the_true_ratio_on_a_machine_whose_speed_wanders(rounds: int) -> None:
    rng, truth, covered = np.random.default_rng(rounds), 1.6, 0
    for _ in range(DRAWS):
        load = np.exp(np.cumsum(rng.normal(0, 0.2, rounds)))  # what else runs slows both
        bursts = 1 + rng.pareto(2.0, (2, rounds))  # and each of them alone, now and then very much
        found = pair(list(0.01 * load * bursts[0]), list(0.01 * truth * load * bursts[1]))
        covered += found.ci_low <= truth <= found.ci_high

    assert covered / DRAWS >= 0.94


@pytest.mark.parametrize("rounds", [6, 40])
def test_equal_variants_are_rarely_told_apart(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    noise = np.exp(rng.normal(0, 0.05, (DRAWS, 2, rounds)))
    found = [pair(list(mine), list(theirs)) for mine, theirs in noise]

    assert sum(each.is_faster for each in found) / DRAWS <= 0.03
    assert sum(each.ci_high < 1.0 for each in found) / DRAWS <= 0.03


def test_separate_figures_mislead_where_pairs_do_not() -> None:
    load = np.geomspace(1.0, 4.0, 20)  # the machine slows down while it is measured
    found = pair(list(0.010 * load), list(0.016 * load))

    assert found.ratio == pytest.approx(1.6)
    assert found.is_faster
    assert np.median(0.010 * load[10:]) > np.median(0.016 * load[:10])  # one after the other, it would have lost


def test_too_few_rounds_have_no_interval() -> None:
    assert median_interval([1.0] * (MIN_ROUNDS - 1)) is None
    assert median_interval(list(range(MIN_ROUNDS))) is not None
    assert median_interval(list(range(7)), confidence=0.999) is None


def test_interval_leaves_out_as_many_values_as_the_sign_test_allows() -> None:
    found = median_interval(list(range(1, 11)))

    assert found is not None
    assert (found.low, found.value, found.high) == (2, 5.5, 9)  # 2 * (1 + 10) / 1024 is below 0.05, with 45 more not


def test_batch_sizes_count_alike() -> None:
    found = paired_speed([[1.0, 1.0]] * 6, [[2.0, 0.5]] * 6, against="fp32", device_kind="cpu", batch_sizes=(1, 8))

    assert found is not None
    assert found.ratio == 1.0
    assert not found.is_faster


@pytest.mark.parametrize(
    ("low", "ratio", "high", "text"),
    [
        (1.5, 1.6, 1.7, "1.60 times as fast as fp32 (95% interval 1.50 to 1.70)"),
        (0.9, 1.1, 1.2, "not surely faster than fp32 here (1.10 times as fast, 95% interval 0.90 to 1.20)"),
        (1.0, 1.1, 1.2, "not surely faster than fp32 here (1.10 times as fast, 95% interval 1.00 to 1.20)"),
        (0.3, 0.4, 0.5, "slower than fp32 here (0.40 times as fast, 95% interval 0.30 to 0.50)"),
    ],
)
def test_words_follow_the_interval(low: float, ratio: float, high: float, text: str) -> None:
    found = PairedSpeed(
        against="fp32", device_kind="cpu", ratio=ratio, ci_low=low, ci_high=high, rounds=6, batch_sizes=(1,)
    )

    assert found.text == text
    assert found.inverted("int8-cpu").against == "int8-cpu"
    assert math.isclose(found.inverted("int8-cpu").ci_high, 1 / low)
