"""The loops of both clients: what is sent again, how often, and over how many connections."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from saccade.client import AnyPrediction, AsyncClient, Client, NoAnswer, Overloaded, Unprocessable

ANSWER = {
    "model": "m",
    "version": "1",
    "variant": "fp32",
    "request_id": "r",
    "predictions": [{"width": 1, "height": 1, "classes": []}],
    "timings_ms": {},
}


def problem(status: int) -> httpx.Response:
    document = {"status": status, "title": "Title", "detail": "detail", "request_id": "r"}
    return httpx.Response(status, json=document, headers={"Retry-After": "0"})


class Script:
    """Answers requests by turns, the last one from then on."""

    def __init__(self, *turns: httpx.Response | Exception) -> None:
        self._turns = turns
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        turn = self._turns[min(len(self.requests), len(self._turns)) - 1]
        if isinstance(turn, Exception):
            raise turn
        return turn


def ask(script: Script, **arguments: object) -> AnyPrediction:
    with Client("server", routing_key="user", transport=httpx.MockTransport(script)) as client:
        return client.predict(b"picture", model="m", **arguments)  # type: ignore[arg-type]


def ask_async(script: Script, **arguments: object) -> AnyPrediction:
    async def asked() -> AnyPrediction:
        async with AsyncClient("server", routing_key="user", transport=httpx.MockTransport(script)) as client:
            return await client.predict(b"picture", model="m", **arguments)  # type: ignore[arg-type]

    return asyncio.run(asked())


both = pytest.mark.parametrize("ask", [ask, ask_async])
Ask = Callable[..., AnyPrediction]


@both
def test_refusals_that_pass_are_waited_out_with_the_same_body(ask: Ask) -> None:
    script = Script(problem(429), problem(503), httpx.Response(200, json=ANSWER))

    assert ask(script).served.model == "m"
    assert [request.content for request in script.requests] == [b"picture"] * 3


@both
def test_a_connection_that_was_not_made_is_tried_again(ask: Ask) -> None:
    script = Script(httpx.ConnectError("refused"), httpx.Response(200, json=ANSWER))

    ask(script)
    assert len(script.requests) == 2


@both
def test_what_may_have_been_answered_is_sent_once(ask: Ask) -> None:
    script = Script(httpx.ReadError("reset"))

    with pytest.raises(NoAnswer):
        ask(script)
    assert len(script.requests) == 1


@both
def test_the_last_refusal_is_raised(ask: Ask) -> None:
    script = Script(problem(429))

    with pytest.raises(Overloaded):
        ask(script)
    assert len(script.requests) == 4


@both
def test_a_bad_picture_is_sent_once(ask: Ask) -> None:
    script = Script(problem(422))

    with pytest.raises(Unprocessable):
        ask(script)
    assert len(script.requests) == 1


@both
def test_deadline_priority_and_routing_key_are_sent(ask: Ask) -> None:
    script = Script(httpx.Response(200, json=ANSWER))

    ask(script, deadline_ms=10_000, priority="high", top_k=3)
    ask(script, routing_key="another")

    first, second = script.requests
    assert first.url.params["top_k"] == "3"
    assert 0 < float(first.url.params["deadline_ms"]) <= 10_000
    assert (first.headers["X-Priority"], first.headers["X-Routing-Key"]) == ("high", "user")
    assert second.headers["X-Routing-Key"] == "another"
    assert "deadline_ms" not in second.url.params


class _Counting(BaseHTTPRequestHandler):
    """Keeps connections open, as saccade does."""

    protocol_version = "HTTP/1.1"
    connections: set[tuple[str, int]]

    def do_POST(self) -> None:
        self.connections.add(self.client_address)
        self.rfile.read(int(self.headers["Content-Length"]))
        content = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def counting() -> Iterator[tuple[str, set[tuple[str, int]]]]:
    handler = type("Counting", (_Counting,), {"connections": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}", handler.connections
        server.shutdown()
        thread.join()


def test_connections_are_kept(counting: tuple[str, set[tuple[str, int]]]) -> None:
    url, connections = counting

    with Client(url) as client:
        for _ in range(5):
            client.predict(b"picture", model="m")

    assert len(connections) == 1


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        Client("http://127.0.0.1:port")
    with pytest.raises(ValueError, match="is not a URL"):
        AsyncClient("http://127.0.0.1:port")
