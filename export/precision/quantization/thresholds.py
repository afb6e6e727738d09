"""Chooses activation ranges from histograms with pure functions; every range contains zero.

Entropy follows Migacz, 8-bit inference with TensorRT (GTC 2017): the clipping threshold whose quantized distribution
loses least information (Kullback-Leibler), searched over the magnitudes. MSE minimises the expected squared error of
rounding and clipping over the same magnitudes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

BINS = 2048
LARGEST_UINT8 = 255.0
LARGEST_INT8 = 127.0  # symmetric: -128 is not used
LARGEST_FP8 = 448.0  # largest number of E4M3
_LEVELS_ONE_SIDED = 256  # all codes lie on one side of zero, as after ReLU
_LEVELS_TWO_SIDED = 128
_SEARCH_STEP = 16  # bins between candidate thresholds
_SHARES = np.linspace(1.0, 0.1, 64)  # shares of the largest magnitude at which the mean squared error is computed
_POINTS_PER_BIN = 4  # values that represent a bin, because a bin may be as wide as a quantization step
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of one tensor's values in `BINS` equal bins over [low, high], the tensor's extremes."""

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

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that activations are rounded to."""

    name: str
    is_symmetric: bool  # True: as many codes below zero as above, used or not
    is_uniform: bool
    dtype: np.dtype[Any]
    largest: float  # largest code; the smallest is 0, or its negative where the grid is symmetric
    # rounds values to the nearest numbers of the range
    rounded: Callable[[NDArray[np.float64], Range], NDArray[np.float64]]


def symmetric_scale(chosen: Range, largest_code: float) -> float:
    """Returns the value of one step: the range's larger side becomes the largest code."""
    return max(chosen.magnitude, _TINY) / largest_code


def _rounded_uint8(values: NDArray[np.float64], chosen: Range) -> NDArray[np.float64]:
    scale = (chosen.high - chosen.low) / LARGEST_UINT8
    zero = np.round(-chosen.low / scale)
    rounded: NDArray[np.float64] = (np.clip(np.round(values / scale) + zero, 0.0, LARGEST_UINT8) - zero) * scale
    return rounded


def _rounded_int8(values: NDArray[np.float64], chosen: Range) -> NDArray[np.float64]:
    scale = symmetric_scale(chosen, LARGEST_INT8)
    return np.clip(np.round(values / scale), -LARGEST_INT8, LARGEST_INT8) * scale


def _rounded_fp8(values: NDArray[np.float64], chosen: Range) -> NDArray[np.float64]:
    scale = symmetric_scale(chosen, LARGEST_FP8)
    codes = np.clip(values / scale, -LARGEST_FP8, LARGEST_FP8).astype(np.float32)
    rounded: NDArray[np.float64] = codes.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    return rounded * scale


UINT8 = Grid("uint8", False, True, np.dtype(np.uint8), LARGEST_UINT8, _rounded_uint8)
INT8 = Grid("int8", True, True, np.dtype(np.int8), LARGEST_INT8, _rounded_int8)
FP8 = Grid("float8e4m3", True, False, np.dtype(ml_dtypes.float8_e4m3fn), LARGEST_FP8, _rounded_fp8)


def minmax_range(histogram: Histogram) -> Range:
    """Returns the range of all values; nothing is clipped."""
    return _with_zero(histogram.low, histogram.high)


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """Clips equal shares on both sides so that `percentile` per cent of the values stay inside."""
    shares = np.concatenate([[0.0], np.cumsum(histogram.counts)]) / max(int(histogram.counts.sum()), 1)
    tail = (1.0 - percentile / 100.0) / 2.0
    edges = histogram.edges
    low = edges[np.searchsorted(shares, tail, side="right") - 1]
    high = edges[min(int(np.searchsorted(shares, 1.0 - tail, side="left")), len(edges) - 1)]
    return _with_zero(float(low), float(high))


def entropy_range(histogram: Histogram, grid: Grid = UINT8) -> Range:
    """Clips both sides at the magnitude that keeps most information."""
    magnitudes = _magnitude_counts(histogram)
    largest = max(abs(histogram.low), abs(histogram.high))
    bins = len(magnitudes)
    is_one_sided = histogram.low >= 0.0 or histogram.high <= 0.0
    levels = _LEVELS_ONE_SIDED if is_one_sided and not grid.is_symmetric else _LEVELS_TWO_SIDED
    candidates = range(levels, bins + 1, _SEARCH_STEP)
    losses = [_divergence(magnitudes, stop, levels) for stop in candidates]
    threshold = largest * candidates[int(np.argmin(losses))] / bins
    return _clipped(histogram, threshold)


def mse_range(histogram: Histogram, grid: Grid = UINT8) -> Range:
    """Clips both sides at the magnitude with the smallest expected squared error on the grid."""
    width = (histogram.high - histogram.low) / len(histogram.counts)
    offsets = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN * width
    values = histogram.edges[:-1, None] + offsets  # (BINS, points)
    weights = histogram.counts.astype(np.float64)
    weights[_zero_bin(histogram)] = 0.0  # zeros are exact on every grid
    largest = max(abs(histogram.low), abs(histogram.high))
    ranges = [_clipped(histogram, largest * float(share)) for share in _SHARES]
    errors = [float(weights @ np.square(grid.rounded(values, each) - values).mean(axis=1)) for each in ranges]
    return ranges[int(np.argmin(errors))]


def _clipped(histogram: Histogram, magnitude: float) -> Range:
    return _with_zero(max(histogram.low, -magnitude), min(histogram.high, magnitude))


def _zero_bin(histogram: Histogram) -> int:
    """Returns the bin that holds zero, or the one nearest to it."""
    position = np.searchsorted(histogram.edges, 0.0, side="right") - 1
    return int(np.clip(position, 0, len(histogram.counts) - 1))


def _magnitude_counts(histogram: Histogram) -> NDArray[np.float64]:
    """Returns counts (BINS,) of |value| over [0, largest magnitude]."""
    centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2.0
    largest = max(abs(histogram.low), abs(histogram.high), _TINY)
    bins = np.minimum((np.abs(centres) / largest * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, histogram.counts, BINS).astype(np.float64)
    # ReLU's zeros are exact at every scale; their spike would outweigh everything that clipping loses.
    counts[0] = counts[1]
    return counts


def _divergence(counts: NDArray[np.float64], stop: int, levels: int) -> float:
    """Returns KL(reference || quantized) when magnitudes are clipped behind bin `stop`."""
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
    """Includes zero, which must be exact because padding and ReLU produce it."""
    low, high = min(low, 0.0), max(high, 0.0)
    return Range(low, high if high > low else low + _TINY)
