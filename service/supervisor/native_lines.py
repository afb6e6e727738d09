"""What native code of a child, or of its children, writes to standard error: lines become events of the supervisor.

The parent reads, so that the last words of a child that crashed are not lost with it. The pipe is not waited for by the
child: what does not fit is lost, as it would be on a full disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import structlog

from saccade.service.logs import Sampler

log = structlog.get_logger()

PER_MINUTE = 50  # lines of one child; a trace fits
_LONGEST = 500  # characters of a line that are kept
_MOST_BYTES = 64 * 1024  # read at once


class NativeLines(asyncio.Protocol):
    """One child's pipe. Belongs to the parent's event loop."""

    def __init__(self, process: str, say: Callable[[str, str, int], None] | None = None) -> None:
        """`say` takes the child's name, a line, and how many were left out before it."""
        self._process = process
        self._say = say or _log_line
        self._sampler = Sampler(PER_MINUTE)
        self._rest = b""
        self._left_out = ""  # the last line that was not logged

    @classmethod
    async def opened(cls, process: str) -> int:
        """Begins to read; returns the descriptor that the child writes to, which the caller closes once it has it."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        await asyncio.get_running_loop().connect_read_pipe(lambda: cls(process), os.fdopen(reader, "rb", 0))
        return writer

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > _MOST_BYTES:
            self._take(self._rest)
            self._rest = b""

    def eof_received(self) -> None:
        """The child ended: its last words are the reason, however many lines came before them."""
        self._take(self._rest)
        if self._left_out:
            self._say(self._process, self._left_out, self._sampler.left_out(""))

    def _take(self, raw: bytes) -> None:
        text = "".join(character if character.isprintable() else " " for character in raw.decode(errors="replace"))
        text = " ".join(text.split())[:_LONGEST]
        if not text:
            return
        more = self._sampler.admitted("")
        self._left_out = text if more is None else ""
        if more is not None:
            self._say(self._process, text, more)


def _log_line(process: str, text: str, more: int) -> None:
    log.warning("native_line", process=process, text=text, **({"more": more} if more else {}))
