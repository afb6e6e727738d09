"""Waits for the ends of processes that are no children of the test."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import psutil

from tests.support.server import wait_until


def wait_gone(family: Sequence[psutil.Process], timeout_s: float = 10.0) -> None:
    """Returns when all have ended. Raises AssertionError after `timeout_s`, and kills those that are left."""
    try:
        wait_until(lambda: not any(map(_is_alive, family)), timeout_s, "the processes end")
    finally:
        for process in filter(_is_alive, family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _is_alive(process: psutil.Process) -> bool:
    """False also for a process that has ended and waits for its parent to ask."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
