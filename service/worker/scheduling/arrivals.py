"""How often requests come. Promises: follows a change within some ten requests; silence counts at once."""

from __future__ import annotations

_LATEST_SHARE = 0.1  # of the newest gap in the running estimate


class Arrivals:
    """Gaps between the requests for one instance."""

    def __init__(self) -> None:
        self._gap_s: float | None = None
        self._last_s: float | None = None

    def observe(self, at_s: float) -> None:
        """A request came. Processes send in turn, so one may seem to come before the last."""
        if self._last_s is not None:
            gap_s = max(0.0, at_s - self._last_s)
            self._gap_s = gap_s if self._gap_s is None else self._gap_s + _LATEST_SHARE * (gap_s - self._gap_s)
        self._last_s = at_s if self._last_s is None else max(at_s, self._last_s)

    def gap_s(self, now_s: float) -> float | None:
        """Expected seconds between two requests; None until there were two."""
        if self._gap_s is None or self._last_s is None:
            return None
        return max(self._gap_s, now_s - self._last_s)
