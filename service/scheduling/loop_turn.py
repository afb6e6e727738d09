"""How far an event loop is behind. Promises: costs one callback per busy turn.

A turn is what the loop works off between two looks for news. Who comes during one is seen in the next, so in a loop
that is behind, requests are older than they look, and answers leave later.
"""

from __future__ import annotations

import asyncio
import time

_LATEST_SHARE = 0.1  # of the newest turn in the running estimate
_FORGOTTEN_AFTER_S = 0.25  # without a request: nobody is behind who had nothing to do


class LoopTurn:
    """Of the loop that asks. Its own clock does not tell: uvloop renews it whenever it is read."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._ended_s = 0.0
        self.usual_s = 0.0  # length of a turn

    def age_s(self) -> float:
        """Seconds since the turn's first question, 0 for that one."""
        now_s = time.monotonic()
        if self._began_s is None:
            if now_s - self._ended_s > _FORGOTTEN_AFTER_S:
                self.usual_s = 0.0
            self._began_s = now_s
            asyncio.get_running_loop().call_soon(self._end)  # what is called soon is called in the next turn
        return now_s - self._began_s

    def lag_s(self) -> float:
        """About how long ago the request arrived that is seen now."""
        return self.age_s() + self.usual_s

    def _end(self) -> None:
        if self._began_s is not None:
            self._ended_s = time.monotonic()
            self.usual_s += _LATEST_SHARE * (self._ended_s - self._began_s - self.usual_s)
            self._began_s = None
