"""Chooses activation ranges from histograms. Promises: pure functions; a range always contains zero.

Entropy follows Migacz, 8-bit inference with TensorRT (GTC 2017): the clipping threshold whose quantized distribution
loses least information (Kullback-Leibler), searched over the magnitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 2048
_LEVELS_ONE_SIDED = 256  # all codes on one side of zero, as after ReLU
_LEVELS_TWO_SIDED = 128
_SEARCH_STEP = 16  # bins between candidate thresholds
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often values of one tensor fell into `BINS` equal bins over [low, high], which are its extremes."""

    low: float
    high: float
    counts: NDArray[np.int64]  # (BINS,)

    @property
    def edges(self) -> NDArray[np.float64]:
        return np.linspace(self.low, self.high, len(self.counts) + 1)


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    high: float


def minmax_range(histogram: Histogram) -> Range:
    """Nothing is clipped."""
    return _with_zero(histogram.low, histogram.high)


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """Clips equal shares on both sides so that `percentile` per cent of the values stay inside."""
    shares = np.concatenate([[0.0], np.cumsum(histogram.counts)]) / max(int(histogram.counts.sum()), 1)
    tail = (1.0 - percentile / 100.0) / 2.0
    edges = histogram.edges
    low = edges[np.searchsorted(shares, tail, side="right") - 1]
    high = edges[min(int(np.searchsorted(shares, 1.0 - tail, side="left")), len(edges) - 1)]
    return _with_zero(float(low), float(high))


def entropy_range(histogram: Histogram) -> Range:
    """Clips both sides at the magnitude that keeps most information."""
    magnitudes = _magnitude_counts(histogram)
    largest = max(abs(histogram.low), abs(histogram.high))
    bins = len(magnitudes)
    levels = _LEVELS_ONE_SIDED if histogram.low >= 0.0 or histogram.high <= 0.0 else _LEVELS_TWO_SIDED
    candidates = range(levels, bins + 1, _SEARCH_STEP)
    losses = [_divergence(magnitudes, stop, levels) for stop in candidates]
    threshold = largest * candidates[int(np.argmin(losses))] / bins
    return _with_zero(max(histogram.low, -threshold), min(histogram.high, threshold))


def _magnitude_counts(histogram: Histogram) -> NDArray[np.float64]:
    """Counts (BINS,) of |value| over [0, largest magnitude]."""
    centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2.0
    largest = max(abs(histogram.low), abs(histogram.high), _TINY)
    bins = np.minimum((np.abs(centres) / largest * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, histogram.counts, BINS).astype(np.float64)
    # ReLU's zeros are exact in any scale; left in, their spike outweighs everything that clipping loses.
    counts[0] = counts[1]
    return counts


def _divergence(counts: NDArray[np.float64], stop: int, levels: int) -> float:
    """KL(reference || quantized) when magnitudes are clipped behind bin `stop`."""
    reference = counts[:stop].copy()
    reference[-1] += counts[stop:].sum()
    starts = np.arange(levels) * stop // levels
    is_used = (counts[:stop] > 0).astype(np.float64)
    level_sums = np.add.reduceat(counts[:stop], starts)
    level_used = np.add.reduceat(is_used, starts)
    lengths = np.diff(np.append(starts, stop))
    spread = np.repeat(level_sums / np.maximum(level_used, 1.0), lengths) * is_used
    p = reference / max(reference.sum(), _TINY)
    q = spread / max(spread.sum(), _TINY)
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], _TINY))).sum())


def _with_zero(low: float, high: float) -> Range:
    """Zero must be representable exactly: padding and ReLU produce it."""
    low, high = min(low, 0.0), max(high, 0.0)
    return Range(low, high if high > low else low + _TINY)
