"""Estimates the time between requests; it follows a change within some ten requests, and a silence at once."""

from __future__ import annotations

from saccade.service.running_figures import RunningMean

_LATEST_SHARE = 0.1  # weight of the newest gap in the running mean


class Arrivals:
    """The gaps between the requests for one instance."""

    def __init__(self) -> None:
        self._mean_gap_s = RunningMean(_LATEST_SHARE)
        self._last_s: float | None = None

    def observe(self, at_s: float) -> None:
        """Records the time of a request; requests of several processes may arrive slightly out of order."""
        if self._last_s is not None:
            self._mean_gap_s.add(max(0.0, at_s - self._last_s))
        self._last_s = at_s if self._last_s is None else max(at_s, self._last_s)

    def gap_s(self, now_s: float) -> float | None:
        """Returns the expected seconds between two requests; None before the second request."""
        mean_s = self._mean_gap_s.value
        if mean_s is None or self._last_s is None:
            return None
        return max(mean_s, now_s - self._last_s)
