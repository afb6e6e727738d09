"""Figures that change while the process runs: a weighted mean, a quantile, and latencies as counts by bin."""

from __future__ import annotations

import math

_FIRST_S = 1e-4
_LOG_WIDTH = math.log(1.05)  # each bin is 5 % wider than the one before it, so that quantiles are known as closely


class RunningMean:
    """The first value counts fully, and every later one for `latest_share` of the mean."""

    __slots__ = ("_latest_share", "value")

    def __init__(self, latest_share: float, start: float | None = None) -> None:
        """With `start`, the first value counts like every later one."""
        self._latest_share = latest_share
        self.value = start  # None before the first value

    def add(self, value: float) -> None:
        before = self.value
        self.value = value if before is None else before + self._latest_share * (value - before)


class RunningQuantile:
    """Follows a quantile of values, none below 0, by steps: far up for a value above it, a little down for others."""

    __slots__ = ("_share", "_step", "value")

    def __init__(self, share: float, step: float) -> None:
        """`share` of the values are to be below it; it moves by less than `step` at a time."""
        self._share = share
        self._step = step
        self.value = 0.0

    def add(self, value: float) -> None:
        moved = self.value + self._step * (self._share if value > self.value else self._share - 1.0)
        self.value = max(0.0, moved)


def bin_of(seconds: float) -> int:
    """Returns the number of the bin that holds this latency."""
    return max(0, math.ceil(math.log(max(seconds, _FIRST_S) / _FIRST_S) / _LOG_WIDTH))


def upper_edge_s(number: int) -> float:
    """Returns the longest latency of a bin, in seconds."""
    return _FIRST_S * math.exp(_LOG_WIDTH * number)
