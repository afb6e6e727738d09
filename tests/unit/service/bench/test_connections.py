"""The client's connections against scripted servers: every ticket ends once, whatever the server does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from saccade.service.bench.answers import outcome_of
from saccade.service.bench.connections import ConnectionPool, Reply, ServerAddress, Ticket
from saccade.service.bench.records import End
from saccade.service.bench.wakeup import Wakeup
from saccade.service.bench.workload import Item

ITEM = Item("m", "0.jpg", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n", b"body")
REQUEST_BYTES = ITEM.size_bytes
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@dataclass
class Server:
    """Accepts connections and does with each request what `answer` says; None closes, b"" stays silent."""

    answer: Callable[[int], bytes | None]
    connections: int = 0
    requests: int = 0
    last: int = 10**9  # request after which a connection is closed, its answer being whole
    of_connection: dict[int, int] = field(default_factory=dict)
    ended: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    port: int = 0
    arrived: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    silent: asyncio.Event = field(default_factory=asyncio.Event)  # set: end the silence

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while self.requests < self.last or number > 1:
                await reader.readexactly(REQUEST_BYTES)
                self.requests += 1
                self.of_connection[number] = self.of_connection.get(number, 0) + 1
                self.arrived.put_nowait(self.requests)
                answer = self.answer(self.requests)
                if answer is None:
                    break
                if not answer:
                    await self.silent.wait()
                    answer = ANSWER
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.ended.put_nowait(number)


@asynccontextmanager
async def serving(answer: Callable[[int], bytes | None]) -> AsyncIterator[Server]:
    server = Server(answer)
    listening = await asyncio.start_server(server.on_connection, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.silent.set()
        listening.close()
        await listening.wait_closed()


@dataclass
class Ends:
    """What the pool reported."""

    replies: list[Reply] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, ticket: Ticket, reply: Reply) -> None:
        self.tickets.append(ticket)
        self.replies.append(reply)
        self.changed.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.replies) < count:
                self.changed.clear()
                await self.changed.wait()

    @property
    def outcomes(self) -> list[tuple[End, int]]:
        return [(reply.end, reply.status) for reply in self.replies]


def pool_to(port: int, ends: Ends, limit: int = 8, timeout_s: float = 30.0) -> ConnectionPool:
    return ConnectionPool(ServerAddress("127.0.0.1", port, None, None), limit, timeout_s, ends)


def ticket(due_s: float = 0.0) -> Ticket:
    return Ticket(0, ITEM, due_s, due_s)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def closed(pool: ConnectionPool) -> None:
    """Nothing of a test outlives it."""
    pool.stop("the test is over")
    await asyncio.gather(*pool._connecting, return_exceptions=True)
    await asyncio.sleep(0)  # callbacks of those tasks
    assert pool.in_flight == 0


async def test_connection_is_used_again() -> None:
    ends = Ends()
    async with serving(lambda number: ANSWER) as server:
        pool = pool_to(server.port, ends)
        for count in range(1, 6):
            pool.submit(ticket())
            await ends.wait_for(count)
        await closed(pool)

    assert (server.connections, server.requests) == (1, 5)
    assert ends.replies == [Reply(End.ANSWERED, 200, b"hi")] * 5


async def test_idle_connections_take_turns() -> None:
    ends = Ends()
    async with serving(lambda number: ANSWER) as server:
        pool = pool_to(server.port, ends)
        await pool.open_idle(3)
        for count in range(1, 7):
            pool.submit(ticket())
            await ends.wait_for(count)
        await closed(pool)

    assert server.of_connection == {1: 2, 2: 2, 3: 2}


async def test_no_more_than_allowed_are_in_flight_and_the_rest_wait_their_turn() -> None:
    ends = Ends()
    async with serving(lambda number: b"" if number <= 2 else ANSWER) as server:
        pool = pool_to(server.port, ends, limit=2)
        tickets = [ticket() for _ in range(5)]
        for each in tickets:
            pool.submit(each)
        async with asyncio.timeout(10):
            for _ in range(2):
                await server.arrived.get()
        assert (server.connections, pool.in_flight, ends.replies) == (2, 5, [])
        server.silent.set()
        await ends.wait_for(5)
        await closed(pool)

    assert ends.outcomes == [(End.ANSWERED, 200)] * 5
    assert ends.tickets[2:] == tickets[2:]


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (None, (End.CONNECTION, 0)),
        (b"nonsense\r\n\r\n", (End.CONNECTION, 0)),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", (End.ANSWERED, 500)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER, (End.ANSWERED, 200)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", (End.ANSWERED, 200)),
    ],
    ids=["closed", "not HTTP", "closing answer", "interim answer", "chunks"],
)
async def test_every_answer_ends_its_request_and_the_next_one_is_sent(
    answer: bytes | None, end: tuple[End, int]
) -> None:
    ends = Ends()
    async with serving(lambda number: answer if number == 1 else ANSWER) as server:
        pool = pool_to(server.port, ends, limit=1)
        pool.submit(ticket())
        pool.submit(ticket())
        await ends.wait_for(2)
        await closed(pool)

    assert ends.outcomes == [end, (End.ANSWERED, 200)]


async def test_server_that_is_not_there_fails_each_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ends = Ends()
    pool = pool_to(port, ends, limit=2)

    for _ in range(5):
        pool.submit(ticket())
    await ends.wait_for(5)
    await closed(pool)

    assert ends.replies == [Reply(End.CONNECTION, reason="ConnectionRefusedError")] * 5


async def test_silence_ends_in_a_timeout_and_waiting_too_long_is_no_sending() -> None:
    ends = Ends()
    async with serving(lambda number: b"") as server:
        pool = pool_to(server.port, ends, limit=1, timeout_s=5.0)
        await pool.open_idle(1)
        pool.submit(ticket(now_s()))
        pool.submit(ticket(now_s()))
        async with asyncio.timeout(10):
            await server.arrived.get()
        pool.sweep(now_s())
        assert ends.replies == []

        pool.sweep(now_s() + 6.0)
        await closed(pool)

    assert sorted(str(reply.end) for reply in ends.replies) == ["timeout", "unsent"]


async def test_connection_that_was_idle_for_long_is_not_used_again() -> None:
    ends = Ends()
    async with serving(lambda number: ANSWER) as server:
        pool = pool_to(server.port, ends)
        pool.submit(ticket())
        await ends.wait_for(1)
        pool.sweep(now_s() + 60.0)  # idle for longer than servers keep
        pool.submit(ticket())
        await ends.wait_for(2)
        await closed(pool)

    assert server.connections == 2
    assert ends.outcomes == [(End.ANSWERED, 200)] * 2


async def test_connection_that_the_server_closed_is_not_used_again() -> None:
    ends = Ends()
    async with serving(lambda number: ANSWER) as server:
        server.last = 1
        pool = pool_to(server.port, ends)
        pool.submit(ticket())
        await ends.wait_for(1)
        async with asyncio.timeout(10):
            while pool._idle:  # noqa: ASYNC110 - the pool tells nobody that it forgets a connection
                await asyncio.sleep(0)
        pool.submit(ticket())
        await ends.wait_for(2)
        await closed(pool)

    assert server.connections == 2
    assert ends.outcomes == [(End.ANSWERED, 200)] * 2


async def test_connection_that_does_not_speak_http_is_closed() -> None:
    ends = Ends()
    async with serving(lambda number: b"nonsense\r\n\r\n") as server:
        pool = pool_to(server.port, ends)
        pool.submit(ticket())
        await ends.wait_for(1)
        async with asyncio.timeout(10):
            assert await server.ended.get() == 1


async def test_stop_ends_what_is_sent_connecting_and_waiting() -> None:
    ends = Ends()
    async with serving(lambda number: b"") as server:
        pool = pool_to(server.port, ends, limit=2)
        await pool.open_idle(1)
        for _ in range(3):  # one is sent, one connects, one waits
            pool.submit(ticket())

        await closed(pool)

    assert len(ends.replies) == 3
    assert {reply.end for reply in ends.replies} == {End.TIMEOUT, End.UNSENT}


# Answers


def test_answer_is_read_without_its_predictions() -> None:
    body = (
        b'{"model":"m","version":"7","variant":"int8-cpu","request_id":"r","predictions":[{"classes":[1,2,3]}],'
        b'"timings_ms":{"decode":0.5,"queue":1.5,"infer":2.5,"postprocess":0.25,"total":5.0}}'
    )
    outcome, stages = outcome_of(Reply(End.ANSWERED, 200, body))

    assert (outcome.is_ok, outcome.version, outcome.variant, outcome.label) == (True, "7", "int8-cpu", "200")
    assert stages == (0.5, 1.5, 2.5, 0.25, 5.0)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'{"version": 7}', b"<html>"])
def test_answer_of_another_server_still_counts(body: bytes) -> None:
    outcome, stages = outcome_of(Reply(End.ANSWERED, 200, body))

    assert (outcome.is_ok, outcome.version) == (True, "")
    assert all(stage != stage for stage in stages)


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        (Reply(End.ANSWERED, 422, b'{"title": "Image cannot be used", "status": 422}'), "422 Image cannot be used"),
        (Reply(End.ANSWERED, 502, b"<html>"), "502"),
        (Reply(End.TIMEOUT, reason="no answer within 1 s"), "timeout: no answer within 1 s"),
        (Reply(End.CONNECTION, reason="ConnectionResetError"), "connection: ConnectionResetError"),
    ],
)
def test_failure_is_named_by_its_kind(reply: Reply, label: str) -> None:
    outcome, _ = outcome_of(reply)

    assert (outcome.is_ok, outcome.label) == (False, label)


# The timer


async def test_loop_wakes_at_the_moment_and_not_before() -> None:
    loop = asyncio.get_running_loop()
    woken: asyncio.Queue[float] = asyncio.Queue()
    wakeup = Wakeup(loop, lambda: woken.put_nowait(loop.time()))
    try:
        for wait_s in (0.0123, 0.0, -1.0):
            at_s = loop.time() + wait_s
            wakeup.at(at_s)
            async with asyncio.timeout(10):
                assert await woken.get() >= at_s
    finally:
        wakeup.close()
