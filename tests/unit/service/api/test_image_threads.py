"""How long a job would wait for an image thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from saccade.service.api.image_threads import ImageThreads


class Story:
    """Two threads, and a clock that the jobs move."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.threads = ImageThreads(ThreadPoolExecutor(2), 2, lambda: self.now_s)
        self.threads.run_inline(lambda: self.work(0.5))

    def work(self, seconds: float) -> None:
        self.now_s += seconds

    def wait_behind(self, jobs: int) -> float:
        """What one more would wait while so many are at work."""
        return self.threads.run_inline(lambda: self.wait_behind(jobs - 1)) if jobs else self.threads.wait_s


def test_pool_with_a_free_thread_keeps_nobody_waiting() -> None:
    assert Story().wait_behind(1) == 0.0


def test_jobs_beyond_the_threads_are_waited_for() -> None:
    assert Story().wait_behind(5) == pytest.approx(4 * 0.5 / 2)


def test_a_job_is_expected_to_take_what_jobs_took_in_the_long_run() -> None:
    story = Story()
    assert story.threads.job_s == 0.5

    story.threads.run_inline(lambda: story.work(1.5))

    assert story.threads.job_s == pytest.approx(0.95 * 0.5 + 0.05 * 1.5)
