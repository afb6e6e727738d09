"""Heads of requests that are too large, too slow, or too many: refused in the parser, over real connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import red_png
from tests.support.server import Server, running_server

HEAD_TIMEOUT_MS = 400.0
_START = b"GET /health/live HTTP/1.1\r\nHost: here\r\n"
_CHUNKED = b"POST /v1/models/classifier/predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
_PIECE = b"a" * 65_536


@pytest.fixture(scope="module")
def hasty(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for heads and bodies only briefly."""
    with running_server(repository, tmp_path_factory.mktemp("hasty"), body_timeout_ms=HEAD_TIMEOUT_MS) as running:
        yield running


def spoken(server: Server, *pieces: bytes, most: int = 200) -> bytes:
    """What comes back until the server closes, while the last piece is sent again, `most` times at the most."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20.0) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            for _ in range(most):
                connection.sendall(pieces[-1])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused, as it should be
        else:
            assert most == 0, f"the server took {most} pieces"
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """Everything up to the end, or to the reset of a connection whose last bytes nobody read."""
    answer = b""
    try:
        while piece := connection.recv(65_536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET /", _PIECE),
        (_START + b"X-Long: ", _PIECE),
        (_START, b"".join(b"X-%d: some\r\n" % number for number in range(5000))),
        (_CHUNKED + b"0\r\n", b"".join(b"X-%d: some\r\n" % number for number in range(5000))),
        (_CHUNKED + b"0\r\nX-Long: ", _PIECE),
    ],
    ids=["url", "header", "many headers", "many trailers", "trailer"],
)
def test_what_has_no_end_is_cut_off(server: Server, pieces: tuple[bytes, ...]) -> None:
    answer = spoken(server, *pieces)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), "a reset may overtake the answer"
    assert server.predict("classifier", red_png(4)).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + _PIECE + b" HTTP/1.1\r\nHost: here\r\n\r\n",
        _START + b"X-Long: " + _PIECE + b"\r\n\r\n",
        _START + b"X-Request-Id: " + b"a" * 1_000_000 + b"\r\n\r\n",
        _START + b"".join(b"X-%d: some\r\n" % number for number in range(100)) + b"\r\n",
        _CHUNKED + b"3\r\nabc\r\n0\r\n" + b"".join(b"X-%d: some\r\n" % number for number in range(100)) + b"\r\n",
    ],
    ids=["url", "header", "request id", "many headers", "many trailers"],
)
def test_a_head_beyond_the_limits_is_answered_431_and_closed(server: Server, request_bytes: bytes) -> None:
    answer = spoken(server, request_bytes, most=0)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert answer == b"" or b"at most 65,536 bytes and 100 fields are allowed" in answer


def test_a_hundred_fields_are_allowed_in_each_head(server: Server) -> None:
    fields = b"".join(b"X-%d: some\r\n" % number for number in range(98))
    first, last = (_START + fields + each + b"\r\n\r\n" for each in (b"Accept: */*", b"Connection: close"))

    answer = spoken(server, first + last, most=0)

    assert answer.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize(
    ("bad", "status"), [(b"no HTTP\r\n\r\n", b"400 "), (_START + b"X: " + b"a" * 65_536 + b"\r\n\r\n", b"431 ")]
)
def test_requests_before_a_bad_one_are_answered_and_the_bad_one_alone_is_refused(
    server: Server, bad: bytes, status: bytes
) -> None:
    alone, behind = (spoken(server, good + bad, most=0) for good in (b"", 2 * (_START + b"\r\n")))

    assert alone.startswith(b"HTTP/1.1 " + status)
    assert b"application/problem+json" in alone
    assert behind.count(b"HTTP/1.1 200 OK") == behind.count(b"HTTP/1.1 ") == 2


def test_requests_far_ahead_of_their_answers_end_the_connection(server: Server) -> None:
    answers = spoken(server, 1000 * (_START + b"\r\n"), most=0)

    assert 0 < answers.count(b"HTTP/1.1 200 OK") == answers.count(b"HTTP/1.1 ") <= 102


def test_a_head_within_the_limits_may_come_in_pieces(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20.0) as connection:
        for piece in (b"\r\n", b"GET", b" /health/live", b" HTTP/1.1\r\nHost: he", b"re\r\nConnection: close\r\n\r\n"):
            connection.sendall(piece)

        assert received(connection).startswith(b"HTTP/1.1 200 OK")


def test_a_head_that_does_not_arrive_in_time_is_answered_408_and_closed(hasty: Server) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20.0) as connection:
        connection.sendall(_START + b"X-Slow: ")

        answer = received(connection)

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"the head did not arrive within 0.4 s" in answer


def test_a_next_head_that_is_slow_ends_a_connection_that_was_answered(hasty: Server) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20.0) as connection:
        connection.sendall(_START + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        connection.sendall(b"GET /health")

        assert received(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("given", [b"a" * 129, b"one\ttwo", b"one two", b"\x80"])
def test_a_request_id_that_is_long_or_not_printable_is_replaced(server: Server, given: bytes) -> None:
    answer = server.predict("classifier", red_png(1), headers={"X-Request-Id": given})  # type: ignore[dict-item]

    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert answer.headers["x-request-id"].encode() not in given
