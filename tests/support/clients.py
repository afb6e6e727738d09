"""A client that stays or leaves when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ScriptedClient:
    """Stands where the watch over the connection stands; the test decides when the client leaves."""

    def __init__(self) -> None:
        self.has_left = False
        self._callbacks: list[Callable[[], None]] = []
        self.is_asked = asyncio.Event()

    def begin(self, on_leave: Callable[[], None]) -> None:
        if self.has_left:
            on_leave()
        self._callbacks.append(on_leave)
        self.is_asked.set()

    def end(self, on_leave: Callable[[], None]) -> None:
        self._callbacks.remove(on_leave)

    async def asked(self) -> list[Callable[[], None]]:
        """Who wants to know, once somebody does."""
        await self.is_asked.wait()
        return list(self._callbacks)

    async def leave(self) -> None:
        callbacks = await self.asked()
        self.has_left = True
        for callback in callbacks:
            callback()
