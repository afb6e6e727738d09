"""Requests per key at once: counted in and out, one key at a time."""

from __future__ import annotations

import pytest

from saccade.service.api.http.key_limits import KeyLimits
from saccade.service.errors import Overloaded


def test_key_beyond_its_limit_is_refused_until_one_of_its_requests_ends() -> None:
    limits = KeyLimits(2)
    limits.begin(b"a")
    limits.begin(b"a")

    with pytest.raises(Overloaded, match="SACCADE_MAX_CONCURRENT_PER_KEY") as caught:
        limits.begin(b"a")
    assert caught.value.what == "key"
    limits.begin(b"b")
    limits.end(b"a")
    limits.begin(b"a")


@pytest.mark.parametrize(("max_concurrent", "key"), [(0, b"a"), (1, None)])
def test_without_a_limit_or_without_keys_all_come_in(max_concurrent: int, key: bytes | None) -> None:
    limits = KeyLimits(max_concurrent)
    for _ in range(100):
        limits.begin(key)
    limits.end(key)
