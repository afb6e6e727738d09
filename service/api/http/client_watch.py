"""Notices that a client left while its request waits. Promises: asks the server once per request, whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from saccade.service.api.http.limits import Receive


class DisconnectWatch:
    """Asks when the first image begins to wait for it. Close it when the request ends.

    A waiting endpoint is not cancelled when its client leaves: uvicorn only says so to whoever calls receive().
    """

    def __init__(self, receive: Receive) -> None:
        self.has_left = False
        self._receive = receive
        self._callbacks: list[Callable[[], None]] = []
        self._asking: asyncio.Task[None] | None = None

    def begin(self, on_leave: Callable[[], None]) -> None:
        """`on_leave` is called when the client leaves, at once if it has left."""
        if self.has_left:
            on_leave()
        self._callbacks.append(on_leave)
        if self._asking is None:
            self._asking = asyncio.create_task(self._wait_for_disconnect())

    def end(self, on_leave: Callable[[], None]) -> None:
        self._callbacks.remove(on_leave)

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        for on_leave in list(self._callbacks):
            on_leave()

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
