"""The CPU that two states of the HTTP process take for a no-op request, in turns of a tenth of a second.

    python -m tests.load.noop_slices CHECKOUT [--python INTERPRETER] [--in-flight 1]

Both servers are there all the time and the connections stay open; one after the other gets the same requests. What
else the machine does meets both alike, so a ratio is known within a few hundredths at a load at which the rounds of
`tests.load.noop` are not. Prints the medians, and median and quartiles of CHECKOUT's ratio to this state.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import uvloop

from tests.load.arguments import count_from_1
from tests.load.noop import MODEL, publish_in, small_jpegs
from tests.support.server import ROOT, running_server

_SLICE_S = 0.12


class Connection(asyncio.Protocol):
    """Sends its request again as soon as it is answered, while `is_on`."""

    def __init__(self, body: bytes) -> None:
        head = f"POST /v1/models/{MODEL}/predict HTTP/1.1\r\nHost: here\r\nContent-Type: image/jpeg\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._received = b""
        self.is_on = False
        self.answers = 0
        self.idle = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def begin(self) -> None:
        self.is_on, self.answers = True, 0
        self.idle.clear()
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) if end else 1
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        self._received = b""
        self.answers += 1
        if self.is_on:
            self._send()
        else:
            self.idle.set()

    def _send(self) -> None:
        self._transport.write(self._request)  # type: ignore[attr-defined]  # uvloop's inherits from BaseTransport alone


def cpu_us(pid: int) -> float:
    """Of all threads; the kernel counts it in nanoseconds."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1000


async def one_slice(connections: Sequence[Connection], pid: int, seconds: float) -> float:
    """Microseconds of CPU for each request."""
    before_us = cpu_us(pid)
    for connection in connections:
        connection.begin()
    await asyncio.sleep(seconds)
    for connection in connections:
        connection.is_on = False
    for connection in connections:
        await connection.idle.wait()
    return (cpu_us(pid) - before_us) / sum(connection.answers for connection in connections)


async def measured(servers: Mapping[str, tuple[int, int]], slices: int, in_flight: int) -> dict[str, list[float]]:
    """By name, the CPU per request in each slice; a server is its port and the HTTP process's id."""
    loop, bodies = asyncio.get_running_loop(), small_jpegs()
    connections: dict[str, list[Connection]] = {name: [] for name in servers}
    for name, (port, _) in servers.items():
        for i in range(in_flight):
            make = partial(Connection, bodies[i % len(bodies)])
            connections[name].append((await loop.create_connection(make, "127.0.0.1", port))[1])
    found: dict[str, list[float]] = {name: [] for name in servers}
    names = list(servers)
    for number in range(slices + 1):
        for name in names if number % 2 else reversed(names):
            found[name].append(await one_slice(connections[name], servers[name][1], _SLICE_S))
    return {name: each[1:] for name, each in found.items()}  # the first one warms up


def main() -> None:
    """Prints three lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of its server")
    parser.add_argument("--slices", type=count_from_1, default=30)
    parser.add_argument("--in-flight", type=count_from_1, default=32)
    given = parser.parse_args()
    servers: dict[str, tuple[int, int]] = {}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        states = {"here": (ROOT, sys.executable), "beside": (given.checkout, given.python)}
        for name, (checkout, python) in states.items():
            (work / name).mkdir()
            publish_in(checkout, work / name / "repository")
            program, environment = (python, "-m", "saccade.service"), {"PYTHONPATH": str(checkout)}
            settings = {"program": program, "folder": checkout, "environment": environment, "api_processes": 1}
            server = stack.enter_context(running_server(work / name / "repository", work / name, **settings))
            servers[name] = server.port, server.api_processes()[0].pid
        found = uvloop.run(measured(servers, given.slices, given.in_flight))
    for name, each in found.items():
        print(f"{name}: {median(each):.0f} microseconds a request")
    ratios = [beside / here for here, beside in zip(found["here"], found["beside"], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    print(f"beside / here: {median(ratios):.3f}, half of the slices from {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
