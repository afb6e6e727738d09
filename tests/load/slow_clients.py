"""Crowds of bad clients beside good traffic: `python -m tests.load.slow_clients`. Exit code 1: a bound is missed.

1,000 connections whose head never ends, 1,000 whose body never ends, 3,000 that say nothing, 100 that take a byte of
their answers per second, and 32 that send a picture of 49 megapixels in 2 KB at the same moment, each crowd on a server
of its own, while eight connections ask and a probe looks at health.
Good requests may take 1.5 times as long as before, health 50 ms, and every slow connection must end by the server's own
limits. What the server's memory grows by is told per connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import psutil

from saccade.service.bench.statistics import percentiles
from tests.load.ledger import Entry, Plan, asking, counts, known_answers, p99_ms
from tests.support.images import encoded, image_of, red_png
from tests.support.server import ROOT, Server, clean_environment, running_server
from tests.support.versions import publish_fake

MOST_P99, MOST_HEALTH_MS = 1.5, 50.0
_LIMIT_S = 5.0  # SACCADE_BODY_TIMEOUT_MS; 20 s by default
_IDLE_S = 75.0  # what the server allows between requests
_LATE_S = 5.0  # on busy cores
_CALM_S = 10.0
_DEADLINE_S = 10.0  # SACCADE_DEFAULT_DEADLINE_MS
_MODEL = "classifier"
_PROBE_S = 0.1
_ANSWERS, _LONGEST_S, _TCP_CLOSED = 40, 100, 7  # answers of 110 KB: more than the kernel's 4 MB
_MIB = 2**20
_BEGUN = "there"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Crowd:
    count: int
    within_s: float  # after which the server must have ended every connection
    most_kib: float  # that a connection may add to the server's memory
    is_felt_when_coming: bool = True  # False: what it asks first is work like anybody's, and good requests wait for it


CROWDS = {
    "heads": Crowd(1000, _LIMIT_S, 64),
    "bodies": Crowd(1000, _LIMIT_S, 64),
    "idle": Crowd(3000, _IDLE_S, 64),
    "pictures": Crowd(32, 2 * _DEADLINE_S, 64 * 1024),  # all of them what a pod has
    "readers": Crowd(100, 2 * _LIMIT_S, 512, is_felt_when_coming=False),  # looked at twice
}


async def _head(stream: Stream) -> None:
    await _drip(stream, b"GET /health/live HTTP/1.1\r\nHost: here\r\nX-Slow: ")


async def _body(stream: Stream) -> None:
    path = f"/v1/models/{_MODEL}/predict"
    await _drip(stream, f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n".encode())


async def _idle(stream: Stream) -> None:
    await stream[0].read()


@cache
def _flat_picture() -> bytes:
    return encoded(image_of((200, 100, 200), 7000, 7000), "WEBP", method=0)


async def _send_picture(stream: Stream) -> None:
    """A flat WebP: next to no bytes, and as much memory as any picture takes."""
    reader, writer = stream
    picture = _flat_picture()
    head = f"POST /v1/models/{_MODEL}/predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture)
    while await reader.read(65_536):
        pass


async def _read_slowly(stream: Stream) -> None:
    """Until the server's reset has come, which a reader would find behind everything that its kernel holds."""
    reader, writer = stream
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: here\r\n\r\n" * _ANSWERS)
    connection = writer.get_extra_info("socket")
    for _ in range(_LONGEST_S):
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSED:
            return
        await reader.read(1)
        await asyncio.sleep(1.0)


async def _drip(stream: Stream, start: bytes) -> None:
    reader, writer = stream
    writer.write(start)
    ended = asyncio.create_task(reader.read())
    while not ended.done():
        writer.write(b"x")
        await asyncio.wait([ended], timeout=1.0)
    with suppress(OSError):
        await ended


_SPEAK: dict[str, Callable[[Stream], Awaitable[None]]] = {
    "heads": _head,
    "bodies": _body,
    "idle": _idle,
    "pictures": _send_picture,
    "readers": _read_slowly,
}


async def be(name: str, port: int) -> list[float]:
    """The crowd: seconds that each connection lasted."""
    arrived, gate = asyncio.Semaphore(0), asyncio.Semaphore(100)

    async def lasted_s() -> float:
        async with gate:  # no more than that connect at once
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
            stream = await asyncio.open_connection(sock=connection, limit=1)
        start_s = time.monotonic()
        arrived.release()
        with suppress(OSError):
            await _SPEAK[name](stream)
        stream[1].transport.abort()
        return time.monotonic() - start_s

    async with asyncio.TaskGroup() as tasks:
        connections = [tasks.create_task(lasted_s()) for _ in range(CROWDS[name].count)]
        for _ in connections:
            await arrived.acquire()
        print(_BEGUN, flush=True)
    return [each.result() for each in connections]


