"""Clients that do not take their answers: their connections end, those of patient ones do not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.server import Server, running_server, wait_until

_TIMEOUT_MS = 1500.0
_ASK = b"GET /openapi.json HTTP/1.1\r\nHost: here\r\n\r\n"
_MANY = 90  # answers of 100 KB: more than all buffers in between hold


@pytest.fixture(scope="module")
def hasty(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(repository, tmp_path_factory.mktemp("hasty"), body_timeout_ms=_TIMEOUT_MS) as running:
        yield running


def asked(server: Server, window_bytes: int) -> socket.socket:
    """A connection that has sent its requests."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
    connection.settimeout(20.0)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(_ASK * _MANY)
    return connection


def not_taken(server: Server) -> list[str]:
    return [event["detail"] for event in server.events("request_refused") if event["kind"] == "answer not taken"]


def received(connection: socket.socket) -> bytes:
    """Everything up to the end, or to a reset."""
    answers = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            answers += piece
    return answers


def test_a_client_that_takes_nothing_is_disconnected(hasty: Server) -> None:
    with asked(hasty, 4096) as connection:
        wait_until(lambda: not_taken(hasty), what="the server gives up")
        answers = received(connection)

    assert answers.count(b"HTTP/1.1 200 OK\r\n") < _MANY
    assert "less than 65,536 bytes in 1.5 s" in not_taken(hasty)[0]


def test_a_client_that_reads_gets_everything(hasty: Server) -> None:
    with asked(hasty, 2**20) as connection:
        connection.shutdown(socket.SHUT_WR)
        answers = received(connection)

    assert answers.count(b"HTTP/1.1 200 OK\r\n") == _MANY
