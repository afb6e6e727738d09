"""Log lines stay whole when several processes write to one file."""

from __future__ import annotations

import io
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
