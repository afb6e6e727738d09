"""Restart delays: double on quick deaths, start over after a long life."""

from __future__ import annotations

import pytest

from saccade.service.ipc.child_process import BackOff


def test_delay_doubles_on_quick_deaths_up_to_its_limit() -> None:
    back_off = BackOff(first_s=0.1, last_s=1.0, healthy_after_s=10.0)

    delays = [back_off.after_life_of(0.5) for _ in range(6)]

    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_delay_starts_over_after_a_long_life() -> None:
    back_off = BackOff(first_s=0.1, last_s=1.0, healthy_after_s=10.0)
    for _ in range(4):
        back_off.after_life_of(0.5)

    assert back_off.after_life_of(10.0) == 0.1
    assert back_off.after_life_of(0.0) == 0.2
