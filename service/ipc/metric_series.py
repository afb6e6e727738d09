"""Series as a request updates them: with their labels looked up, and without a check of anything that cannot change.

prometheus-client asks at every update whether the labels were given, and walks through a histogram's buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial

from prometheus_client import Counter, Histogram


class CountSeries:
    """One series of a counter."""

    __slots__ = ("inc",)

    def __init__(self, counter: Counter) -> None:
        self.inc = partial(counter._value.inc, 1.0)  # adds 1


class TimeSeries:
    """One series of a histogram of seconds."""

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._bounds, self._buckets, self._sum = histogram._upper_bounds, histogram._buckets, histogram._sum

    def observe(self, seconds: float) -> None:
        """`seconds` is a number; the last bucket takes infinity."""
        self._sum.inc(seconds)
        self._buckets[bisect_left(self._bounds, seconds)].inc(1.0)
