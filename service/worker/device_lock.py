"""Whose turn it is on the device. Promises: one holder; a loader that asks is next, however busy the traffic."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class DeviceLock:
    """The loop holds the device while batches are in flight; loaders and removals take it for one thing in between."""

    def __init__(self, on_wanted: Callable[[], None]) -> None:
        """`on_wanted` wakes the loop, which may be waiting for company while a batch runs."""
        self._on_wanted = on_wanted
        self._changed = threading.Condition()
        self._is_held = False
        self._is_loops = False
        self._waiting = 0

    @property
    def is_wanted(self) -> bool:
        """Somebody waits: finish what is in flight, start nothing."""
        return self._waiting > 0

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """The device, with nothing of the loop's on it."""
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
        """For the loop: holds the device from now on; a second call is none."""
        if self._is_loops:
            return
        with self._changed:
            # Who waits goes first: a lock alone could starve a loader for as long as requests keep coming.
            self._changed.wait_for(lambda: not (self._is_held or self._waiting))
            self._is_held = self._is_loops = True

    def give(self) -> None:
        """For the loop: the device is free; without a `take` before it does nothing."""
        if not self._is_loops:
            return
        with self._changed:
            self._is_held = self._is_loops = False
            self._changed.notify_all()
