"""Clients that end their sending side behind the request, as `nc -N` and some HTTP/1.0 clients do."""

from __future__ import annotations

import json
import socket

import pytest

from tests.support.images import SLOW_PNG, red_of, red_png
from tests.support.requests import RawClient
from tests.support.server import Server, wait_until

_PATH = "/v1/models/classifier/predict"


def request(picture: bytes, version: str = "1.1") -> bytes:
    return f"POST {_PATH} HTTP/{version}\r\nHost: here\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture


def answers(server: Server, sent: bytes) -> list[tuple[bytes, bytes]]:
    """Head and body of everything that comes back behind `sent` and the end of the sending side."""
    with RawClient(server.port) as client:
        client.send(sent)
        client.socket.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.socket.recv(65_536), b""))
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        found.append((head, rest[:length]))
        received = rest[length:]
    return found


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_half_closes_gets_its_answer(server: Server, version: str) -> None:
    ((head, body),) = answers(server, request(red_png(40), version))

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert red_of(json.loads(body)["predictions"][0]) == 40


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n", 200),
        (b"GET /v1/models HTTP/1.1\r\nHost: here\r\n\r\n", 200),
        (request(b"no picture").replace(b"classifier", b"nobody"), 404),
        (b"DELETE /health/live HTTP/1.1\r\nHost: here\r\n\r\n", 405),
    ],
)
def test_an_answer_of_the_very_turn_is_sent(server: Server, sent: bytes, status: int) -> None:
    for _ in range(5):
        ((head, _body),) = answers(server, sent)
        assert head.startswith(f"HTTP/1.1 {status} ".encode())


def test_an_answer_that_takes_its_time_is_whole(server: Server) -> None:
    """Letters of its first line were sent ahead."""
    ((head, body),) = answers(server, request(SLOW_PNG))

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["predictions"]


def test_several_requests_before_the_end_are_all_answered(server: Server) -> None:
    first, second = answers(server, request(SLOW_PNG) + request(red_png(41)))

    assert first[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert second[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert red_of(json.loads(second[1])["predictions"][0]) == 41


@pytest.mark.parametrize("cut", [request(red_png(42))[:-5], request(red_png(42))[:40]], ids=["body", "head"])
def test_complete_requests_before_one_that_is_cut_off_are_answered(server: Server, cut: bytes) -> None:
    found = answers(server, request(SLOW_PNG) + request(red_png(41)) + cut)

    assert [head.split(b"\r\n")[0] for head, _ in found] == [b"HTTP/1.1 200 OK"] * 2
    assert red_of(json.loads(found[1][1])["predictions"][0]) == 41


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HT", request(SLOW_PNG)[:-5]], ids=["nothing", "head", "body"])
def test_what_is_not_complete_at_the_end_is_closed(server: Server, sent: bytes) -> None:
    assert answers(server, sent) == []


def test_a_client_that_left_altogether_is_noticed_while_it_waits(server: Server) -> None:
    left = server.outcomes("client_left")

    with RawClient(server.port) as client:
        client.send(request(SLOW_PNG))

    wait_until(lambda: server.outcomes("client_left") == left + 1, what="the leaver is counted")
    server.wait_idle()
