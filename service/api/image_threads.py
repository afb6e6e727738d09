"""Runs the decoding, resizing and rendering of images in threads, and estimates how busy the threads are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from saccade.service.api.cancellation import Cancellation
from saccade.service.api.decode_room import DecodeRoom
from saccade.service.api.slots import Permit
from saccade.service.errors import SaccadeError
from saccade.service.running_figures import RunningMean

_LATEST_SHARE = 0.05  # large images are rare, so a mean over fewer jobs would swing with each of them
# Bytes for pictures that are being decoded: one of 12 megapixels takes 84 MB where it must be turned.
_LEAST_ROOM, _ROOM_PER_THREAD = 512 * 2**20, 64 * 2**20
ResultT = TypeVar("ResultT")


def decode_room_bytes(threads: int) -> int:
    """Returns how much memory all pictures that this many threads decode may take together."""
    return max(_LEAST_ROOM, threads * _ROOM_PER_THREAD)


class ImageThreads:
    """The thread pool for all requests of one API process; only the event loop of that process may call it."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._pool = pool
        self._room = DecodeRoom(decode_room_bytes(threads))
        self._threads = threads
        self._clock = clock
        self._jobs = 0
        self._mean_job_s = RunningMean(_LATEST_SHARE)

    @property
    def job_s(self) -> float:
        """Expected seconds of one job; 0 before the first job is done."""
        return self._mean_job_s.value or 0.0

    @property
    def wait_s(self) -> float:
        """Expected seconds until a thread is free for one more job."""
        return max(0, self._jobs - self._threads + 1) * self.job_s / self._threads

    def run_inline(self, work: Callable[[], ResultT]) -> ResultT:
        """Runs `work` in the event loop itself, and counts it as a job."""
        start_s = self._clock()
        self._jobs += 1
        try:
            return work()
        finally:
            self._jobs -= 1
            self._mean_job_s.add(self._clock() - start_s)

    async def run(
        self, permit: Permit, work: Callable[[], ResultT], cancellation: Cancellation, memory_bytes: int = 0
    ) -> ResultT:
        """Runs `work` in a thread, and holds the permit until the thread no longer uses the slot.

        Work that takes much memory waits until there is room for it. When the request is cancelled, work that has not
        begun is dropped.
        """
        held = await self._room.enter(memory_bytes, cancellation)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[ResultT] = loop.create_future()

        def end() -> None:
            self._jobs -= 1
            self._room.leave(held)
            permit.release()

        def done(seconds: float, outcome: Callable[[], None]) -> None:
            self._mean_job_s.add(seconds)
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
        self._jobs += 1
        job = self._pool.submit(run)
        cancellation.on_end(give_up)
        try:
            return await waiting
        except asyncio.CancelledError:
            withdraw()
            raise
