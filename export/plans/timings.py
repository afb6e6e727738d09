"""Kernel timings from one build to the next. Promises: those of another TensorRT or GPU are left out, not an error.

TensorRT for RTX picks kernels when it opens a plan; its timing caches do nothing and are deprecated.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

_TIMES_KERNELS = frozenset({"tensorrt"})


def use_timings(config: Any, tensorrt: ModuleType, timings: bytes) -> None:
    """Side effect on a builder's config. What does not fit is replaced by an empty cache."""
    if tensorrt.__name__ not in _TIMES_KERNELS:
        return
    for content in (timings, b"") if timings else (b"",):
        cache = config.create_timing_cache(content)  # None for one that another TensorRT wrote
        if cache is not None and config.set_timing_cache(cache, False):  # False too for another GPU's
            return


def timings_of(config: Any, tensorrt: ModuleType) -> bytes:
    """What a build has measured; empty where it measures nothing."""
    if tensorrt.__name__ not in _TIMES_KERNELS:
        return b""
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())
