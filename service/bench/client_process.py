"""One client process: sends its part of the plan on time, or records how late, and ends with its parent.

The process starts with SIGINT blocked and then ignores it: Ctrl-C is for the parent, which asks for what was measured
so far.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import ssl
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import uvloop
from numpy.typing import NDArray

from saccade.service.bench.answers import outcome_of
from saccade.service.bench.connections import ConnectionPool, Reply, ServerAddress, Ticket
from saccade.service.bench.records import Columns, End, RequestEnd
from saccade.service.bench.wakeup import Wakeup
from saccade.service.bench.workload import Item

_TICK_S = 0.05
_PROGRESS_TICKS = 5
_SENT_IN_A_ROW = 32  # after so many, answers are read, even by a client that is late
_REFUSED_PAUSE_S = 0.01  # keeps a closed loop from spinning on a server that is gone
_MOST_OUTCOMES = 1000  # bounds the table of outcomes, since servers choose their titles


@dataclass(frozen=True, slots=True)
class ClientPart:
    """What one process sends. An open loop follows `due_s`; a closed loop keeps `closed` requests in flight."""

    address: str
    port: int
    is_tls: bool
    server_name: str | None
    items: tuple[Item, ...]
    order: NDArray[np.int64]  # index of each request's item; a closed loop repeats them
    due_s: NDArray[np.float64]  # (requests,) seconds from the start of measuring; empty in a closed loop
    closed: int
    requests: int | None  # measured requests of a closed loop; None: until its time is over
    duration_s: float
    connections: int  # opened before the start
    max_in_flight: int
    timeout_s: float


# Messages over the pipes


@dataclass(frozen=True, slots=True)
class ClientReady:
    """Connections are open, or `problem` says why not."""

    problem: str = ""


@dataclass(frozen=True, slots=True)
class StartSending:
    """Warm-up begins now, and measuring at `measure_from_s` of time.monotonic(), which all processes share."""

    measure_from_s: float


@dataclass(frozen=True, slots=True)
class StopSending:
    """No more requests are sent; those in flight get `grace_s` to end."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class ClientProgress:
    """Counts since the last progress message, and the requests in flight now."""

    sent: int
    ok: int
    failed: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ClientResult:
    """Everything that the process measured."""

    columns: Columns
    outcomes: tuple[RequestEnd, ...]
    cpu_s: float
    wall_s: float


