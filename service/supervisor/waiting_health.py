"""Answers health checks on the server's port before any process serves. Promises: live is 200, ready 503 with a reason.

A first start may wait long for an object store; a port that nobody listens on says nothing, and gets a pod restarted.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from saccade.service.ipc.listening import accepted, listen

_LIVE = ("/health/live", "/health/startup")  # a restart would not help
_RETRY_AFTER_S = 5
_SLOWEST_S = 5.0  # a connection may be silent for so long
_POLL_S = 0.02  # the end waits for so long
_READ_BYTES = 64 * 1024
_MOST_READS = 1024


class _Health(BaseHTTPRequestHandler):
    timeout = _SLOWEST_S
    server: _Server

    def do_GET(self) -> None:
        reason = "" if self.path.partition("?")[0].endswith(_LIVE) else self.server.reason()
        body = json.dumps({"status": "unavailable" if reason else "ok", "reason": reason}).encode()
        self.send_response(503 if reason else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if reason:
            self.send_header("Retry-After", str(_RETRY_AFTER_S))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET  # noqa: N815  # as the library asks for them

    def finish(self) -> None:
        """Takes what the client still sends: closing over an unread body would reset the answer."""
        super().finish()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            for _ in range(_MOST_READS):
                if not self.connection.recv(_READ_BYTES):
                    break

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing: probes come every few seconds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, reason: Callable[[], str]) -> None:
        super().__init__((host, port), _Health, bind_and_activate=False)
        self.socket.close()
        self.socket = listen(host, port)
        self.reason = reason

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's concern."""

    def answer_the_waiting(self) -> None:
        """Connections that nobody accepted yet: closing the socket would reset them."""
        self.socket.setblocking(False)
        for connection in accepted(self.socket):
            connection.setblocking(True)
            self.process_request(connection, None)


@contextmanager
def answered_health(host: str, port: int, reason: Callable[[], str]) -> Iterator[None]:
    """Until the end of the block, on a port that is reserved. `reason` says why nothing is served yet, never empty."""
    with _Server(host, port, reason) as server:
        thread = Thread(target=server.serve_forever, args=(_POLL_S,), name="health", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.answer_the_waiting()
