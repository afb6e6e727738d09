"""Kernel timings between builds. Promises: what does not fit is left out, and none is fine."""

from __future__ import annotations

from types import ModuleType

import pytest

from saccade.export.plans.tensorrt_from_onnx import build_plan, find_tensorrt
from saccade.export.plans.timings import timings_of, use_timings
from tests.support.residual_network import residual_network

TENSORRT, RTX = ModuleType("tensorrt"), ModuleType("tensorrt_rtx")


class Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class Config:
    """A builder's config as its documentation tells: None for a cache of another build, False for another GPU's."""

    def __init__(self, foreign: bytes = b"", unfitting: bytes = b"") -> None:
        self.foreign, self.unfitting = foreign, unfitting
        self.cache: Cache | None = None

    def create_timing_cache(self, content: bytes) -> Cache | None:
        return None if content and content == self.foreign else Cache(content)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content and cache.content == self.unfitting:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache


@pytest.mark.parametrize(
    ("config", "kept"),
    [(Config(), b"timings"), (Config(foreign=b"timings"), b""), (Config(unfitting=b"timings"), b"")],
    ids=["fits", "of another TensorRT", "of another GPU"],
)
def test_former_timings_are_used_where_they_fit(config: Config, kept: bytes) -> None:
    use_timings(config, TENSORRT, b"timings")

    assert config.cache is not None
    assert timings_of(config, TENSORRT) == kept


def test_first_build_starts_an_empty_cache() -> None:
    config = Config()
    assert timings_of(config, TENSORRT) == b""

    use_timings(config, TENSORRT, b"")

    assert config.cache is not None


def test_rtx_is_left_alone() -> None:
    config = Config()

    use_timings(config, RTX, b"timings")

    assert config.cache is None
    assert timings_of(config, RTX) == b""


@pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")
def test_real_rtx_builds_with_any_timings_and_gives_none() -> None:
    report = build_plan(residual_network().SerializeToString(), ("SM89",), (1,), "tensorrt_rtx", timings=b"junk")

    assert report.plan is not None
    assert report.timings == b""
