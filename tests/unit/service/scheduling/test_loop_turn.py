"""How far a loop is behind: a turn begins with its first question and ends when the next one begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from saccade.service.scheduling import loop_turn
from saccade.service.scheduling.loop_turn import LoopTurn


class Clock:
    now_s = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    with monkeypatch.context() as patched:
        patched.setattr(loop_turn, "time", type("Time", (), {"monotonic": staticmethod(lambda: made.now_s)}))
        yield made


async def next_turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_age_counts_from_the_turns_first_question(clock: Clock) -> None:
    turn = LoopTurn()
    assert turn.age_s() == 0.0
    clock.now_s += 0.02
    assert turn.age_s() == pytest.approx(0.02)

    await next_turn()

    assert turn.age_s() == 0.0


async def test_long_turns_make_requests_older_than_they_look(clock: Clock) -> None:
    turn = LoopTurn()
    for _ in range(50):
        turn.age_s()
        clock.now_s += 0.03
        await next_turn()

    assert turn.usual_s == pytest.approx(0.03, rel=0.05)
    assert turn.lag_s() == pytest.approx(0.03, rel=0.05)
    clock.now_s += 0.01
    assert turn.lag_s() == pytest.approx(0.04, rel=0.05)


async def test_pause_without_requests_is_forgotten_load(clock: Clock) -> None:
    turn = LoopTurn()
    turn.age_s()
    clock.now_s += 3.0
    await next_turn()
    assert turn.usual_s == pytest.approx(0.3)

    clock.now_s += 1.0

    assert turn.lag_s() == 0.0


async def test_idle_loop_is_not_behind() -> None:
    turn = LoopTurn()
    for _ in range(20):
        turn.lag_s()
        await next_turn()
    assert turn.lag_s() < 0.05
