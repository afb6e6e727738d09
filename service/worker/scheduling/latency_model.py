"""Expected run time per batch size. Promises: starts from warm-up, follows the device, shrugs off single outliers.

A size that did not run for long may be wrong either way, and a figure that is too high keeps it from ever running
again. So an old figure is held within what the sizes below it allow: not faster than one of them, not slower than
running them one after the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from statistics import median
from typing import Protocol

_WINDOW = 15  # runs; odd, so the median is a measured value, and long enough to outvote a few stalls
_OLD_AFTER = 64  # runs of other sizes; a size that is really that slow costs one run in so many


class LatencyTable(Protocol):
    def batch_s(self, batch_size: int) -> float:
        """Expected seconds of one run at an allowed batch size."""


class LatencyModel:
    """Median of the last runs at each allowed batch size."""

    def __init__(self) -> None:
        self._runs: dict[int, deque[float]] = {}
        self._median: dict[int, float] = {}
        self._seen_at: dict[int, int] = {}  # number of the run that last had this size
        self.run_count = 0
        self._sizes: list[int] = []
        self._expected: dict[int, float] = {}  # what `batch_s` answers, by measured size

    def observe(self, batch_size: int, seconds: float) -> None:
        runs = self._runs.setdefault(batch_size, deque(maxlen=_WINDOW))
        runs.append(seconds)
        self.run_count += 1
        self._median[batch_size] = median(runs)
        self._seen_at[batch_size] = self.run_count
        if len(self._sizes) != len(self._runs):
            self._sizes = sorted(self._runs)
        self._renew()

    def batch_s(self, batch_size: int) -> float:
        """Seconds of one run. A size never seen answers for the next larger one; nothing seen is 0."""
        expected_s = self._expected.get(batch_size)
        if expected_s is not None:
            return expected_s
        if not self._sizes:
            return 0.0
        index = min(bisect_left(self._sizes, batch_size), len(self._sizes) - 1)
        return self._expected[self._sizes[index]]

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
