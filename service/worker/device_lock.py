"""A lock on the device between the device loop and loaders; a waiting loader gets it before the loop's next batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class DeviceLock:
    """The loop holds the lock while batches are in flight; loading and removing take it for single steps in between."""

    def __init__(self, on_wanted: Callable[[], None]) -> None:
        """`on_wanted` notifies the loop, which may be waiting for more requests while a batch runs."""
        self._on_wanted = on_wanted
        self._changed = threading.Condition()
        self._is_held = False
        self._is_loops = False
        self._waiting = 0

    @property
    def is_wanted(self) -> bool:
        """Whether a loader waits: the loop must then finish the batches in flight and start no other."""
        return self._waiting > 0

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Holds the device while no batch of the loop is on it."""
        with self._changed:
            self._waiting += 1
        self._on_wanted()
        with self._changed:
            self._changed.wait_for(lambda: not self._is_held)
            self._is_held = True
            self._waiting -= 1
        try:
            yield True
        finally:
            with self._changed:
                self._is_held = False
                self._changed.notify_all()

    def take(self) -> None:
        """Takes the device for the loop; further calls have no effect until `give`."""
        if self._is_loops:
            return
        with self._changed:
            # Waiting loaders go first: a simple lock could starve them for as long as requests keep coming.
            self._changed.wait_for(lambda: not (self._is_held or self._waiting))
            self._is_held = self._is_loops = True

    def give(self) -> None:
        """Gives the device back for the loop; without a `take` before, the call has no effect."""
        if not self._is_loops:
            return
        with self._changed:
            self._is_held = self._is_loops = False
            self._changed.notify_all()
