"""Patience: what ends a wait, once, and what does not."""

from __future__ import annotations

import asyncio
import time

import pytest

from saccade.service import patience as patience_module
from saccade.service.errors import ClientLeft, DeadlineExceeded, SaccadeError
from saccade.service.patience import Patience
from tests.support.clients import ScriptedClient

FAR_S = 3600.0


def later(seconds: float = FAR_S) -> float:
    return time.monotonic() + seconds


async def given_up(patience: Patience) -> SaccadeError:
    ended: asyncio.Future[SaccadeError] = asyncio.get_running_loop().create_future()
    patience.on_end(ended.set_result)
    return await ended


async def test_deadline_ends_the_present_wait_and_every_later_one() -> None:
    with Patience(later(0.01), ScriptedClient()) as patience:
        assert isinstance(await given_up(patience), DeadlineExceeded)
        with pytest.raises(DeadlineExceeded):
            patience.ensure_left()


async def test_deadline_that_has_passed_lets_no_wait_begin() -> None:
    with Patience(0.0, ScriptedClient()) as patience, pytest.raises(DeadlineExceeded):
        patience.ensure_left()


async def test_client_is_asked_about_only_when_the_answer_takes_its_time() -> None:
    client = ScriptedClient()
    with Patience(later(), client):
        pass
    await asyncio.sleep(2 * patience_module._ASK_AFTER_S)
    assert not client.is_asked.is_set()


async def test_client_that_leaves_ends_the_wait_before_the_deadline() -> None:
    client = ScriptedClient()
    with Patience(later(), client) as patience:
        waiting = asyncio.create_task(given_up(patience))
        await client.leave()
        assert isinstance(await waiting, ClientLeft)
    assert await client.asked() == []


async def test_first_reason_counts() -> None:
    client = ScriptedClient()
    with Patience(later(0.1), client) as patience:
        await client.leave()
        await asyncio.sleep(0.1)
        with pytest.raises(ClientLeft):
            patience.ensure_left()


async def test_client_that_another_image_saw_leave_lets_no_wait_begin() -> None:
    client = ScriptedClient()
    client.has_left = True
    with Patience(later(), client) as patience, pytest.raises(ClientLeft):
        patience.ensure_left()


async def test_nothing_is_ended_after_the_context() -> None:
    ended: list[SaccadeError] = []
    with Patience(later(0.01), ScriptedClient()) as patience:
        patience.on_end(ended.append)
    await asyncio.sleep(0.02)
    assert ended == []
