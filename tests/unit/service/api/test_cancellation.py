"""Cancellation: what ends a wait, once, and what does not."""

from __future__ import annotations

import asyncio
import time

import pytest

from saccade.service.api.cancellation import ASK_AFTER_S, Cancellation
from saccade.service.errors import ClientLeft, DeadlineExceeded, SaccadeError
from tests.support.clients import ScriptedClient

FAR_S = 3600.0


def later(seconds: float = FAR_S) -> float:
    return time.monotonic() + seconds


async def given_up(cancellation: Cancellation) -> SaccadeError:
    ended: asyncio.Future[SaccadeError] = asyncio.get_running_loop().create_future()
    cancellation.on_end(ended.set_result)
    return await ended


async def test_deadline_ends_the_present_wait_and_every_later_one() -> None:
    with Cancellation(later(0.01), ScriptedClient()) as cancellation:
        assert isinstance(await given_up(cancellation), DeadlineExceeded)
        with pytest.raises(DeadlineExceeded):
            cancellation.ensure_left()


async def test_deadline_that_has_passed_lets_no_wait_begin() -> None:
    with Cancellation(0.0, ScriptedClient()) as cancellation, pytest.raises(DeadlineExceeded):
        cancellation.ensure_left()


async def test_client_is_asked_about_only_when_the_answer_takes_its_time() -> None:
    client = ScriptedClient()
    with Cancellation(later(), client):
        pass
    await asyncio.sleep(2 * ASK_AFTER_S)
    assert not client.is_asked.is_set()


async def test_client_that_leaves_ends_the_wait_before_the_deadline() -> None:
    client = ScriptedClient()
    with Cancellation(later(), client) as cancellation:
        waiting = asyncio.create_task(given_up(cancellation))
        await client.leave()
        assert isinstance(await waiting, ClientLeft)
    assert await client.asked() == []


async def test_first_reason_counts() -> None:
    client = ScriptedClient()
    with Cancellation(later(0.1), client) as cancellation:
        await client.leave()
        await asyncio.sleep(0.1)
        with pytest.raises(ClientLeft):
            cancellation.ensure_left()


async def test_client_that_another_image_saw_leave_lets_no_wait_begin() -> None:
    client = ScriptedClient()
    client.has_left = True
    with Cancellation(later(), client) as cancellation, pytest.raises(ClientLeft):
        cancellation.ensure_left()


async def test_nothing_is_ended_after_the_context() -> None:
    ended: list[SaccadeError] = []
    with Cancellation(later(0.01), ScriptedClient()) as cancellation:
        cancellation.on_end(ended.append)
    await asyncio.sleep(0.02)
    assert ended == []
