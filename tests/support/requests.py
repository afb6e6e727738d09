"""Clients that misbehave, and many clients at once; sockets are closed and threads joined at the end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.support.images import red_png
from tests.support.server import Server, wait_until

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def at_once(work: Callable[[ItemT], ResultT], items: Iterable[ItemT], threads: int) -> list[ResultT]:
    """Results in the order of `items`, from `threads` threads."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


class Background:
    """Runs calls in threads of its own and waits for all of them at the end."""

    def __init__(self, threads: int = 16) -> None:
        self._pool = ThreadPoolExecutor(threads)

    def start(self, work: Callable[[], ResultT]) -> Future[ResultT]:
        return self._pool.submit(work)

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


@dataclass(frozen=True, slots=True)
class Gate:
    """A file. While it is there, no run of a model with `content` ends, however slow or fast the machine is."""

    path: Path

    @property
    def content(self) -> bytes:
        """Of a model for the fake backend."""
        return b"a run waits while %s is there" % bytes(self.path)

    @contextmanager
    def closed(self) -> Iterator[None]:
        self.path.touch()
        try:
            yield
        finally:
            self.open()

    def open(self) -> None:
        self.path.unlink(missing_ok=True)

    def wait_for_runs(self, count: int) -> None:
        """Returns once so many runs wait: one for every device at most."""
        wait_until(lambda: len(self.path.read_text().splitlines()) >= count, what=f"{count} runs wait at the gate")


def hold_slots(
    server: Server, background: Background, send: Callable[[], ResultT], count: int, beside: int = 0
) -> list[Future[ResultT]]:
    """`count` requests that are in flight, `beside` others, when this returns; a closed gate keeps them there."""
    held = [background.start(send) for _ in range(count)]
    total = count + beside
    wait_until(lambda: server.metric("saccade_slots_in_use") == total, what=f"{total} requests are in flight")
    return held


@contextmanager
def held_device(server: Server, background: Background, gate: Gate, model: str) -> Iterator[None]:
    """A run of the model has begun, and goes on until the end of the block: what is sent meanwhile waits."""
    with gate.closed():
        held = background.start(lambda: server.predict(model, red_png(1)))
        gate.wait_for_runs(1)
        yield
    held.result()  # 503 where the next run kills the worker before this answer is sent


def wait_queued(server: Server, model: str, count: int) -> None:
    """Returns once so many images wait in the worker."""
    wait_until(lambda: server.metric("saccade_queue_depth", model=model) == count, what=f"{count} images wait")


class RawClient:
    """A TCP connection that sends exactly what it is told."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)

    def send(self, data: bytes) -> None:
        """A server that has answered and closed takes nothing more; its answer can still be read."""
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            if not self.has_answer():
                raise

    def send_head(self, path: str, *headers: str, method: str = "POST") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def receive_head(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and what already arrived of the body."""
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionError(f"closed after {received!r}")
            received += chunk
        head, _, rest = received.partition(b"\r\n\r\n")
        status_line, *header_lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in header_lines)}
        return int(status_line.split()[1]), headers, rest

    def receive(self) -> tuple[int, dict[str, str], bytes]:
        """A whole answer with a Content-Length."""
        status, headers, body = self.receive_head()
        while len(body) < int(headers["content-length"]):
            chunk = self.socket.recv(65536)
            if not chunk:
                break
            body += chunk
        return status, headers, body

    def has_answer(self) -> bool:
        """Something arrived; nothing is taken from the socket."""
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(20.0)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
