"""A peer's processes: none outlives its visit, and one that ends early says why."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.load.peers.processes import RunningServer, ServerFailed, running
from tests.load.peers.wire import Request
from tests.support.server import wait_until

SLEEPS = "import time; time.sleep(60)"
LEAVES_ITS_PARENT = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {SLEEPS!r}], start_new_session=True)
{SLEEPS}
"""
REQUEST = Request("/classify", (), b"picture")


def those_that_left(server: RunningServer) -> list[psutil.Process]:
    server.look()
    return [process for process in server._known if process.cmdline()[1:] == ["-c", SLEEPS]]


def test_a_process_that_left_its_parent_is_counted_and_ended_too(tmp_path: Path) -> None:
    with running([sys.executable, "-c", LEAVES_ITS_PARENT], dict(os.environ), tmp_path, 60.0) as server:
        family = wait_until(lambda: those_that_left(server), what="the child runs")
        with server.watched() as usage:
            pass
        assert usage[0].rss_mib[0] > 1.0

    gone, alive = psutil.wait_procs(family, timeout=10.0)
    assert (len(gone), alive) == (1, [])


def test_a_server_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such network')"]

    with (
        running(command, dict(os.environ), tmp_path, 60.0) as server,
        pytest.raises(ServerFailed, match="ended with 1: no such network"),
    ):
        server.await_right(1, REQUEST, lambda body: True, 30.0)


def test_a_program_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with (
        running([str(tmp_path / "python"), "app.py"], dict(os.environ), tmp_path, 60.0) as server,
        pytest.raises(ServerFailed, match=r"No such file|failed to run command"),
    ):
        server.await_right(1, REQUEST, lambda body: True, 30.0)
