"""Runs a load plan in several processes on one clock, collects every row, and leaves no process behind."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import numpy as np
from numpy.typing import NDArray

from saccade.service.bench import client_process
from saccade.service.bench.client_process import (
    ClientPart,
    ClientProgress,
    ClientReady,
    ClientResult,
    StartSending,
    StopSending,
)
from saccade.service.bench.records import Records, records_of
from saccade.service.bench.schedule import SendSchedule
from saccade.service.bench.workload import Endpoint, Workload
from saccade.service.errors import BenchFailed

_START_MARGIN_S = 0.1  # within this time the start message reaches every process
_START_TIMEOUT_S = 60.0
_POLL_S = 0.25
_INTERRUPT_GRACE_S = 2.0
_MOST_PROCESSES = 8


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop, for measuring capacity: a fixed number of requests in flight, until a time or count is reached."""

    in_flight: int
    duration_s: float
    warm_up_s: float
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits of all client processes together."""

    processes: int
    connections: int  # opened before the start
    max_in_flight: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class LoadPlan:
    endpoint: Endpoint
    workload: Workload
    load: SendSchedule | Closed
    order: NDArray[np.int64]  # index of each request's item
    limits: ClientLimits


class Ending(StrEnum):
    """Why the load ended."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"


@dataclass(slots=True)
class Live:
    """What is known while the load runs, warm-up included."""

    elapsed_s: float = 0.0  # since measuring began; negative during warm-up
    sent: int = 0
    ok: int = 0
    failed: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """All rows of a load; the rows of warm-up are due before zero."""

    records: Records
    ending: Ending
    stopped_at_s: float  # seconds from the start of measuring; the plan's end unless it ended early
    client_cpu_s: float
    client_wall_s: float  # summed over processes


