"""Runs the decoding, resizing and rendering of images, and estimates how long one more image would wait for it.

Long jobs run in threads. Short ones run in the event loop, in the order in which they came, for a few milliseconds of
each iteration: the loop reads new requests and sends answers in between, and no two of them fight for the interpreter.
Pictures that take long to decode have threads of their own, which wait for the processes of `decoding_apart.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from saccade.service.api.cancellation import Cancellation
from saccade.service.api.decode_room import DecodeRoom
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.errors import Overloaded, SaccadeError
from saccade.service.running_figures import RunningMean

_LATEST_SHARE = 0.05  # large images are rare, so a mean over fewer jobs would swing with each of them
# An iteration of the event loop that has lasted this long begins no more short jobs: requests that cannot be served
# must be read soon, so that they are refused in time.
_LONGEST_ITERATION_S = 0.003
# Bytes for pictures that are being decoded: one of 12 megapixels takes 84 MB where it must be turned.
_LEAST_ROOM, _ROOM_PER_THREAD = 512 * 2**20, 64 * 2**20
ResultT = TypeVar("ResultT")


class Held(Protocol):
    """What a thread holds as long as it may use it, such as the permit of a slot."""

    def hold(self) -> None: ...

    def release(self) -> None: ...


def decode_room_bytes(threads: int) -> int:
    """Returns how much memory all pictures that this many threads decode may take together."""
    return max(_LEAST_ROOM, threads * _ROOM_PER_THREAD)


@dataclass(slots=True)
class _Lane:
    """Threads, and what is known of their jobs."""

    pool: Executor
    threads: int
    jobs: int = 0
    mean_job_s: RunningMean = field(default_factory=lambda: RunningMean(_LATEST_SHARE))

    @property
    def job_s(self) -> float:
        return self.mean_job_s.value or 0.0

    @property
    def wait_s(self) -> float:
        return max(0, self.jobs - self.threads + 1) / self.threads * self.job_s


class ImageThreads:
    """The threads for all requests of one API process; only the event loop of that process may call it."""

    def __init__(
        self,
        pool: Executor,
        threads: int,
        clock: Callable[[], float] = time.perf_counter,
        lag: EventLoopLag | None = None,
        slow_pool: Executor | None = None,
    ) -> None:
        """Both pools have so many `threads`; without `slow_pool` there is one for all."""
        self._lag = lag or EventLoopLag()
        self._short_jobs: deque[Callable[[], None]] = deque()  # those that wait for an iteration of the event loop
        self._room = DecodeRoom(decode_room_bytes(threads))
        self._usual = _Lane(pool, threads)
        self._slow = self._usual if slow_pool is None else _Lane(slow_pool, threads)
        self._clock = clock

    @property
    def job_s(self) -> float:
        """Expected seconds of one job that is not slow; 0 before the first is done."""
        return self._usual.job_s

    @property
    def wait_s(self) -> float:
        """Expected seconds until one more job begins that is not slow: slow ones stand in nobody else's way."""
        return max(self._usual.wait_s, len(self._short_jobs) * self._usual.job_s)

    async def run_short(self, work: Callable[[], ResultT], cancellation: Cancellation) -> ResultT:
        """Runs `work` in the event loop itself, now or in one of its next iterations.

        When the request is cancelled, work that has not begun is dropped.
        """
        if not self._short_jobs and self._lag.age_s() < _LONGEST_ITERATION_S:
            return self._timed(work)
        cancellation.ensure_left()
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[ResultT] = loop.create_future()

        def run() -> None:
            if waiting.done():
                return
            try:
                waiting.set_result(self._timed(work))
            except Exception as error:  # raised again where the result is awaited
                waiting.set_exception(error)

        def give_up(error: SaccadeError) -> None:
            if not waiting.done():
                waiting.set_exception(error)

        if not self._short_jobs:
            loop.call_soon(self._run_short_jobs)
        self._short_jobs.append(run)
        cancellation.on_end(give_up)
        return await waiting

    def _run_short_jobs(self) -> None:
        """Runs one at least, so that a busy loop starves none."""
        self._lag.age_s()  # the iteration counts from here at the latest
        while self._short_jobs:
            self._short_jobs.popleft()()
            if self._lag.age_s() >= _LONGEST_ITERATION_S:
                break
        if self._short_jobs:
            asyncio.get_running_loop().call_soon(self._run_short_jobs)

    def _timed(self, work: Callable[[], ResultT]) -> ResultT:
        start_s = self._clock()
        try:
            return work()
        finally:
            self._usual.mean_job_s.add(self._clock() - start_s)

    def _ensure_in_time(self, cancellation: Cancellation) -> None:
        wait_s = self._slow.wait_s
        if wait_s > cancellation.until_s - time.monotonic():
            raise Overloaded(
                f"pictures that take long to decode wait about {1000 * wait_s:.0f} ms now, too long for the deadline: "
                "retry later, or send smaller pictures or baseline JPEGs",
                wait_s,
                "wait",
            )

    async def run(
        self,
        permit: Held,
        work: Callable[[], ResultT],
        cancellation: Cancellation,
        memory_bytes: int = 0,
        is_slow: bool = False,
    ) -> ResultT:
        """Runs `work` in a thread, and holds the permit until the thread no longer uses the slot.

        Work that takes much memory waits until there is room for it. When the request is cancelled, work that has not
        begun is dropped. Raises Overloaded for a slow picture that would wait for others past its deadline.
        """
        lane = self._slow if is_slow else self._usual
        if is_slow:
            self._ensure_in_time(cancellation)
        held = await self._room.enter(memory_bytes, cancellation)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[ResultT] = loop.create_future()

        def end() -> None:
            lane.jobs -= 1
            self._room.leave(held)
            permit.release()

        def done(seconds: float, outcome: Callable[[], None]) -> None:
            lane.mean_job_s.add(seconds)
            end()
            if not waiting.done():
                outcome()

        def run() -> None:
            start_s = self._clock()
            try:
                outcome = partial(waiting.set_result, work())
            except BaseException as error:  # raised again where the result is awaited
                outcome = partial(waiting.set_exception, error)
            loop.call_soon_threadsafe(done, self._clock() - start_s, outcome)

        def give_up(error: SaccadeError) -> None:
            if not waiting.done():
                waiting.set_exception(error)
            withdraw()

        def withdraw() -> None:
            if not job.cancelled() and job.cancel():
                end()

        try:
            cancellation.ensure_left()
        except SaccadeError:
            self._room.leave(held)
            raise
        permit.hold()
        lane.jobs += 1
        job = lane.pool.submit(run)
        cancellation.on_end(give_up)
        try:
            return await waiting
        except asyncio.CancelledError:
            withdraw()
            raise
