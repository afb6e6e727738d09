"""Runs the child process that builds and measures one plan, and returns one outcome whatever the child does.

The child is killed when it is silent for too long, and when the server stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from saccade.service.ipc.child_process import inherited_environment
from saccade.service.supervisor.engines.build_wire import BuildOrder, BuildOutcome, BuildProgress, order_bytes, try_line

BUILD_PROGRAM = ("-m", "saccade.export.plans.engine_build")
_MAX_LINE_BYTES = 1 << 20
_LAST_WORDS = 5  # lines of stderr that are kept for the reason of a failure
_NICE = 10  # a build must not slow requests down


async def run_build(
    order: BuildOrder,
    environment: Mapping[str, str],
    silence_timeout_s: float,
    follow: Callable[[BuildProgress], None],
    note: Callable[[str], None],
    program: Sequence[str] = BUILD_PROGRAM,
) -> BuildOutcome:
    """Runs one build. `note` is called with each line of the child's stderr. Cancelling this kills the child."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        *program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**inherited_environment(), **environment},
        limit=_MAX_LINE_BYTES,
        start_new_session=True,  # so that processes which the child starts are killed with it
    )
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
    last_words: deque[str] = deque(maxlen=_LAST_WORDS)
    listening = asyncio.create_task(_listen(process, last_words, note))
    try:
        outcome = await _outcome(process, order, silence_timeout_s, follow)
        code = await process.wait()
    finally:
        _kill(process)
        await process.wait()
        await listening
    if outcome is not None:
        return outcome
    words = f": {last_words[-1]}" if last_words else ""
    return BuildOutcome(accepted=False, denied=False, reason=f"the build ended with exit code {code}{words}")


async def _outcome(
    process: asyncio.subprocess.Process,
    order: BuildOrder,
    silence_timeout_s: float,
    follow: Callable[[BuildProgress], None],
) -> BuildOutcome | None:
    """Reads the child's lines; returns None when the child ended without an outcome."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the child died; its exit code says more
        process.stdin.write(order_bytes(order))
        await process.stdin.drain()
        process.stdin.close()
    outcome: BuildOutcome | None = None
    while True:
        try:
            raw = await asyncio.wait_for(process.stdout.readline(), silence_timeout_s)
        except TimeoutError:
            _kill(process)
            reason = f"the build said nothing for {silence_timeout_s:.0f} s and was killed"
            return BuildOutcome(accepted=False, denied=False, reason=reason)
        except ValueError:  # the line is longer than _MAX_LINE_BYTES
            _kill(process)
            return BuildOutcome(accepted=False, denied=False, reason="the build printed a line without end")
        if not raw:
            return outcome
        match try_line(raw):
            case BuildProgress() as progress:
                follow(progress)
            case BuildOutcome() as found:
                outcome = found


async def _listen(process: asyncio.subprocess.Process, last_words: deque[str], note: Callable[[str], None]) -> None:
    assert process.stderr is not None
    with contextlib.suppress(ValueError):
        while raw := await process.stderr.readline():
            text = raw.decode(errors="replace").rstrip()
            if text:
                last_words.append(text)
                note(text)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
