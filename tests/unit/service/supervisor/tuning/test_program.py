"""A program that measures: it answers, fails with its own words, and ends with whoever waits, and its children too."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from saccade.service.supervisor.tuning.program import answer_of
from tests.support.processes import wait_gone

PROGRAM = """
import subprocess, sys
from saccade.service.supervisor.tuning.program import order_from_parent

order = order_from_parent()
if order == b"fail\\n":
    sys.exit("no such operator")
if order == b"answer\\n":
    sys.stdout.write("answered")
else:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with open(order.decode().strip(), "w") as told:  # a pipe, so that whoever opens it waits for this
        told.write(f"{child.pid}")
    child.wait()
"""
PARENT = """
import asyncio, sys
from saccade.service.supervisor.tuning.program import answer_of

asyncio.run(answer_of("measures", sys.argv[1].encode(), 60.0))
"""


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program says that its child runs."""
    (tmp_path / "measures.py").write_text(PROGRAM, "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    os.mkfifo(tmp_path / "told")
    return tmp_path / "told"


def test_answer_is_what_the_program_writes() -> None:
    assert asyncio.run(answer_of("measures", b"answer", 60.0)) == b"answered"


def test_program_that_fails_says_why() -> None:
    with pytest.raises(OSError, match="no such operator"):
        asyncio.run(answer_of("measures", b"fail", 60.0))


def test_program_and_its_children_end_with_a_killed_parent(told: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(told)])
    child = psutil.Process(int(told.read_text("utf-8")))
    family = psutil.Process(parent.pid).children(recursive=True)
    assert child in family

    parent.kill()
    parent.wait()

    wait_gone(family)


def test_program_and_its_children_end_when_nobody_waits_any_more(told: Path) -> None:
    async def cancelled() -> list[psutil.Process]:
        answering = asyncio.create_task(answer_of("measures", str(told).encode(), 60.0))
        child = psutil.Process(int(await asyncio.to_thread(told.read_text, "utf-8")))
        program = child.parent()
        assert program is not None
        answering.cancel()
        await asyncio.wait([answering])
        return [program, child]

    wait_gone(asyncio.run(cancelled()))


def test_program_that_takes_too_long_is_said(told: Path) -> None:
    with pytest.raises(TimeoutError, match="measures took longer than 0 s"):
        asyncio.run(answer_of("measures", str(told).encode(), 0.0))
