"""HTTP/1.1 connections that stay open. Every ticket ends exactly once, and no more are in flight than allowed.

This is written on asyncio protocols and httptools because the client may share its cores with the server it measures: a
request of 20 KB costs 10 microseconds here, 70 with aiohttp and more than a thousand with httpx.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from saccade.service.bench.records import End
from saccade.service.bench.workload import Item

IDLE_S = 4.0  # servers often close connections that were idle for five seconds; a request must not meet that
_BUFFER_BYTES = 256 * 1024


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way, with moments of time.monotonic()."""

    number: int  # index of its item
    item: Item
    due_s: float
    woken_s: float
    sent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's `status` and `body`, or the `reason` why there is none."""

    end: End
    status: int = 0
    body: bytes = b""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The server's address, already looked up, and the name that TLS expects."""

    address: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str | None  # for TLS; None without TLS


class _Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self.ticket: Ticket | None = None
        self.idle_since_s = 0.0
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transport does not inherit from it
        # Bodies are written whole: pausing the writer would hide the wait.
        self._transport.set_write_buffer_limits(high=_BUFFER_BYTES)  # type: ignore[union-attr]  # just set

    def send(self, ticket: Ticket) -> None:
        assert self._transport is not None
        self.ticket = ticket
        self._parts.clear()
        ticket.sent_s = time.monotonic()
        self._transport.writelines((ticket.item.head, ticket.item.content))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Callbacks of asyncio and of the parser

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._pool.on_broken(self, f"not HTTP: {error}")
            self.abort()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # lower ones are interim answers
            reply = Reply(End.ANSWERED, status, b"".join(self._parts))
            self._pool.on_reply(self, reply, self._parser.should_keep_alive())

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._pool.on_broken(self, type(exc).__name__ if exc is not None else "closed before an answer")


class ConnectionPool:
    """Sends tickets over up to `limit` connections, the longest idle first, so that every server process gets some."""

    def __init__(
        self, target: ServerAddress, limit: int, timeout_s: float, on_end: Callable[[Ticket, Reply], None]
    ) -> None:
        self._target = target
        self._limit = limit
        self._timeout_s = timeout_s
        self._on_end = on_end
        self._idle: deque[_Connection] = deque()
        self._busy: dict[_Connection, None] = {}  # ordered by time of sending
        self._waiting: deque[Ticket] = deque()
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """The number of tickets that have not ended."""
        return len(self._busy) + len(self._connecting) + len(self._waiting)

    async def open_idle(self, count: int) -> None:
        """Opens `count` connections. Raises OSError."""
        for _ in range(count):
            self._idle.append(await self._connected())

    def submit(self, ticket: Ticket) -> None:
        """Sends the ticket at once, on a new connection if needed, or else when a connection is free."""
        if self._idle:
            self._send(self._idle.popleft(), ticket)
        elif len(self._busy) + len(self._connecting) < self._limit:
            task = asyncio.get_running_loop().create_task(self._connect(ticket))
            self._connecting.add(task)
            task.add_done_callback(lambda done: self._connect_ended(done, ticket))
        else:
            self._waiting.append(ticket)

    def sweep(self, now_s: float) -> None:
        """Ends tickets whose time is over. The caller calls this every few milliseconds."""
        # Waiting tickets end first, so that a connection which falls free goes to one that has time left.
        while self._waiting and self._waiting[0].due_s <= now_s - self._timeout_s:
            self._end(self._waiting.popleft(), Reply(End.UNSENT, reason="too many in flight"))
        while self._busy:
            connection = next(iter(self._busy))
            assert connection.ticket is not None
            if connection.ticket.sent_s > now_s - self._timeout_s:
                break
            self._give_up(connection, f"no answer within {self._timeout_s:g} s")
        while self._idle and self._idle[0].idle_since_s <= now_s - IDLE_S:
            self._idle.popleft().abort()

    def stop(self, reason: str) -> None:
        """Ends all tickets now."""
        for task in list(self._connecting):
            task.cancel()
        while self._waiting:
            self._end(self._waiting.popleft(), Reply(End.UNSENT, reason=reason))
        for connection in list(self._busy):
            self._give_up(connection, reason)
        while self._idle:
            self._idle.popleft().abort()

    # Called by connections

    def on_reply(self, connection: _Connection, reply: Reply, is_kept: bool) -> None:
        ticket, connection.ticket = connection.ticket, None
        if ticket is None:  # the pool ended it a moment ago
            return
        self._busy.pop(connection, None)
        self._on_end(ticket, reply)
        if not is_kept:
            connection.abort()
            self._send_waiting()
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            connection.idle_since_s = time.monotonic()
            self._idle.append(connection)

    def on_broken(self, connection: _Connection, reason: str) -> None:
        ticket, connection.ticket = connection.ticket, None
        self._busy.pop(connection, None)
        if ticket is not None:
            self._on_end(ticket, Reply(End.CONNECTION, reason=reason))
            self._send_waiting()
        elif connection in self._idle:
            self._idle.remove(connection)

    # Private steps

    def _send(self, connection: _Connection, ticket: Ticket) -> None:
        if connection.is_lost:
            self._on_end(ticket, Reply(End.CONNECTION, reason="closed at once"))
            return
        self._busy[connection] = None
        connection.send(ticket)

    def _send_waiting(self) -> None:
        if self._waiting:
            self.submit(self._waiting.popleft())

    def _give_up(self, connection: _Connection, reason: str) -> None:
        ticket, connection.ticket = connection.ticket, None
        self._busy.pop(connection, None)
        connection.abort()
        if ticket is not None:
            self._on_end(ticket, Reply(End.TIMEOUT, reason=reason))
            self._send_waiting()

    def _end(self, ticket: Ticket, reply: Reply) -> None:
        ticket.sent_s = time.monotonic()  # a ticket that was never sent has no service time
        self._on_end(ticket, reply)

    async def _connect(self, ticket: Ticket) -> None:
        ticket.sent_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connected()
        except TimeoutError:
            self._on_end(ticket, Reply(End.TIMEOUT, reason="no connection in time"))
        except OSError as error:
            self._on_end(ticket, Reply(End.CONNECTION, reason=_reason_of(error)))
        else:
            self._send(connection, ticket)

    def _connect_ended(self, task: asyncio.Task[None], ticket: Ticket) -> None:
        self._connecting.discard(task)  # done first, because the next attempt takes its place
        if task.cancelled():  # perhaps before its first step, when the task could not end its ticket itself
            self._on_end(ticket, Reply(End.TIMEOUT, reason="stopped while connecting"))
        else:
            task.result()
            if len(self._busy) + len(self._connecting) < self._limit:  # connecting failed
                self._send_waiting()

    async def _connected(self) -> _Connection:
        target = self._target
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self), target.address, target.port, ssl=target.tls, server_hostname=target.server_name
        )
        connection.idle_since_s = time.monotonic()
        return connection


def _reason_of(error: OSError) -> str:
    """The error without addresses and numbers, so that equal failures are counted together."""
    return "TLS refused" if isinstance(error, ssl.SSLError) else type(error).__name__
