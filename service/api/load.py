"""How long work waits for the image threads. Promises: a running mean; what is in the pool is counted once."""

from __future__ import annotations

_LATEST_SHARE = 0.05  # large images are rare and count by their number, so the mean must be a long one


class PoolLoad:
    """The jobs of one thread pool. Belongs to an event loop."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._jobs = 0
        self.job_s = 0.0  # expected seconds of one

    def begin(self) -> None:
        """A job was handed to the pool."""
        self._jobs += 1

    def end(self, seconds: float | None) -> None:
        """It is done, after so many seconds of work; None: it never began."""
        self._jobs -= 1
        if seconds is not None:
            self.job_s = seconds if not self.job_s else self.job_s + _LATEST_SHARE * (seconds - self.job_s)

    @property
    def wait_s(self) -> float:
        """Expected seconds until a thread is free for one more job."""
        return max(0, self._jobs - self._threads + 1) * self.job_s / self._threads
