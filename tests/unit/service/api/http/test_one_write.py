"""Head and body leave together, in order, and nothing is lost at the end of a connection."""

from __future__ import annotations

import asyncio
from typing import Any

from saccade.service.api.http.one_write import OneWriteTransport


class Wire:
    """What reached the connection, call by call."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.is_closed = False

    def writelines(self, pieces: list[bytes]) -> None:
        assert not self.is_closed
        self.calls.append(list(pieces))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> str:
        return f"the wire's {name}"


def opened() -> tuple[Any, Wire]:
    wire = Wire()
    return OneWriteTransport(wire), wire  # type: ignore[arg-type]  # all of a transport that is used


async def test_writes_of_one_turn_are_one() -> None:
    transport, wire = opened()

    transport.write(b"head")
    transport.write(b"body")
    assert wire.calls == []
    await asyncio.sleep(0)

    assert wire.calls == [[b"head", b"body"]]


async def test_writes_of_different_turns_do_not_wait_for_each_other() -> None:
    transport, wire = opened()

    transport.write(b"first")
    await asyncio.sleep(0)
    transport.write(b"second")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert wire.calls == [[b"first"], [b"second"]]


async def test_close_comes_after_what_was_written() -> None:
    transport, wire = opened()

    transport.write(b"last words")
    transport.close()
    await asyncio.sleep(0)

    assert wire.calls == [[b"last words"]]
    assert wire.is_closed


async def test_connection_that_was_lost_takes_nothing_more() -> None:
    transport, wire = opened()

    transport.write(b"too late")
    wire.is_closed = True
    await asyncio.sleep(0)

    assert wire.calls == []


async def test_everything_else_is_the_transports_own() -> None:
    transport, _ = opened()

    assert transport.get_extra_info("peername") == "the wire's peername"
