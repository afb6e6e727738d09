"""Gives memory that a closed session has freed back to the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _trimming() -> Callable[[int], int] | None:
    """Returns glibc's `malloc_trim`; None where another C library allocates."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


_TRIM = _trimming()


def return_freed_memory() -> None:
    """Returns free pages of all of glibc's arenas; without it each load takes new ones beside those of the last."""
    if _TRIM is not None:
        _TRIM(0)