@contextmanager
def crowd_at(server: Server, name: str) -> Iterator[Callable[[], list[float]]]:
    """Yields once all are connected what waits for their end, and returns how long each connection lasted."""
    command = [sys.executable, "-m", __spec__.name, "--be", name, "--port", str(server.port)]
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None

    def lasted_s() -> list[float]:
        assert process.stdout is not None
        try:
            process.wait(CROWDS[name].within_s + 4 * _LATE_S)
        except subprocess.TimeoutExpired:
            return []
        found: list[float] = json.loads(process.stdout.readline())
        return found

    try:
        if process.stdout.readline().strip() != _BEGUN:
            raise AssertionError("the crowd ended before it was there")
        yield lasted_s
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def health_probed(server: Server) -> Iterator[list[tuple[float, float]]]:
    """(when, milliseconds) of each look at /health/live; infinity for one without an answer."""
    seen, stop = list[tuple[float, float]](), threading.Event()

    def look() -> None:
        with httpx.Client(base_url=server.base_url, timeout=5.0) as client:
            while not stop.wait(_PROBE_S):
                start_s, is_live = time.monotonic(), False
                with suppress(httpx.HTTPError):
                    is_live = client.get("/health/live").is_success
                seen.append((start_s, 1000 * (time.monotonic() - start_s) if is_live else float("inf")))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def memory_mib(server: Server) -> float:
    """Unique memory of HTTP processes and supervisor."""
    processes = (psutil.Process(server.process.pid), *server.api_processes())
    return float(sum(each.memory_full_info().uss for each in processes)) / _MIB


@dataclass(frozen=True, slots=True)
class Seen:
    """What a crowd did to a server and to others."""

    crowd: Crowd
    entries: Sequence[Entry]
    coming_s: float
    from_s: float  # when good requests are looked at
    until_s: float
    health: Sequence[tuple[float, float]]
    grown_mib: float
    lasted_s: Sequence[float] = field(default=())  # per connection; empty: not all ended

    def during(self) -> list[Entry]:
        return [each for each in self.entries if self.from_s <= each.sent_s and each.end_s <= self.until_s]

    @property
    def slower(self) -> float:
        return p99_ms(self.during()) / p99_ms([each for each in self.entries if each.end_s < self.coming_s])

    def health_p99_ms(self, *, is_during: bool) -> float:
        seen = [ms for at_s, ms in self.health if (at_s >= self.from_s if is_during else at_s < self.coming_s)]
        return percentiles(seen, (99,))[0]


def complaints(seen: Seen) -> list[str]:
    """What was not so, in words."""
    found, told = counts(seen.entries), []
    told += [f"{found[name]} requests {name}" for name in ("wrong", "failed", "broken", "silent") if found.get(name)]
    if not seen.slower <= MOST_P99:
        told.append(f"p99 {seen.slower:.2f} times that before, asked {MOST_P99}")
    if seen.health_p99_ms(is_during=True) > MOST_HEALTH_MS:
        told.append(f"health {seen.health_p99_ms(is_during=True):.0f} ms, asked {MOST_HEALTH_MS:g}")
    if seen.grown_mib * 1024 / seen.crowd.count > seen.crowd.most_kib:
        told.append(f"{seen.grown_mib * 1024 / seen.crowd.count:.0f} KiB a connection, asked {seen.crowd.most_kib:g}")
    if len(seen.lasted_s) < seen.crowd.count:
        told.append("not every connection was ended")
    elif max(seen.lasted_s) > seen.crowd.within_s + _LATE_S:
        told.append(f"a connection lasted {max(seen.lasted_s):.0f} s, asked {seen.crowd.within_s:g}")
    return told


def tried(name: str, work: Path) -> Seen:
    publish_fake(work / "repository", _MODEL, 1)
    settings = {"api_processes": 2, "body_timeout_ms": 1000 * _LIMIT_S}
    with running_server(work / "repository", work, **settings) as server:
        pictures = [red_png(10 * number) for number in range(20)]
        plan = Plan(server.base_url, {_MODEL: known_answers(server.client, _MODEL, pictures)}, 8)
        with health_probed(server) as health, asking(plan, work) as ended:
            time.sleep(_CALM_S)
            before_mib, coming_s = memory_mib(server), time.monotonic()
            with crowd_at(server, name) as lasted_s:
                print(f"  {name}: all there after {time.monotonic() - coming_s:.1f} s", file=sys.stderr, flush=True)
                time.sleep(_LIMIT_S / 2)
                from_s = coming_s if CROWDS[name].is_felt_when_coming else time.monotonic()
                grown_mib = memory_mib(server) - before_mib
                lasted = lasted_s()
            until_s = time.monotonic()
            entries = ended()
        return Seen(CROWDS[name], entries, coming_s, from_s, until_s, health, grown_mib, lasted)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.slow_clients", description=__doc__)
    parser.add_argument("--only", choices=[*CROWDS], action="append")
    parser.add_argument("--be", choices=[*CROWDS], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if given.be:
        print(json.dumps(asyncio.run(be(given.be, given.port))))
        return 0
    missed = 0
    for name in given.only or CROWDS:
        with tempfile.TemporaryDirectory() as folder:
            seen = tried(name, Path(folder))
        told = complaints(seen)
        missed += bool(told)
        lasted = f"{min(seen.lasted_s):.1f} to {max(seen.lasted_s):.1f} s" if seen.lasted_s else "not all ended"
        print(
            f"{seen.crowd.count} {name}: {'; '.join(told) or 'kept'}\n  {counts(seen.during())}, p99 {seen.slower:.2f} "
            f"times that before; health p99 {seen.health_p99_ms(is_during=False):.0f} ms before, "
            f"{seen.health_p99_ms(is_during=True):.0f} ms then; {seen.grown_mib:.1f} MiB more memory; lasted {lasted}",
            flush=True,
        )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
