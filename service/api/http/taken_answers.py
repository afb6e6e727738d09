"""Ends connections whose client does not take its answer. Promises: what is held for a reader has a shortest time.

uvicorn waits for ever until a client has read, also of one that takes a byte per second, and of one that it closes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import Any

from saccade.service.api.http.half_closed import HalfClosed
from saccade.service.api.refusal_log import RefusalLog

_LEAST_BYTES = 64 * 1024  # within the time limit, or all that is left: 3 KiB/s by default
_RESET = struct.pack("ii", 1, 0)  # close, and wait for nothing


class TakenAnswers(HalfClosed):
    """uvicorn's protocol with a lowest speed for those who read."""

    def __init__(self, *, timeout_s: float, refusals: RefusalLog, **given: Any) -> None:
        """In `timeout_s`, a client must have taken 64 KiB of what waits for it; the rest is uvicorn's."""
        super().__init__(**given)
        self._timeout_s = timeout_s
        self._refusals = refusals
        self._waiting_bytes = 0  # at the last look
        self._taking_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Called when more waits than a socket takes at once."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._watch_no_longer()

    def closing(self) -> None:
        if self.transport.get_write_buffer_size():
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch_no_longer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._taking_timer is None:
            self._waiting_bytes = self.transport.get_write_buffer_size()
            self._taking_timer = self.loop.call_later(self._timeout_s, self._look)

    def _watch_no_longer(self) -> None:
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def _look(self) -> None:
        self._taking_timer = None
        if self._waiting_bytes - self.transport.get_write_buffer_size() >= _LEAST_BYTES:
            self._watch()
            return
        detail = f"of its answer, the client took less than {_LEAST_BYTES:,} bytes in {self._timeout_s:g} s"
        self._refusals.note("answer not taken", HTTPStatus.REQUEST_TIMEOUT, detail, "")
        # A reset, so that the kernel does not keep what the client did not take either.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
