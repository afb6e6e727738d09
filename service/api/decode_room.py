"""Bounds the memory of pictures that are decoded at one time; a picture that finds no room waits for its turn."""

from __future__ import annotations

import asyncio
from collections import deque

from saccade.service.api.cancellation import Cancellation
from saccade.service.errors import SaccadeError

# Smaller pictures never wait: there are no more of them at one time than threads.
SMALL_BYTES = 16 * 1024 * 1024


class DecodeRoom:
    """So many bytes for all threads of one API process; only its event loop may call it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int, cancellation: Cancellation) -> int:
        """Waits until `size` bytes are free, or until nothing is held, and returns what `leave` gives back.

        Raises DeadlineExceeded or ClientLeft.
        """
        if size <= SMALL_BYTES:
            return 0
        if self._waiting or not self._fits(size):
            cancellation.ensure_left()
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            await self._granted(turn, size, cancellation)
        else:
            self._held += size
        return size

    def leave(self, size: int) -> None:
        self._held -= size
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.done():
                if not self._fits(wanted):
                    return
                self._held += wanted
                turn.set_result(None)
            self._waiting.popleft()

    def _fits(self, size: int) -> bool:
        return not self._held or self._held + size <= self._most

    async def _granted(self, turn: asyncio.Future[None], size: int, cancellation: Cancellation) -> None:
        def give_up(error: SaccadeError) -> None:
            if not turn.done():
                turn.set_exception(error)
                self.leave(0)

        cancellation.on_end(give_up)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # granted a moment before
                self.leave(size)
            raise
