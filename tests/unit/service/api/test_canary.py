"""Which requests a canary gets: its share, the same at every replica, and more of them as the share grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.api.canary import goes_to_canary
from saccade.service.ipc.messages import ModelStatus

KEYS = [b"user %d" % number for number in range(10_000)]


def canary(share: float, salt: str = "") -> ModelStatus:
    return ModelStatus("digits", 1, 1, canary=2, share=share, salt=salt)


@pytest.mark.parametrize(("share", "least", "most"), [(0.1, 900, 1100), (0.5, 4800, 5200), (1.0, 10_000, 10_000)])
def test_share_of_ten_thousand_keys_is_kept(share: float, least: int, most: int) -> None:
    assert least <= sum(goes_to_canary(canary(share), key) for key in KEYS) <= most


@given(st.binary(max_size=200), st.floats(0.001, 1.0), st.floats(0.001, 1.0), st.text(max_size=64))
def test_key_stays_with_the_canary_while_the_share_grows(key: bytes, share: float, other: float, salt: str) -> None:
    smaller, larger = sorted((share, other))

    assert goes_to_canary(canary(smaller, salt), key) <= goes_to_canary(canary(larger, salt), key)


def test_another_salt_chooses_other_keys() -> None:
    chosen = {salt: {key for key in KEYS if goes_to_canary(canary(0.1, salt), key)} for salt in ("a", "b")}

    assert 50 <= len(chosen["a"] & chosen["b"]) <= 150  # a tenth of a tenth
