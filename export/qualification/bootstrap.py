"""Bootstrap over images. Promises: fixed seed, and paired figures see the same resamples.

Efron & Tibshirani, An Introduction to the Bootstrap (1993): percentile intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_SEED = 20_260_101  # fixed, so that an unchanged file gets unchanged intervals


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its bootstrap interval."""

    value: float
    low: float
    high: float


def resample_weights(images: int, resamples: int) -> NDArray[np.int64]:
    """How often each resample drew each image (resamples, images); every row sums to `images`."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(images, np.full(images, 1.0 / images), size=resamples)


def interval_of(value: float, resampled: NDArray[np.float64]) -> Interval:
    """Percentile interval of `resampled` values (resamples,) around a point value."""
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))
