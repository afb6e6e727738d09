"""What a closed connection still holds does not stay for ever."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from uvicorn.server import ServerState

from saccade.service.api.http.taken_answers import TakenAnswers
from saccade.service.api.refusal_log import RefusalLog

_TIMEOUT_S = 0.02


async def _opened() -> tuple[TakenAnswers, socket.socket, asyncio.Event]:
    """A connection with little room in between, its other end, and what tells of its end."""
    ended = asyncio.Event()

    class Watched(TakenAnswers):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.set()

    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    config = uvicorn.Config(lambda: None, log_config=None)
    given = {"config": config, "server_state": ServerState(), "app_state": {}}
    protocol = Watched(timeout_s=_TIMEOUT_S, refusals=RefusalLog(), **given)
    await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
    return protocol, theirs, ended


async def test_a_connection_that_is_to_end_does_not_wait_for_a_client_that_reads_nothing() -> None:
    protocol, theirs, ended = await _opened()

    with theirs:
        protocol.transport.write(b"x" * 60_000)  # less than what stops further writes
        protocol.transport.close()
        await asyncio.wait_for(ended.wait(), 5.0)


async def test_a_connection_whose_client_read_all_is_not_watched() -> None:
    protocol, theirs, ended = await _opened()

    with theirs:
        protocol.transport.write(b"x" * 100)
        protocol.transport.close()
        await asyncio.wait_for(ended.wait(), 5.0)

        assert theirs.recv(1000) == b"x" * 100
        assert protocol._taking_timer is None