def default_processes(cores: int) -> int:
    """Half the cores, up to a maximum; the other half is for a server on the same machine."""
    return min(_MOST_PROCESSES, max(1, cores // 2))


def run_load(plan: LoadPlan, on_progress: Callable[[Live], None] = lambda live: None) -> LoadResult:
    """Blocks until every request has ended. Ctrl-C ends the load and returns what was measured; a second Ctrl-C raises.

    Raises BenchFailed.
    """
    parts = parts_of(plan, address_of(plan.endpoint))
    with _children(parts) as children:
        _await_ready(children, plan.endpoint)
        warm_up_s = plan.load.warm_up_s if isinstance(plan.load, Closed) else _warm_up_s(plan.load)
        measure_from_s = time.monotonic() + _START_MARGIN_S + warm_up_s
        for child in children:
            child.send.send(StartSending(measure_from_s))
        return _Collector(children, measure_from_s, plan.load.duration_s).collect(on_progress)


def address_of(endpoint: Endpoint) -> str:
    """The server's IP address, looked up once so that name servers do not count in latencies. Raises BenchFailed."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BenchFailed(f"no address for {endpoint.host!r}: {error}; check the URL") from error
    return str(found[0][4][0])


def parts_of(plan: LoadPlan, address: str) -> list[ClientPart]:
    """Splits the plan so that every request is in exactly one part and neighbours in time go to different processes."""
    load, limits = plan.load, plan.limits
    count = min(limits.processes, load.in_flight if isinstance(load, Closed) else len(load.due_s))
    parts = []
    for index in range(count):
        closed = _share(load.in_flight, index, count) if isinstance(load, Closed) else 0
        in_flight = closed or max(1, _share(limits.max_in_flight, index, count))
        parts.append(
            ClientPart(
                address=address,
                port=plan.endpoint.port,
                is_tls=plan.endpoint.is_tls,
                server_name=plan.endpoint.host if plan.endpoint.is_tls else None,
                items=plan.workload.items,
                order=plan.order[index::count],
                due_s=np.zeros(0) if isinstance(load, Closed) else load.due_s[index::count],
                closed=closed,
                requests=_share(load.requests, index, count) if isinstance(load, Closed) and load.requests else None,
                duration_s=load.duration_s,
                connections=closed or min(in_flight, max(1, _share(limits.connections, index, count))),
                max_in_flight=in_flight,
                timeout_s=limits.timeout_s,
            )
        )
    return parts


def _share(total: int, index: int, count: int) -> int:
    return total // count + (index < total % count)


def _warm_up_s(schedule: SendSchedule) -> float:
    return max(0.0, -float(schedule.due_s[0]))


@dataclass(frozen=True, slots=True)
class _Child:
    process: BaseProcess
    send: Connection
    receive: Connection


@contextmanager
def _children(parts: list[ClientPart]) -> Iterator[list[_Child]]:
    """Starts the processes, which wait for the start message, and kills at the end those that still run."""
    context = multiprocessing.get_context("spawn")
    children: list[_Child] = []
    with ExitStack() as stack:
        # Ctrl-C reaches the whole group, and only the parent may react: children inherit the mask, then ignore it.
        resource_tracker.ensure_running()  # if it were started later, it would lift the mask
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for number, part in enumerate(parts):
                commands, send = context.Pipe(duplex=False)
                receive, reports = context.Pipe(duplex=False)
                process = context.Process(
                    target=client_process.run,
                    args=(part, commands, reports),
                    name=f"saccade-bench-{number}",
                    daemon=True,
                )
                process.start()
                commands.close()
                reports.close()
                children.append(_Child(process, send, receive))
                stack.callback(_end, children[-1])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        yield children


def _end(child: _Child) -> None:
    child.send.close()
    child.receive.close()
    child.process.join(1.0)
    if child.process.is_alive():
        child.process.kill()
        child.process.join()


def _await_ready(children: list[_Child], endpoint: Endpoint) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    for child in children:
        if not child.receive.poll(max(0.0, deadline_s - time.monotonic())):
            raise BenchFailed(f"a client process was not ready within {_START_TIMEOUT_S:g} s")
        message = _received(child)
        if isinstance(message, ClientReady) and message.problem:
            raise BenchFailed(f"cannot connect to {endpoint.authority}: {message.problem}")


def _received(child: _Child) -> object:
    try:
        return child.receive.recv()
    except (EOFError, OSError) as error:
        child.process.join(1.0)
        raise BenchFailed(f"{child.process.name} ended with {child.process.exitcode} before it had reported") from error


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that grows by one at the first Ctrl-C; the next one raises KeyboardInterrupt.

    Raising at once might interrupt the reading of a message halfway.
    """
    seen: list[int] = []

    def on_interrupt(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield seen
        return
    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, previous)


class _Collector:
    """Reads all pipes until every child has finished."""

    def __init__(self, children: list[_Child], measure_from_s: float, duration_s: float) -> None:
        self._running = {child.receive: child for child in children}
        self._measure_from_s = measure_from_s
        self._stopped_at_s = duration_s
        self._ending = Ending.COMPLETE
        self._live = Live()
        self._in_flight: dict[Connection, int] = {}
        self._finished: list[ClientResult] = []

    def collect(self, on_progress: Callable[[Live], None]) -> LoadResult:
        with _interrupts() as interrupts:
            while self._running:
                self._read()
                on_progress(self._live)
                if interrupts and self._ending is not Ending.INTERRUPTED:
                    self._stop()
        return LoadResult(
            records_of([(item.columns, item.outcomes) for item in self._finished]),
            self._ending,
            self._stopped_at_s,
            sum(item.cpu_s for item in self._finished),
            sum(item.wall_s for item in self._finished),
        )

    def _read(self) -> None:
        for pipe in wait(list(self._running), _POLL_S):
            assert isinstance(pipe, Connection)
            message = _received(self._running[pipe])
            if isinstance(message, ClientProgress):
                self._live.sent += message.sent
                self._live.ok += message.ok
                self._live.failed += message.failed
                self._in_flight[pipe] = message.in_flight
            elif isinstance(message, ClientResult):
                self._finished.append(message)
                self._in_flight.pop(pipe, None)
                del self._running[pipe]
        self._live.in_flight = sum(self._in_flight.values())
        self._live.elapsed_s = min(time.monotonic() - self._measure_from_s, self._stopped_at_s)

    def _stop(self) -> None:
        self._ending = Ending.INTERRUPTED
        self._stopped_at_s = min(self._stopped_at_s, max(0.0, time.monotonic() - self._measure_from_s))
        for child in self._running.values():
            with suppress(BrokenPipeError):  # the child has just finished
                child.send.send(StopSending(_INTERRUPT_GRACE_S))
