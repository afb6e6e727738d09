"""A process that hangs is found in time, and one that answers is not asked without end."""

from __future__ import annotations

import pytest

from saccade.service.supervisor.probing import next_look_s


@pytest.mark.parametrize("limit_s", [0.4, 1.5, 4.0, 30.0])
def test_a_hang_is_found_at_the_limit_after_its_first_probe(limit_s: float) -> None:
    at_s, sent_s = 0.0, next_look_s(None, limit_s)  # it hangs from 0 on, when a probe was just answered
    at_s = sent_s
    while at_s - sent_s < limit_s:
        at_s += next_look_s(at_s - sent_s, limit_s)

    assert sent_s <= 1.0
    assert at_s == pytest.approx(sent_s + limit_s)


def test_looks_are_a_second_apart_at_most_and_never_without_a_pause() -> None:
    assert next_look_s(None, 30.0) == next_look_s(3.0, 30.0) == 1.0
    assert next_look_s(30.0, 30.0) == next_look_s(31.0, 30.0) == 1.0, "it was killed and has not ended yet"
