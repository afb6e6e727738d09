"""Statistics of many latencies: pure functions. A figure that has too few values is None, not a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

CURVE = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99, 100.0)  # plotted per cents
BATCHES = 10
MIN_BATCH = 300  # values per batch; three of them lie beyond p99
_T_95_OF_9 = 2.262  # Student's t for ten batches
_Z_95_ONE_SIDED = 1.645


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency figures in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Interval:
    """The 95 % confidence interval of a percentile."""

    low_ms: float
    high_ms: float


class Verdict(StrEnum):
    """Whether a share is within its limit, at 95 % confidence."""

    MET = "met"
    MISSED = "missed"
    UNCLEAR = "unclear"


def latency_of(values_ms: Values) -> Latency | None:
    """Exact percentiles: the smallest value that at least so many per cent of the values do not exceed."""
    if not len(values_ms):
        return None
    p50, p90, p95, p99, p99_9 = percentiles(values_ms, (50, 90, 95, 99, 99.9))
    return Latency(len(values_ms), float(np.mean(values_ms)), p50, p90, p95, p99, p99_9, float(np.max(values_ms)))


def percentiles(values_ms: Values, percents: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(values_ms, percents, method="inverted_cdf"))


def curve_of(values_ms: Values) -> tuple[tuple[float, float], ...]:
    """(per cent, ms) pairs, without percentiles that so few values cannot tell apart."""
    if not len(values_ms):
        return ()
    told = tuple(percent for percent in CURVE if percent == 100.0 or len(values_ms) * (100.0 - percent) >= 100.0)
    return tuple(zip(told, percentiles(values_ms, told), strict=True))


def interval_of(values_ms: Values, percent: float) -> Interval | None:
    """The interval around the percentile of all values, from ten consecutive batches, since neighbours in a queue are
    alike.

    Where load drifts, the batches' mean percentile differs from that of all values; the difference widens the
    interval. None for too few values.
    """
    if len(values_ms) < BATCHES * MIN_BATCH:
        return None
    (of_all,) = percentiles(values_ms, (percent,))
    of_batches = np.array([percentiles(batch, (percent,))[0] for batch in np.array_split(values_ms, BATCHES)])
    half = _T_95_OF_9 * float(np.std(of_batches, ddof=1)) / math.sqrt(BATCHES) + abs(
        of_all - float(np.mean(of_batches))
    )
    return Interval(max(0.0, of_all - half), of_all + half)


def verdict_of(count: int, beyond: int, allowed: float) -> Verdict:
    """Whether `beyond` of `count` shows a share of at most `allowed`, by Wilson's one-sided bounds (1927)."""
    if count == 0:
        return Verdict.UNCLEAR
    share, z2 = beyond / count, _Z_95_ONE_SIDED**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z_95_ONE_SIDED * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    if middle + half <= allowed:
        return Verdict.MET
    return Verdict.MISSED if middle - half > allowed else Verdict.UNCLEAR
