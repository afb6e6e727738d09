"""A server that is to end still answers requests that were on their way, and then closes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from saccade.service.api.http.limited_heads import LimitedHeads
from saccade.service.api.refusal_log import RefusalLog


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _told_to_end(sent: bytes) -> bytes:
    """What a client gets that sends after the server was told to end, up to the end of the connection."""
    ours, theirs = socket.socketpair()
    given = {"config": uvicorn.Config(_app, log_config=None), "server_state": ServerState(), "app_state": {}}
    protocol = LimitedHeads(timeout_s=5.0, refusals=RefusalLog(), **given)
    await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    protocol.shutdown()
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 5.0)
    finally:
        writer.close()


async def test_a_request_that_was_on_its_way_is_answered() -> None:
    answer = await _told_to_end(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"ok")


async def test_a_connection_without_one_is_closed() -> None:
    assert await _told_to_end(b"") == b""
