"""Log lines stay whole when several processes write to one file."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from saccade.service.logs import configure_logs, is_debug, set_level


class CountedWrites(io.StringIO):
    """Remembers each write, as an unbuffered stderr passes it on."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    for owner, name in ((sys, "excepthook"), (threading, "excepthook"), (root, "handlers")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    before, level = structlog.get_config(), root.level
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    root.setLevel(level)
    logging.captureWarnings(False)
    set_level("info")


def configured(monkeypatch: pytest.MonkeyPatch, level: str = "info") -> CountedWrites:
    """What is written from now on; set in the test itself, since pytest puts its own stderr before each."""
    stderr = CountedWrites()
    monkeypatch.setattr(sys, "stderr", stderr)
    logging.captureWarnings(False)  # pytest took back what an earlier test captured, and logging does not know
    configure_logs("json", "api-0", level)
    return stderr


def test_an_event_and_the_end_of_its_line_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch)
    structlog.get_logger().info("worker_connected", socket="/run/worker.sock")

    (line,) = stderr.writes
    assert line.endswith("}\n")


def test_a_log_that_cannot_be_written_is_lost_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # who read the log has ended
    for stderr in (os.fdopen(writer, "w", buffering=1), open("/dev/full", "w", buffering=1)):  # noqa: SIM115  # as Python opens it
        monkeypatch.setattr(sys, "stderr", stderr)
        configure_logs("json", "api-0")
        for _ in range(10_000):  # more than any buffer takes
            structlog.get_logger().info("worker_connected", socket="/run/worker.sock")
        with contextlib.suppress(OSError):
            stderr.close()


def events(stderr: CountedWrites) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.getvalue().splitlines()]


def test_libraries_warnings_and_uncaught_errors_are_events_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch)
    logging.getLogger("asyncio").warning("took %s", "long\nand longer")
    logging.getLogger("httpx").info("of no interest")
    warnings.showwarning("old", DeprecationWarning, "file.py", 1)
    try:
        raise RuntimeError("of two\nlines")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)

    found = events(stderr)
    assert [event["event"].split()[0] for event in found] == ["took", "file.py:1:", "uncaught"]
    assert [event.get("library") for event in found] == ["asyncio", "py.warnings", None]
    assert {event["process"] for event in found} == {"api-0"}
    assert "of two" in found[-1]["exception"]


def test_level_changes_while_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, "warning")
    log = structlog.get_logger()
    log.info("before")
    set_level("debug")
    log.debug("meanwhile")
    assert is_debug()
    set_level("warning")
    log.info("after")
    log.warning("still")

    assert [event["event"] for event in events(stderr)] == ["meanwhile", "still"]


def test_logs_that_are_configured_again_say_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch)
    configure_logs("json", "api-0")
    logging.getLogger("asyncio").warning("once")

    assert len(events(stderr)) == 1
