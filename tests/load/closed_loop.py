"""A closed-loop HTTP client: N connections, each sends its next image when the answer is in.

Written on asyncio protocols and httptools, because it shares the cores with the server it measures: a general
client costs as much per request as the server does.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httptools
import numpy as np
import uvloop


@dataclass(slots=True)
class LoadResult:
    """Answers within the measured time; latencies in seconds."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        return self.statuses[200] / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies_s, percent) * 1000)


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], first: int, result: LoadResult, measure_from_s: float) -> None:
        self._requests = requests
        self._next = first
        self._result = result
        self._measure_from_s = measure_from_s
        self._transport: asyncio.Transport | None = None
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transport does not inherit from it
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._sent_s = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now_s = time.perf_counter()
        if self._sent_s >= self._measure_from_s:
            self._result.latencies_s.append(now_s - self._sent_s)
            self._result.statuses[self._parser.get_status_code()] += 1
        asyncio.get_running_loop().call_soon(self._send)

    def connection_lost(self, exc: Exception | None) -> None:
        self._result.statuses[0] += exc is not None


def request_bytes(host: str, path: str, body: bytes) -> bytes:
    """One POST of an image over a kept connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _run(
    host: str, port: int, path: str, bodies: Sequence[bytes], connections: int, warm_s: float, seconds: float
) -> LoadResult:
    loop = asyncio.get_running_loop()
    requests = [request_bytes(f"{host}:{port}", path, body) for body in bodies]
    start_s = time.perf_counter() + warm_s
    result = LoadResult(seconds=seconds)
    transports = []
    for index in range(connections):
        first = index * len(requests) // connections
        transport, _ = await loop.create_connection(
            lambda first=first: _Connection(requests, first, result, start_s),  # type: ignore[misc]  # default argument
            host,
            port,
        )
        transports.append(transport)
    await asyncio.sleep(warm_s + seconds)
    for transport in transports:
        transport.abort()
    return result


def run(
    host: str, port: int, path: str, bodies: Sequence[bytes], connections: int, warm_s: float, seconds: float
) -> LoadResult:
    """Blocking; meant for a process of its own."""
    return uvloop.run(_run(host, port, path, bodies, connections, warm_s, seconds))
