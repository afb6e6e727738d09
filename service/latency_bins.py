"""Latencies as counts by bin: each bin is 5 % wider than the one before it, so that quantiles are known as closely."""

from __future__ import annotations

import math

_FIRST_S = 1e-4
_LOG_WIDTH = math.log(1.05)


def bin_of(seconds: float) -> int:
    """Returns the number of the bin that holds this latency."""
    return max(0, math.ceil(math.log(max(seconds, _FIRST_S) / _FIRST_S) / _LOG_WIDTH))


def upper_edge_s(number: int) -> float:
    """Returns the longest latency of a bin, in seconds."""
    return _FIRST_S * math.exp(_LOG_WIDTH * number)
