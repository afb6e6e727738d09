"""A coroutine's first step: what does not wait is done, what waits goes on where it is awaited."""

from __future__ import annotations

import asyncio

import pytest

from saccade.service.api.http.begun import Begun


async def test_coroutine_that_does_not_wait_is_done_at_once() -> None:
    async def answer() -> str:
        return "here"

    begun = Begun(answer())

    assert begun.result == "here"
    assert await begun == "here"


async def test_coroutine_that_waits_goes_on_when_it_is_awaited() -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def answer() -> str:
        for gate in gates:
            await gate.wait()
        return "later"

    begun = Begun(answer())
    assert begun.result is None

    for gate in gates:
        asyncio.get_running_loop().call_soon(gate.set)
    assert await begun == "later"


async def test_end_of_the_wait_reaches_the_coroutine() -> None:
    ended: list[str] = []

    async def answer() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")
        return ""

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await Begun(answer())
    assert ended == ["cleaned up"]

    Begun(answer()).close()
    assert ended == ["cleaned up", "cleaned up"]


async def test_first_step_may_fail() -> None:
    async def answer() -> str:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Begun(answer())
