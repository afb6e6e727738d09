"""An exponentially weighted mean, for figures that change while the process runs."""

from __future__ import annotations


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
