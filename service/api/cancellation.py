"""Ends what one image waits for, at its deadline or when its client has left, whichever comes first.

It uses one timer per image and plain futures, because `asyncio.timeout` and chained futures cost more than queueing
the request does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from saccade.service.errors import ClientLeft, DeadlineExceeded, SaccadeError

# Most requests are answered within this time and never need to ask whether their client is still there.
ASK_AFTER_S = 0.025
_LATE = "the deadline passed before the answer was ready"
GiveUp = Callable[[SaccadeError], None]


class ClientWatch(Protocol):
    """Tells when the client of a request has closed its connection."""

    @property
    def has_left(self) -> bool: ...

    def begin(self, on_leave: Callable[[], None]) -> None:
        """Begins to watch the connection and calls `on_leave` at most once."""

    def end(self, on_leave: Callable[[], None]) -> None:
        """Stops calling `on_leave`."""


class Cancellation:
    """Ends the present wait of one image and every later one; only the event loop that made it may call it.

    Use it as a context manager: it ends nothing after the block is left.
    """

    __slots__ = ("_error", "_give_up", "_is_asking", "_timer", "_until_s", "_watch")

    def __init__(self, until_s: float, watch: ClientWatch) -> None:
        """`until_s` is the end on the monotonic clock; if it has passed already, the first wait ends at once."""
        self._until_s = until_s
        self._watch = watch
        self._is_asking = False
        self._error: SaccadeError | None = None
        self._give_up: GiveUp | None = None
        self._timer = self._look_after(min(ASK_AFTER_S, until_s - time.monotonic()))

    @property
    def until_s(self) -> float:
        """When it ends the request at the latest, on the monotonic clock."""
        return self._until_s

    def __enter__(self) -> Cancellation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._give_up = None
        if self._is_asking:
            self._watch.end(self._client_left)

    def _look_after(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(0.0, seconds), self._look)

    def _look(self) -> None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            self._end(DeadlineExceeded(_LATE))
            return
        self._timer = self._look_after(left_s)
        if not self._is_asking:
            self._is_asking = True
            self._watch.begin(self._client_left)

    def _client_left(self) -> None:
        self._end(ClientLeft("the client closed the connection"))

    def _end(self, error: SaccadeError) -> None:
        if self._error is None:
            self._error = error
            if self._give_up is not None:
                self._give_up(error)

    def ensure_left(self) -> None:
        """Raises DeadlineExceeded or ClientLeft when the request has ended."""
        if self._error is None:
            if self._watch.has_left:  # another image of the same request noticed that
                self._client_left()
            elif time.monotonic() >= self._until_s:
                self._end(DeadlineExceeded(_LATE))
        if self._error is not None:
            raise self._error

    def on_end(self, give_up: GiveUp) -> None:
        """Sets what ends the wait that begins now; call `ensure_left` before the wait begins."""
        self._give_up = give_up
