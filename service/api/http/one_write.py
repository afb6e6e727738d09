"""Sends an answer's head and body in one write. Promises: the bytes and their order are uvicorn's own.

uvicorn writes the head when the response starts and the body when it comes, and uvloop sends each at once: two system
calls here, two packets and two wake-ups at the client. Writes of one turn of the event loop leave together instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OneWriteTransport:
    """A transport whose writes of one turn are one; everything else is passed on."""

    __slots__ = ("_ahead_bytes", "_held", "_loop", "_on_close", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, on_close: Callable[[], None] = lambda: None) -> None:
        """`on_close` is called when everything was written and the connection is to end."""
        self._transport = transport
        self._on_close = on_close
        self.is_closing = transport.is_closing  # asked several times a request, so not by __getattr__
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []
        self._ahead_bytes = 0

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self.flush)
        if self._ahead_bytes:
            data, self._ahead_bytes = data[self._ahead_bytes :], 0
        self._held.append(data)

    def write_ahead(self, data: bytes) -> None:
        """Sends what the next write begins with, now."""
        self._ahead_bytes += len(data)
        self._transport.write(data)

    def close(self) -> None:
        """After what was written."""
        self.flush()
        self._transport.close()
        self._on_close()

    def flush(self) -> None:
        """Sends what was written, now."""
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.writelines(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's protocol on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(cast("asyncio.Transport", OneWriteTransport(transport, self.closing)))

    def closing(self) -> None:
        """Called when the connection is to end once everything was taken."""
