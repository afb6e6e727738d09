"""Ladder levels over simulated time: down in time, up when it lasts, and no to and fro."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.service.api.fallback import FallbackState, next_state

OBJECTIVE_S = 0.2
RATES = (100.0, 400.0)  # images/s of the levels


@dataclass
class Device:
    """One queue, served in order; every request was bound to a level when it came."""

    rates: tuple[float, ...] = RATES
    free_s: float = 0.0
    state: FallbackState = field(default_factory=FallbackState)
    answered_s: list[float] = field(default_factory=list)  # after how long
    steps: list[tuple[float, int]] = field(default_factory=list)  # when, to which level
    levels: list[int] = field(default_factory=list)

    def request(self, now_s: float) -> None:
        wait_s = max(0.0, self.free_s - now_s)
        after = next_state(wait_s, OBJECTIVE_S, self.state, now_s, len(self.rates) - 1)
        if after.level != self.state.level:
            self.steps.append((now_s, after.level))
        self.state = after
        self.free_s = max(self.free_s, now_s) + 1 / self.rates[after.level]
        self.answered_s.append(self.free_s - now_s)
        self.levels.append(after.level)

    def flow(self, from_s: float, until_s: float, rate_at: Callable[[float], float]) -> None:
        now_s = from_s
        while now_s < until_s:
            self.request(now_s)
            now_s += 1 / rate_at(now_s)

    @property
    def goodput_share(self) -> float:
        return sum(seconds <= OBJECTIVE_S for seconds in self.answered_s) / len(self.answered_s)


def test_a_load_that_the_best_level_carries_never_leaves_it() -> None:
    device = Device()
    device.flow(0, 60, lambda now_s: 90.0)

    assert device.steps == []


def test_load_that_ramps_up_and_down_is_answered_in_time_without_flapping() -> None:
    """30/s to 300/s and back within a minute: three times what the best level can carry."""
    device = Device()
    device.flow(0, 90, lambda now_s: 30.0 + 270.0 * max(0.0, 1 - abs(now_s - 30) / 30))

    assert device.goodput_share == 1.0
    assert device.levels[0] == device.levels[-1] == 0
    assert len(device.steps) <= 14, device.steps
    assert device.levels.count(1) > 0.5 * len(device.levels), "most requests come while it is too much for level 0"


def test_steady_overload_is_answered_by_the_cheaper_level_and_trials_get_rare() -> None:
    device = Device()
    device.flow(0, 300, lambda now_s: 250.0)
    ups = [when_s for when_s, level in device.steps if level == 0]

    assert device.goodput_share > 0.999
    assert len(ups) <= 16, "every failed trial makes the next one wait twice as long, up to half a minute"
    gaps = [later - earlier for earlier, later in pairwise(ups)]
    assert all(later > 0.95 * earlier for earlier, later in pairwise(gaps)), gaps
    assert device.levels.count(1) / len(device.levels) > 0.98


def test_a_sudden_flood_is_met_before_the_objective_is_missed() -> None:
    device = Device()
    device.flow(0, 10, lambda now_s: 20.0)
    device.flow(10, 40, lambda now_s: 380.0)

    assert device.goodput_share > 0.99


def test_the_best_level_returns_after_the_flood() -> None:
    device = Device()
    device.flow(0, 5, lambda now_s: 300.0)
    device.flow(5, 20, lambda now_s: 50.0)

    assert device.levels[-1] == 0
    assert [level for _, level in device.steps][-1] == 0


def test_three_levels_are_taken_one_by_one() -> None:
    device = Device(rates=(100.0, 200.0, 800.0))
    device.flow(0, 20, lambda now_s: 600.0)

    assert [level for _, level in device.steps][:2] == [1, 2]
    assert device.steps[1][0] - device.steps[0][0] >= OBJECTIVE_S, "the queue of the first level drains first"


def test_silence_is_calm() -> None:
    device = Device(rates=(100.0, 200.0, 800.0))
    device.flow(0, 5, lambda now_s: 600.0)
    assert device.levels[-1] == 2

    device.request(100.0)

    assert device.levels[-1] == 0


def test_a_device_without_free_slots_is_pressed() -> None:
    first = next_state(0.0, OBJECTIVE_S, FallbackState(), 0.0, 1)

    assert next_state(math.inf, OBJECTIVE_S, first, 0.1, 1).level == 1


def test_a_ladder_that_lost_a_level_answers_by_what_is_left() -> None:
    state = FallbackState(level=2, stepped_s=0.0, seen_s=0.0)

    assert next_state(0.15, OBJECTIVE_S, state, 0.1, 1).level == 1


@given(
    waits_s=st.lists(st.floats(0, 1) | st.just(math.inf), min_size=1, max_size=60),
    gaps_s=st.lists(st.floats(0.001, 3), min_size=60, max_size=60),
    lowest=st.integers(0, 3),
)
def test_levels_exist_and_are_left_one_at_a_time(waits_s: list[float], gaps_s: list[float], lowest: int) -> None:
    state, now_s = FallbackState(), 0.0
    for wait_s, gap_s in zip(waits_s, gaps_s[: len(waits_s)], strict=True):
        now_s += gap_s
        after = next_state(wait_s, OBJECTIVE_S, state, now_s, lowest)
        assert 0 <= after.level <= lowest
        assert after.level - state.level <= 1
        if after.level < state.level:
            assert wait_s < 0.5 * OBJECTIVE_S, "nothing gets better while time is short"
        state = after


@pytest.mark.parametrize("wait_share", [0.16, 0.3, 0.49])
def test_between_the_thresholds_nothing_moves(wait_share: float) -> None:
    state = FallbackState(level=1, stepped_s=0.0, seen_s=0.0)
    for tick in range(1, 400):
        state = next_state(wait_share * OBJECTIVE_S, OBJECTIVE_S, state, tick * 0.1, 2)

    assert state.level == 1
