"""How far a loop is behind: an iteration begins with the first call in it and ends when the next one begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from saccade.service.api import event_loop_lag
from saccade.service.api.event_loop_lag import EventLoopLag


class Clock:
    now_s = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    with monkeypatch.context() as patched:
        patched.setattr(event_loop_lag, "time", type("Time", (), {"monotonic": staticmethod(lambda: made.now_s)}))
        yield made


async def next_iteration() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_age_counts_from_the_iterations_first_call(clock: Clock) -> None:
    lag = EventLoopLag()
    assert lag.age_s() == 0.0
    clock.now_s += 0.02
    assert lag.age_s() == pytest.approx(0.02)

    await next_iteration()

    assert lag.age_s() == 0.0


async def test_long_iterations_make_requests_older_than_they_look(clock: Clock) -> None:
    lag = EventLoopLag()
    for _ in range(50):
        lag.age_s()
        clock.now_s += 0.03
        await next_iteration()

    assert lag.usual_s == pytest.approx(0.03, rel=0.05)
    assert lag.lag_s() == pytest.approx(0.03, rel=0.05)
    clock.now_s += 0.01
    assert lag.lag_s() == pytest.approx(0.04, rel=0.05)


async def test_pause_without_requests_is_forgotten_load(clock: Clock) -> None:
    lag = EventLoopLag()
    lag.age_s()
    clock.now_s += 3.0
    await next_iteration()
    assert lag.usual_s == pytest.approx(0.3)

    clock.now_s += 1.0

    assert lag.lag_s() == 0.0


async def test_idle_loop_is_not_behind() -> None:
    lag = EventLoopLag()
    for _ in range(20):
        lag.lag_s()
        await next_iteration()
    assert lag.lag_s() < 0.05
