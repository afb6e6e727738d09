"""How many requests of one API key run at once. Promises: one client cannot take all slots of a process."""

from __future__ import annotations

from collections import Counter

from saccade.service.errors import Overloaded

_RETRY_AFTER_S = 1.0


class KeyLimits:
    """Counts by key, in one process. Belongs to its event loop."""

    def __init__(self, max_concurrent: int) -> None:
        """0: any number."""
        self._max_concurrent = max_concurrent
        self._running: Counter[bytes] = Counter()

    def begin(self, key: bytes | None) -> None:
        """A request of a key, by its digest; None is without one, and without limit. Raises Overloaded."""
        if key is None or not self._max_concurrent:
            return
        if self._running[key] >= self._max_concurrent:
            raise Overloaded(
                f"{self._running[key]} requests with this key are being answered, which is the limit: wait for their "
                "answers, or have SACCADE_MAX_CONCURRENT_PER_KEY raised",
                _RETRY_AFTER_S,
                "key",
            )
        self._running[key] += 1

    def end(self, key: bytes | None) -> None:
        """A request that was let in is answered."""
        if key is None or not self._max_concurrent:
            return
        self._running[key] -= 1
        if self._running[key] == 0:
            del self._running[key]
