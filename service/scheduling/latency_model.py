"""Expected run time per batch size. Promises: starts from warm-up, follows the device, shrugs off single outliers."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from statistics import median

_WINDOW = 15  # runs; odd, so the median is a measured value, and long enough to outvote a few stalls


class LatencyModel:
    """Median of the last runs at each allowed batch size."""

    def __init__(self) -> None:
        self._runs: dict[int, deque[float]] = {}
        self._median: dict[int, float] = {}
        self._sizes: list[int] = []

    def observe(self, batch_size: int, seconds: float) -> None:
        runs = self._runs.setdefault(batch_size, deque(maxlen=_WINDOW))
        runs.append(seconds)
        self._median[batch_size] = median(runs)
        if len(self._sizes) != len(self._runs):
            self._sizes = sorted(self._runs)

    def batch_s(self, batch_size: int) -> float:
        """Seconds of one run. A size never seen answers for the next larger one; nothing seen is 0."""
        if not self._sizes:
            return 0.0
        index = min(bisect_left(self._sizes, batch_size), len(self._sizes) - 1)
        return self._median[self._sizes[index]]

    def drain_s(self, request_count: int, allowed_sizes: tuple[int, ...]) -> float:
        """Seconds to run `request_count` requests in the largest batches they fill."""
        total_s = 0.0
        left = request_count
        for size in reversed(allowed_sizes):
            total_s += (left // size) * self.batch_s(size)
            left %= size
        return total_s
