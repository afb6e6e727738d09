"""Computes intervals of figures over images, with a fixed seed and the same resamples for paired figures.

Bootstrap over images: Efron & Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals. Rates have
Wilson's score interval with continuity correction instead, and differences of rates combine two of them (square and
add): Newcombe, Statistics in Medicine 17 (1998), pages 857-872 and 873-890. Near 0 and 1 a bootstrap draws hardly any
errors, so its interval would be too narrow or have no width at all. Means of scores that vary from picture to picture
have Student's interval together with that of Hall, Journal of the Royal Statistical Society B 54 (1992), pages 221-228,
which allows for skewness: scores near 1 have a tail on one side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0)
_SEED = 20_260_101  # fixed, so that an unchanged file gets unchanged intervals
_FEW = 5.0  # a bootstrap is unreliable for a share of images that is fewer images away from 0 or 1
_FEW_SCORES = 20  # fewer do not tell how skewed they are


@dataclass(frozen=True, slots=True)
class BootstrapInterval:
    """A figure and its interval."""

    value: float
    low: float
    high: float


def resample_weights(images: int, resamples: int) -> NDArray[np.int64]:
    """Returns how often each resample drew each image, (resamples, images); every row sums to `images`."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(images, np.full(images, 1.0 / images), size=resamples)


def interval_of(value: float, resampled: NDArray[np.float64]) -> BootstrapInterval:
    """Returns the percentile interval of `resampled` values (resamples,) around a point value."""
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100.0 - tail])
    return BootstrapInterval(value, float(low), float(high))


def class_drop_interval(worse: int, better: int, images: int) -> BootstrapInterval:
    """Returns the interval of one class's difference of rates, for its upper end: Wilson's without the correction.

    The correction makes up for the lower end, and would add half an image of the few that a class has to the upper one.
    """
    whole = rate_drop_interval(worse, better, images)
    share = worse / images
    spread = math.sqrt(share * (1.0 - share) / images + (_Z / images) ** 2 / 4.0)
    high = (share + _Z * _Z / images / 2.0 + _Z * spread) / (1.0 + _Z * _Z / images)
    gained = rate_interval(better, images)
    both = _Z * math.sqrt(2.0 * share * gained.value / images)
    above = math.hypot(high - share, gained.value - gained.low, both)
    return BootstrapInterval(whole.value, whole.low, whole.value + above)


def rate_interval(hits: float, images: int) -> BootstrapInterval:
    """Returns Wilson's interval of a share; `hits` may be fractional: a metric in 0..1 times the number of images."""
    share = hits / images
    spread, middle = _Z * _Z, 2.0 * hits + _Z * _Z
    below = spread - 1.0 / images + 4.0 * images * share * (1.0 - share) + 4.0 * share - 2.0
    above = spread - 1.0 / images + 4.0 * images * share * (1.0 - share) - 4.0 * share + 2.0
    whole = 2.0 * (images + spread)
    low = 0.0 if hits <= 0 else max(0.0, (middle - _Z * math.sqrt(max(0.0, below)) - 1.0) / whole)
    high = 1.0 if hits >= images else min(1.0, (middle + _Z * math.sqrt(max(0.0, above)) + 1.0) / whole)
    return BootstrapInterval(share, min(low, share), max(high, share))


def rate_drop_interval(worse: int, better: int, images: int) -> BootstrapInterval:
    """Returns the interval of a difference of rates; only the first is right on `worse` images."""
    lost, gained = rate_interval(worse, images), rate_interval(better, images)
    value = lost.value - gained.value
    # no image counts on both sides, so the two rates vary against each other
    both = _Z * math.sqrt(2.0 * lost.value * gained.value / images)
    below = math.hypot(lost.value - lost.low, gained.high - gained.value, both)
    above = math.hypot(lost.high - lost.value, gained.value - gained.low, both)
    return BootstrapInterval(value, value - below, value + above)


def metric_interval(value: float, resampled: NDArray[np.float64], images: int) -> BootstrapInterval:
    """Returns the interval of a metric in 0..1 that is not a rate; near 0 or 1 it also covers a rate's interval.

    A mean of numbers in 0..1 varies at most as much as a rate of the same value, so that interval is wide enough.
    """
    found = _spread_interval(value, resampled, images)
    low, high = max(0.0, found.low), min(1.0, found.high)
    if min(value, 1.0 - value) * images >= _FEW and high > low:
        return BootstrapInterval(value, low, high)
    rate = rate_interval(min(max(value, 0.0), 1.0) * images, images)
    return BootstrapInterval(value, min(low, rate.low), max(high, rate.high))


def mean_interval(scores: NDArray[np.float64]) -> BootstrapInterval:
    """Returns the interval of the mean of scores in 0..1, one per picture; NaN ones have been left out.

    It also covers a rate's interval where most scores are equal, as right and wrong ones are, and where they are few:
    then others may exist that were not seen.
    """
    count, value = max(1, len(scores)), float(scores.mean()) if len(scores) else 0.0
    rate = rate_interval(value * count, count)
    spread = float(scores.std(ddof=1)) if count > 1 else 0.0
    if spread <= 1e-12:
        return BootstrapInterval(value, min(rate.low, value), max(rate.high, value))
    error, reach = spread / math.sqrt(count), float(stdtrit(count - 1, (1.0 + CONFIDENCE) / 2.0))
    skewness = float(((scores - value) ** 3).mean()) / float(scores.std()) ** 3
    ends = [value - far * error for t in (-reach, reach) for far in (t, _without_skewness(t, skewness, count))]
    if count < _FEW_SCORES or np.unique(scores, return_counts=True)[1].max() > count / 2:
        ends += [rate.low, rate.high]
    return BootstrapInterval(value, max(0.0, min(ends)), min(1.0, max(ends)))


def _without_skewness(t: float, skewness: float, count: int) -> float:
    """Returns the standardised mean that Hall's cubic transformation brings to `t`."""
    root = math.sqrt(count)
    if abs(skewness) < 1e-6:
        return t
    return 3.0 * root / skewness * (math.cbrt(1.0 + skewness * (t / root - skewness / (6.0 * count))) - 1.0)


def metric_drop_interval(drop: float, resampled: NDArray[np.float64], images: int) -> BootstrapInterval:
    """Returns the interval of a paired difference; if no draw varies, it allows for images not drawn."""
    found = _spread_interval(drop, resampled, images)
    if found.high > found.low:
        return found
    unseen = rate_interval(0, images).high
    return BootstrapInterval(drop, drop - unseen, drop + unseen)


def _spread_interval(value: float, resampled: NDArray[np.float64], images: int) -> BootstrapInterval:
    """Returns the percentile interval, at least as wide as the resamples' standard deviation says.

    With few resamples the outermost percentiles depend on chance, and resamples of few images vary too little.
    """
    found = interval_of(value, resampled)
    half = _Z * float(resampled.std()) * math.sqrt(images / max(1, images - 1))
    return BootstrapInterval(value, min(found.low, value - half), max(found.high, value + half))
