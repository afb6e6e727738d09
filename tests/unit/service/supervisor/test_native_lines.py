"""Lines of a child's native code: cleaned, sampled, and never without the last words."""

from __future__ import annotations

import asyncio
import os

from saccade.service.supervisor.native_lines import PER_MINUTE, NativeLines

Said = list[tuple[str, str, int]]


def told(*pieces: bytes) -> Said:
    said: Said = []
    lines = NativeLines("worker-cpu", lambda *line: said.append(line))
    for piece in pieces:
        lines.data_received(piece)
    lines.eof_received()
    return said


def test_lines_come_whole_and_clean_however_they_are_cut() -> None:
    assert told(b"\x1b[1mfirst\x1b[0m li", b"ne\n\n  \nsecond \xff\n", b"last words") == [
        ("worker-cpu", "[1mfirst [0m line", 0),
        ("worker-cpu", "second \ufffd", 0),
        ("worker-cpu", "last words", 0),
    ]


def test_flood_is_counted_and_its_last_line_said() -> None:
    said = told(*(b"line %d\n" % number for number in range(1000)), b"terminate called\n")

    assert len(said) == PER_MINUTE + 1
    assert said[-1] == ("worker-cpu", "terminate called", 1001 - PER_MINUTE)


def test_line_without_an_end_is_bounded() -> None:
    said = told(b"x" * 200_000)

    assert len(said[0][1]) == 500


def test_a_child_never_waits_for_its_reader() -> None:
    async def fill() -> int:
        writer = await NativeLines.opened("worker-cpu")
        try:
            os.write(writer, b"y" * 10_000_000)
            return os.write(writer, b"y" * 10_000_000)  # the loop has not read meanwhile
        except BlockingIOError:
            return -1
        finally:
            os.close(writer)

    assert asyncio.run(fill()) == -1
