"""Measures the lag of the calling event loop, in seconds, at the cost of one callback per busy iteration.

An iteration is what the loop does between two polls of its sockets. A request that arrives during one iteration is read
in the next, so in a loop that lags, requests are older than they look and answers leave later.
"""

from __future__ import annotations

import asyncio
import time

from saccade.service.running_figures import RunningMean

_LATEST_SHARE = 0.1  # weight of the newest iteration in the running mean
_FORGOTTEN_AFTER_S = 0.25  # a loop without a request for this long counts as idle, with a lag of 0


class EventLoopLag:
    """The lag is measured with time.monotonic, because uvloop updates loop.time() whenever it is read."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._ended_s = 0.0
        self._mean_s = RunningMean(_LATEST_SHARE, start=0.0)

    def age_s(self) -> float:
        """Returns the seconds since the first call in this iteration; 0 for the first call."""
        now_s = time.monotonic()
        if self._began_s is None:
            if now_s - self._ended_s > _FORGOTTEN_AFTER_S:
                self._mean_s.value = 0.0
            self._began_s = now_s
            asyncio.get_running_loop().call_soon(self._end)  # runs in the next iteration
        return now_s - self._began_s

    @property
    def usual_s(self) -> float:
        """The running mean of the length of an iteration, in seconds."""
        return self._mean_s.value or 0.0

    def lag_s(self) -> float:
        """Returns the likely age, in seconds, of a request that is read now."""
        return self.age_s() + self.usual_s

    def _end(self) -> None:
        if self._began_s is not None:
            self._ended_s = time.monotonic()
            self._mean_s.add(self._ended_s - self._began_s)
            self._began_s = None
