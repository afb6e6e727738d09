"""How long a job would wait, and when short jobs run in the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from saccade.service.api.cancellation import Cancellation
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.api.image_threads import ImageThreads
from saccade.service.errors import Overloaded
from tests.support.clients import ScriptedClient


class HeldPool(ThreadPoolExecutor):
    """Two threads that never begin."""

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        return Future()


class ScriptedLag(EventLoopLag):
    """The ages of the present iteration, one for each time that it is asked for; 0 after them."""

    def __init__(self) -> None:
        super().__init__()
        self.ages_s: list[float] = []

    def age_s(self) -> float:
        return self.ages_s.pop(0) if self.ages_s else 0.0


class FreePermit:
    """The permit of a slot that nobody else wants."""

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass


class Story:
    """Two threads, and a clock that the jobs move."""

    def __init__(self, slow_pool: ThreadPoolExecutor | None = None) -> None:
        self.now_s = 0.0
        self.lag = ScriptedLag()
        self.threads = ImageThreads(HeldPool(2), 2, lambda: self.now_s, self.lag, slow_pool)
        self.client = ScriptedClient()
        self.done: list[str] = []

    def work(self, seconds: float, name: str = "") -> Callable[[], None]:
        def work() -> None:
            self.now_s += seconds
            self.done.append(name)

        return work

    async def short(self, seconds: float = 0.5, name: str = "") -> None:
        with Cancellation(time.monotonic() + 3600.0, self.client) as cancellation:
            await self.threads.run_short(self.work(seconds, name), cancellation)

    async def long(self, is_slow: bool = False, seconds: float = 0.0) -> None:
        with Cancellation(time.monotonic() + 3600.0, self.client) as cancellation:
            permit: Any = FreePermit()
            await self.threads.run(permit, self.work(seconds), cancellation, is_slow=is_slow)


async def wait_behind(count: int) -> float:
    """What one more job would wait while so many are in threads and each takes half a second."""
    story = Story()
    await story.short(0.5)
    running = [asyncio.create_task(story.long()) for _ in range(count)]
    await asyncio.sleep(0)
    wait_s = story.threads.wait_s
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    return wait_s


async def test_pool_with_a_free_thread_keeps_nobody_waiting() -> None:
    assert await wait_behind(1) == 0.0


async def test_jobs_beyond_the_threads_are_waited_for() -> None:
    assert await wait_behind(5) == pytest.approx(4 * 0.5 / 2)


async def test_a_job_is_expected_to_take_what_jobs_took_in_the_long_run() -> None:
    story = Story()
    await story.short(0.5)
    assert story.threads.job_s == 0.5

    await story.short(1.5)

    assert story.threads.job_s == pytest.approx(0.95 * 0.5 + 0.05 * 1.5)


async def test_usual_pictures_do_not_wait_behind_slow_ones() -> None:
    story = Story(slow_pool=HeldPool(2))
    await story.short(0.5)
    slow = [asyncio.create_task(story.long(is_slow=True)) for _ in range(20)]
    await asyncio.sleep(0)

    assert story.threads.wait_s == 0.0
    await story.short(0.5, "usual")

    assert story.done[-1] == "usual"
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)


async def test_slow_picture_that_would_wait_past_its_deadline_is_refused() -> None:
    with ThreadPoolExecutor(1) as pool:
        story = Story(slow_pool=pool)
        await story.long(is_slow=True, seconds=10_000.0)
        story.threads._slow.pool = HeldPool(2)
        waiting = [asyncio.create_task(story.long(is_slow=True)) for _ in range(2)]
        await asyncio.sleep(0)

        with pytest.raises(Overloaded, match="pictures that take long to decode wait about 5000000 ms now"):
            await story.long(is_slow=True)

        assert (story.threads.wait_s, story.threads.job_s) == (0.0, 0.0)  # of pictures that are not slow
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_short_jobs_of_a_long_iteration_wait_for_the_next_in_their_order() -> None:
    story = Story()
    await story.short(0.5, "before")
    story.lag.ages_s = [1.0, 0.0, 1.0]  # "first" comes late, and the next iteration is over with it
    waiting = [asyncio.create_task(story.short(0.5, name)) for name in ("first", "second")]
    await asyncio.sleep(0)

    assert story.done == ["before"]
    assert story.threads.wait_s == pytest.approx(2 * 0.5)

    await asyncio.sleep(0)
    assert story.done == ["before", "first"]

    await asyncio.gather(*waiting)
    assert story.done == ["before", "first", "second"]
    assert story.threads.wait_s == 0.0


async def test_short_job_that_fails_fails_only_its_own_request() -> None:
    story = Story()
    story.lag.ages_s = [1.0]

    def fail() -> None:
        raise ValueError("of this one")

    async def failing() -> None:
        with Cancellation(time.monotonic() + 3600.0, story.client) as cancellation:
            await story.threads.run_short(fail, cancellation)

    other = story.short(0.5, "other")
    outcomes = await asyncio.gather(failing(), other, return_exceptions=True)

    assert isinstance(outcomes[0], ValueError)
    assert story.done == ["other"]


async def test_short_job_whose_request_ended_is_dropped() -> None:
    story = Story()
    story.lag.ages_s = [1.0]
    waiting = asyncio.create_task(story.short(0.5, "dropped"))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting

    await asyncio.sleep(0)
    assert story.done == []
    assert story.threads.wait_s == 0.0
