"""Clients that misbehave, and many clients at once; sockets are closed and threads joined at the end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

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


def hold_slots(
    server: Server, background: Background, send: Callable[[], ResultT], count: int
) -> list[Future[ResultT]]:
    """`count` requests that are in flight when this returns. `send` is slow; tried again if it was not slow enough."""
    for _ in range(20):
        held = [background.start(send) for _ in range(count)]
        wait_until(
            lambda held=held: server.metric("saccade_slots_in_use") >= count or any(future.done() for future in held),
            what=f"{count} requests are in flight",
        )
        if not any(future.done() for future in held):
            return held
        for future in held:
            future.result()
    raise AssertionError("this machine is too slow to catch requests in flight")


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
