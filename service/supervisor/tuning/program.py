"""Runs a program that measures in a process of its own, which ends with this one and takes all that it started along.

The program leads a session. Its order is the first line of its standard input, which stays open as long as this process
waits for the answer: when it closes, whatever ended this process, the program kills its process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading


async def answer_of(module: str, order: bytes, timeout_s: float) -> bytes:
    """Runs `python -m module` with an order in one line, and returns what it writes to standard output.

    Raises OSError with its standard error when it fails, also TimeoutError. Cancelling this kills its process group.
    """
    theirs, ours = os.pipe()
    pipe = asyncio.subprocess.PIPE
    try:
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", module, stdin=theirs, stdout=pipe, stderr=pipe, start_new_session=True
            )
        finally:
            os.close(theirs)
        try:
            with contextlib.suppress(BrokenPipeError):  # the child died; its exit code says more
                os.write(ours, order + b"\n")
            async with asyncio.timeout(timeout_s):
                out, errors = await child.communicate()
        except TimeoutError as error:
            raise TimeoutError(f"{module} took longer than {timeout_s:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    finally:
        os.close(ours)
    if child.returncode != 0:
        raise OSError(errors.decode(errors="replace") or f"{module} ended with {child.returncode}")
    return out


def order_from_parent() -> bytes:
    """The program's side: reads its order. From then on its process group is killed when nobody waits for an answer."""
    order = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    return order


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing comes, so this returns when the parent's end is closed
    os.killpg(0, signal.SIGKILL)
