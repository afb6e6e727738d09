"""Notices that a client left while its request waits. Promises: costs one timer for requests that are answered soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.http.limits import Receive

# A waiting endpoint is not cancelled when its client leaves: uvicorn only says so to whoever calls receive().
# Most requests are answered within this time and never need to ask.
_ASK_AFTER_S = 0.025


class DisconnectWatch:
    """Asks the server once per request, whoever waits. Close it when the request ends."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._callbacks: list[Callable[[], None]] = []
        self._asking: asyncio.Task[None] | None = None
        self._has_left = False

    @contextmanager
    def __call__(self, on_leave: Callable[[], None]) -> Iterator[None]:
        """`on_leave` is called if the client leaves before the context ends."""
        if self._has_left:  # another image of the same request noticed it
            on_leave()
        timer = asyncio.get_running_loop().call_later(_ASK_AFTER_S, self._ask)
        self._callbacks.append(on_leave)
        try:
            yield
        finally:
            timer.cancel()
            self._callbacks.remove(on_leave)

    def _ask(self) -> None:
        if self._asking is None:
            self._asking = asyncio.create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        for on_leave in list(self._callbacks):
            on_leave()

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
