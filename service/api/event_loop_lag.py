"""Event-loop lag of the calling loop, in seconds, at the cost of one callback per busy iteration.

An iteration is what the loop does between two polls of its sockets. A request that arrives during one is read in the
next, so in a loop that is behind, requests are older than they look and answers leave later.
"""

from __future__ import annotations

import asyncio
import time

from saccade.service.running_mean import RunningMean

_LATEST_SHARE = 0.1  # weight of the newest iteration in the running mean
_FORGOTTEN_AFTER_S = 0.25  # after this long without a request the loop counts as idle, so as not behind


class EventLoopLag:
    """Measured with time.monotonic, because uvloop renews loop.time() whenever it is read."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._ended_s = 0.0
        self._mean_s = RunningMean(_LATEST_SHARE, start=0.0)

    def age_s(self) -> float:
        """Seconds since the first call in this iteration; 0 for that call."""
        now_s = time.monotonic()
        if self._began_s is None:
            if now_s - self._ended_s > _FORGOTTEN_AFTER_S:
                self._mean_s.value = 0.0
            self._began_s = now_s
            asyncio.get_running_loop().call_soon(self._end)  # runs in the next iteration
        return now_s - self._began_s

    @property
    def usual_s(self) -> float:
        """The running mean of an iteration's length."""
        return self._mean_s.value or 0.0

    def lag_s(self) -> float:
        """The likely age, in seconds, of a request that is read now."""
        return self.age_s() + self.usual_s

    def _end(self) -> None:
        if self._began_s is not None:
            self._ended_s = time.monotonic()
            self._mean_s.add(self._ended_s - self._began_s)
            self._began_s = None
