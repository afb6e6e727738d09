"""Log lines stay whole when several processes write to one file."""

from __future__ import annotations

import contextlib
import io
import os
import sys

import pytest
import structlog

from saccade.service.logs import configure_logs


class CountedWrites(io.StringIO):
    """Remembers each write, as an unbuffered stderr passes it on."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_an_event_and_the_end_of_its_line_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = CountedWrites()
    monkeypatch.setattr(sys, "stderr", stderr)
    before = structlog.get_config()
    try:
        configure_logs("json", "api-0")
        structlog.get_logger().info("worker_connected", socket="/run/worker.sock")
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()

    (line,) = stderr.writes
    assert line.endswith("}\n")


def test_a_log_that_cannot_be_written_is_lost_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # who read the log has ended
    before = structlog.get_config()
    try:
        for stderr in (os.fdopen(writer, "w", buffering=1), open("/dev/full", "w", buffering=1)):  # noqa: SIM115  # as Python opens it
            monkeypatch.setattr(sys, "stderr", stderr)
            configure_logs("json", "api-0")
            for _ in range(10_000):  # more than any buffer takes
                structlog.get_logger().info("worker_connected", socket="/run/worker.sock")
            with contextlib.suppress(OSError):
                stderr.close()
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
