"""Passes kernel timings from one build to the next; timings of another TensorRT or GPU are ignored.

TensorRT for RTX picks kernels when it opens a plan; its timing caches do nothing and are deprecated.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

_TIMES_KERNELS = frozenset({"tensorrt"})


def use_timings(config: Any, tensorrt: ModuleType, timings: bytes) -> None:
    """Puts timings into a builder's config; timings that do not fit are replaced by an empty cache."""
    if tensorrt.__name__ not in _TIMES_KERNELS:
        return
    for content in (timings, b"") if timings else (b"",):
        cache = config.create_timing_cache(content)  # None when another TensorRT wrote it
        if cache is not None and config.set_timing_cache(cache, False):  # False when it is of another GPU
            return


def timings_of(config: Any, tensorrt: ModuleType) -> bytes:
    """Returns what a build has measured; empty where the runtime measures nothing."""
    if tensorrt.__name__ not in _TIMES_KERNELS:
        return b""
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())
