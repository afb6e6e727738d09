"""Runs a program on a terminal of its own, so that tests see the lines that a person sees."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

from tests.support.server import clean_environment

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(command: Sequence[str], folder: Path, columns: int = 80, **environment: str) -> tuple[int, str]:
    """Returns the exit code and everything that the program wrote, control codes included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = {name: value for name, value in clean_environment(environment).items() if name != "COLUMNS"}
    child = subprocess.Popen(
        command, cwd=folder, env=variables | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # Linux reports the end of the other side as an error
        while part := os.read(ours, 1 << 16):
            written += part
    os.close(ours)
    return child.wait(60), written.decode()


def lines_of(written: str) -> list[str]:
    """Returns what stays on the terminal, line by line; lines that were rewritten count as their last text."""
    rows = [re.split(r"\r(?=.)|\x1b\[2K", row.rstrip("\r"))[-1] for row in written.split("\n")]
    return [text for row in rows if (text := _CONTROL.sub("", row).rstrip())]
