"""Wakes an event loop at a given moment, to within tens of microseconds; the loop's own timers have milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

from saccade.service.errors import RuntimeMissing

_CLOCK_MONOTONIC = 1  # the clock of time.monotonic
_TFD_TIMER_ABSTIME = 1
_SOONEST_NS = 1  # zero would disarm the timer


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Wakeup:
    """Calls `on_wakeup` in `loop` once for each `at`, by Linux's timerfd, which the os module has only from Python 3.13
    on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_wakeup: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            raise RuntimeMissing(f"no timer for the load: {os.strerror(ctypes.get_errno())}")
        # All calls share one structure: building it anew would cost more than the call.
        self._spec = _Itimerspec()
        self._spec_address = ctypes.byref(self._spec)
        self._value = self._spec.value
        self._set_time = self._libc.timerfd_settime
        self._loop = loop
        self._on_wakeup = on_wakeup
        loop.add_reader(self._fd, self._expired)

    def at(self, moment_s: float) -> None:
        """Wakes the loop at `moment_s` of time.monotonic(); a moment in the past wakes it at once."""
        whole_s = int(moment_s) if moment_s > 0.0 else 0
        self._value.seconds = whole_s
        self._value.nanoseconds = max(int((moment_s - whole_s) * 1e9), _SOONEST_NS)
        if self._set_time(self._fd, _TFD_TIMER_ABSTIME, self._spec_address, None) != 0:
            raise RuntimeMissing(f"the load's timer failed: {os.strerror(ctypes.get_errno())}")

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # the timer was set again between its end and this call
            return
        self._on_wakeup()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
