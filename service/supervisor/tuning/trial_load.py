"""The client that forms are tried with: a closed loop over connections that stay open between trials."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from statistics import mean, median
from typing import NamedTuple

from saccade.service.bench.connections import ConnectionPool, Reply, ServerAddress, Ticket
from saccade.service.bench.workload import Item
from saccade.service.errors import BackendError

_TIMEOUT_S = 10.0
_LONE_RUNS = 7  # after two that warm up
_RETRY_S = 0.02  # a process that was told to listen does so within milliseconds


class _Turn(NamedTuple):
    """A request and the wait for its answer; `begun_s` is when the connection's answer before it came."""

    pool: ConnectionPool
    begun_s: float


class TrialLoad:
    """Sends one picture to one server process after the other, so that each gets the same share."""

    def __init__(self, ports: Sequence[int], host: str, item: Item, connections: int) -> None:
        self._item = item
        self._connections = -(-connections // len(ports))  # of each process
        self._pools = [
            ConnectionPool(ServerAddress(host, port, None, None), self._connections, _TIMEOUT_S, self._ended)
            for port in ports
        ]
        self._turns: dict[int, _Turn] = {}  # by ticket
        self._numbers = 0
        self._is_sending = False
        self._in_flight = self._connections * len(ports)
        self._is_enough = asyncio.Event()  # each request in flight was answered once, or something failed
        self._times_s: list[float] = []  # of turns that ended since measuring began
        self._problem = ""
        self._idle = asyncio.Event()

    async def connect(self) -> None:
        """Opens all connections, as soon as the processes listen."""
        for pool in self._pools:
            while True:
                try:
                    await pool.open_idle(self._connections)
                except ConnectionRefusedError:
                    await asyncio.sleep(_RETRY_S)
                else:
                    break

    async def images_per_s(self, warm_up_s: float, seconds: float) -> float:
        """Keeps every connection busy; the rate is connections over their mean time from answer to answer.

        Answers come in whole batches, so that counting them would be off by a batch. The time that this client takes
        before it asks again belongs to the turn: it grows with the answers that come at once. Raises BackendError when
        an answer is no prediction.
        """
        self._is_sending = True
        for pool in self._pools:
            for _ in range(self._connections):
                self._send(pool, time.monotonic())
        await asyncio.sleep(warm_up_s)
        self._times_s.clear()
        self._is_enough.clear()
        await asyncio.sleep(seconds)
        await self._is_enough.wait()
        rate = self._in_flight / mean(self._times_s or [math.inf])
        self._is_sending = False
        await self._wait_idle()
        return rate

    async def lone_ms(self) -> float:
        """The median time of a request that is alone."""
        times_ms = []
        for _ in range(2 + _LONE_RUNS):
            start_s = time.perf_counter()
            self._send(self._pools[0], time.monotonic())
            await self._wait_idle()
            times_ms.append(1000 * (time.perf_counter() - start_s))
        return median(times_ms[2:])

    async def _wait_idle(self) -> None:
        self._idle.clear()
        if self._turns:
            await self._idle.wait()
        if self._problem:
            raise BackendError(self._problem)

    def _send(self, pool: ConnectionPool, begun_s: float) -> None:
        self._numbers += 1
        self._turns[self._numbers] = _Turn(pool, begun_s)
        now_s = time.monotonic()
        pool.submit(Ticket(self._numbers, self._item, now_s, now_s))

    def _ended(self, ticket: Ticket, reply: Reply) -> None:
        turn, now_s = self._turns.pop(ticket.number), time.monotonic()
        if reply.status == 200:
            self._times_s.append(now_s - turn.begun_s)
            if len(self._times_s) == self._in_flight:
                self._is_enough.set()
        else:
            self._problem = f"the server answered {reply.status or reply.reason} while forms were tried"
            self._is_sending = False
            self._is_enough.set()
        if self._is_sending:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._send, turn.pool, now_s)  # the pool takes the connection back first
            return
        if not self._turns:
            self._idle.set()
