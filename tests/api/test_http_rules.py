"""What RFC 9112 asks of servers where requests are odd: over real connections, byte for byte."""

from __future__ import annotations

import re

import pytest

from tests.support.images import red_png
from tests.support.requests import RawClient
from tests.support.server import Server

_PICTURE = red_png(40)
_LENGTH = b"Content-Length: %d\r\n" % len(_PICTURE)
_CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_PICTURE), _PICTURE)
_PATH = b"/v1/models/classifier/predict"
_H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
_LAST = b"GET /health/live HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"


def post(
    fields: bytes = _LENGTH,
    body: bytes = _PICTURE,
    path: bytes = _PATH,
    version: bytes = b"1.1",
    host: bytes = b"Host: here\r\n",
) -> bytes:
    return b"POST %b HTTP/%b\r\n%b%b\r\n%b" % (path, version, host, fields, body)


def statuses(server: Server, sent: bytes) -> list[int]:
    """Of all answers; the request behind `sent` asks for the end of the connection."""
    with RawClient(server.port) as client:
        client.send(sent + _LAST)
        received = b"".join(iter(lambda: client.socket.recv(65_536), b""))
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post(b"Transfer-Encoding: identity, chunked\r\n", _CHUNKED), 501),
        (post(b"Transfer-Encoding: gzip, chunked\r\n", _CHUNKED), 501),
        (post(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", _CHUNKED), 501),
        (post(b"Transfer-Encoding: chunked, identity\r\n", _CHUNKED), 400),
        (post(b"Transfer-Encoding: chunked\r\n" + _LENGTH, _CHUNKED), 400),
        (post(_LENGTH + b"Content-Length: 3\r\n"), 400),
        (post(host=b""), 400),
        (post(host=b"Host: here\r\nHost: there\r\n"), 400),
        (post(version=b"2.0"), 505),
        (b"GET /health/live\r\n\r\n", 505),
        (b"CONNECT here:80 HTTP/1.1\r\nHost: here\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_of_http_1_1_is_refused_and_the_connection_ends(
    server: Server, sent: bytes, status: int
) -> None:
    assert statuses(server, sent) == [status]


@pytest.mark.parametrize(
    "sent",
    [
        post(b"Transfer-Encoding: Chunked\r\n", _CHUNKED),
        post(path=b"http://here" + _PATH),
        post(_LENGTH + _H2C),
        post(_H2C + b"Transfer-Encoding: chunked\r\n", _CHUNKED),
        post(_LENGTH + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ],
)
def test_what_is_allowed_is_answered_and_the_connection_goes_on(server: Server, sent: bytes) -> None:
    """Another protocol may be asked for; nobody has to speak it."""
    assert statuses(server, sent) == [200, 200]


def test_a_client_of_http_1_0_needs_no_host(server: Server) -> None:
    assert statuses(server, post(version=b"1.0", host=b"")) == [200]


@pytest.mark.parametrize("path", [b"/v1/models%2fclassifier/predict", b"/v1%2Fmodels/classifier/predict", b"/%2f"])
def test_an_encoded_slash_separates_nothing(server: Server, path: bytes) -> None:
    assert statuses(server, post(path=path)) == [404, 200]
