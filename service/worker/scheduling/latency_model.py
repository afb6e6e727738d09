"""Estimates the run time per batch size: it starts from the warm-up, follows the device, and ignores single outliers.

The estimate of a size that has not run for long may be wrong, and if it is too high, the size never runs again. So an
old estimate is kept within bounds from the next smaller size: not less than one run of it, and not more than enough of
its runs, one after the other.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from statistics import median
from typing import Protocol

_WINDOW = 15  # runs; odd, so that the median is a measured value, and enough to outvote a few slow runs
_OLD_AFTER = 64  # runs of other sizes after which an estimate is old; a size that is truly slow costs one run in 64


class LatencyTable(Protocol):
    def batch_s(self, batch_size: int) -> float:
        """Returns the expected seconds of one run at an allowed batch size."""


class LatencyModel:
    """The median of the latest runs at each batch size."""

    def __init__(self) -> None:
        self._runs: dict[int, deque[float]] = {}
        self._median: dict[int, float] = {}
        self._seen_at: dict[int, int] = {}  # number of the latest run of each size
        self._ended_s: dict[int, float] = {}  # seconds of all runs until the latest of each size had ended
        self._total_s = 0.0
        self.run_count = 0
        self._sizes: list[int] = []
        self._expected: dict[int, float] = {}  # results of `batch_s` by measured size

    def observe(self, batch_size: int, seconds: float) -> None:
        runs = self._runs.setdefault(batch_size, deque(maxlen=_WINDOW))
        runs.append(seconds)
        self.run_count += 1
        self._median[batch_size] = median(runs)
        self._seen_at[batch_size] = self.run_count
        self._total_s += seconds
        self._ended_s[batch_size] = self._total_s
        if len(self._sizes) != len(self._runs):
            self._sizes = sorted(self._runs)
        self._renew()

    def batch_s(self, batch_size: int) -> float:
        """Returns the expected seconds of one run; a size without runs counts as the next larger one, or 0 at first."""
        expected_s = self._expected.get(batch_size)
        if expected_s is not None:
            return expected_s
        if not self._sizes:
            return 0.0
        index = min(bisect_left(self._sizes, batch_size), len(self._sizes) - 1)
        return self._expected[self._sizes[index]]

    def usual_range_s(self, batch_size: int) -> tuple[float, float]:
        """Returns the seconds between which the latest runs were, but for the fastest tenth and the slowest fifth.

        Of three runs it is the fastest and the middle one, because the first run of a warm-up allocates memory. A size
        without runs is not known to be fast: its figures are 0 and infinite.
        """
        runs = sorted(self._runs.get(batch_size, ()))
        if not runs:
            return 0.0, math.inf
        return runs[(len(runs) - 1) // 10], runs[-1 - round(len(runs) / 5)]

    def is_known(self, batch_size: int) -> bool:
        """Returns whether a size has run as often as its figures count; a warm-up alone may have met a slow moment."""
        return len(self._runs.get(batch_size, ())) == _WINDOW

    def since_s(self, batch_size: int) -> float:
        """Returns the seconds that other sizes have run since this one ran last."""
        return self._total_s - self._ended_s.get(batch_size, 0.0)

    def _renew(self) -> None:
        expected: dict[int, float] = {}
        for index, size in enumerate(self._sizes):
            seconds = self._median[size]
            if index and self.run_count - self._seen_at[size] > _OLD_AFTER:
                below = self._sizes[index - 1]
                at_least_s, at_most_s = expected[below], expected[below] * -(-size // below)
                seconds = min(max(seconds, at_least_s), at_most_s)
            expected[size] = seconds
        self._expected = expected
