"""Answers clients that end their sending side behind the request. Promises: one that left altogether is still noticed.

Both look alike: their packets end (FIN). But a closed socket answers whatever it is sent with a reset, which the next
write meets. So the first letters of the answer, which all answers share, are sent one by one ahead of it.
"""

from __future__ import annotations

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from saccade.service.api.http.one_write import OneWriteProtocol, OneWriteTransport

_START = b"HTTP/1.1 "
_FIRST_AFTER_S = 0.01  # each further letter waits twice as long, 5 s in all: connections of any round trip are served


class HalfClosed(OneWriteProtocol):
    """uvicorn's protocol, for which the end of a client's packets is not the end of the connection."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._before: RequestResponseCycle | None = None  # the request before the one that came last

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self._before = before

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn always closes
        """Whether the connection stays, which it does for complete requests that were not answered yet."""
        if self._before is not None and self.cycle.more_body and self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()  # it never becomes complete, and those before it are answered
            self.cycle = self._before
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            cast("OneWriteTransport", self.transport).flush()  # an answer of this very turn
            return False
        self.cycle.keep_alive = False
        self._send_later(0)
        return True

    def _send_later(self, letter: int) -> None:
        if letter < len(_START):
            self.loop.call_later(_FIRST_AFTER_S * 2**letter, self._send_letter, letter)

    def _send_letter(self, letter: int) -> None:
        if not self.transport.is_closing() and not self.cycle.response_started and not self.pipeline:
            cast("OneWriteTransport", self.transport).write_ahead(_START[letter : letter + 1])
            self._send_later(letter + 1)