def run(part: ClientPart, commands: Connection, reports: Connection) -> None:
    """The entry point of the process. It has two pipes, because the loop makes the one that it reads non-blocking."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # collections skip all bodies and modules from now on
    uvloop.run(_Client(part, commands, reports).run())


class _Client:
    def __init__(self, part: ClientPart, commands: Connection, reports: Connection) -> None:
        self._part = part
        self._commands = commands
        self._reports = reports
        self._columns = Columns()
        self._outcomes: dict[RequestEnd, int] = {}
        self._next = 0
        self._measure_from_s = 0.0
        self._is_sending = False
        self._stop_at_s = math.inf
        self._measured = 0  # measured requests of a closed loop
        self._sent = self._ok = self._failed = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        part = self._part
        tls = ssl.create_default_context() if part.is_tls else None
        target = ServerAddress(part.address, part.port, tls, part.server_name)
        self._pool = ConnectionPool(target, part.max_in_flight, part.timeout_s, self._ended)
        self._wakeup = Wakeup(loop, self._send_due)
        self._started = asyncio.Event()
        try:
            await self._pool.open_idle(part.connections)
        except ssl.SSLError as error:
            self._reports.send(ClientReady(f"{error}; name the file of its authority in SSL_CERT_FILE"))
            return
        except OSError as error:
            self._reports.send(ClientReady(f"{error}; is `saccade serve` running?"))
            return
        loop.add_reader(self._commands.fileno(), self._command)
        self._reports.send(ClientReady())
        await self._started.wait()
        cpu_s, wall_s = time.process_time(), time.monotonic()
        await self._send_and_wait()
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        loop.remove_reader(self._commands.fileno())
        self._wakeup.close()
        self._report()
        self._reports.send(ClientResult(self._columns, tuple(self._outcomes), cpu_s, wall_s))

    def _command(self) -> None:
        try:
            message = self._commands.recv()
        except (EOFError, ConnectionError):  # the parent is gone: nobody would read the result
            os._exit(1)
        if isinstance(message, StartSending):
            self._measure_from_s = message.measure_from_s
            self._is_sending = True
            self._started.set()
        elif isinstance(message, StopSending):
            self._is_sending = False
            self._stop_at_s = time.monotonic() + message.grace_s
            self._started.set()

    async def _send_and_wait(self) -> None:
        """Sends, and returns when every request has ended."""
        if self._part.closed:
            for _ in range(self._part.closed):
                self._send_next_closed()
        else:
            self._send_due()
        ticks = 0
        while self._is_sending or self._pool.in_flight:
            await asyncio.sleep(_TICK_S)
            now_s = time.monotonic()
            self._pool.sweep(now_s)
            if now_s > self._stop_at_s:
                self._pool.stop("stopped while waiting")
            ticks += 1
            if ticks % _PROGRESS_TICKS == 0:
                self._report()

    # Open loop: requests are sent when they are due

    def _send_due(self) -> None:
        part, start_s = self._part, self._measure_from_s
        for _ in range(_SENT_IN_A_ROW):
            if not self._is_sending:
                return
            if self._next == len(part.due_s):
                self._is_sending = False
                return
            due_s = start_s + float(part.due_s[self._next])
            now_s = time.monotonic()
            if due_s > now_s:
                self._wakeup.at(due_s)
                return
            self._submit(due_s, now_s)
        self._wakeup.at(0.0)

    # Closed loop: an answer makes room for the next request

    def _send_next_closed(self) -> None:
        now_s = time.monotonic()
        if self._measured == self._part.requests or now_s - self._measure_from_s >= self._part.duration_s:
            self._is_sending = False
        if self._is_sending:
            self._measured += now_s >= self._measure_from_s
            self._submit(now_s, now_s)

    def _submit(self, due_s: float, now_s: float) -> None:
        number = int(self._part.order[self._next % len(self._part.order)])
        self._next += 1
        self._sent += 1
        self._pool.submit(Ticket(number, self._part.items[number], due_s, now_s))

    # How requests end

    def _ended(self, ticket: Ticket, reply: Reply) -> None:
        done_s = time.monotonic()
        outcome, stages_ms = outcome_of(reply)
        if len(self._outcomes) >= _MOST_OUTCOMES and outcome not in self._outcomes:
            outcome = RequestEnd(outcome.end, outcome.status, "other")
        number = self._outcomes.setdefault(outcome, len(self._outcomes))
        columns, start_s = self._columns, self._measure_from_s
        columns.due_s.append(ticket.due_s - start_s)
        columns.woken_s.append(ticket.woken_s - start_s)
        columns.sent_s.append(ticket.sent_s - start_s)
        columns.done_s.append(done_s - start_s)
        columns.item.append(ticket.number)
        columns.outcome.append(number)
        columns.answer_bytes.append(len(reply.body))
        columns.stages_ms.extend(stages_ms)
        if not outcome.is_ok:
            self._failed += 1
        else:
            self._ok += 1
        if self._part.closed:
            # The next one is scheduled, not called: a server that refuses every connection would make this recursive.
            pause_s = 0.0 if reply.end is End.ANSWERED else _REFUSED_PAUSE_S
            asyncio.get_running_loop().call_later(pause_s, self._send_next_closed)

    def _report(self) -> None:
        self._reports.send(ClientProgress(self._sent, self._ok, self._failed, self._pool.in_flight))
        self._sent = self._ok = self._failed = 0
