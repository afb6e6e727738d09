"""Variants timed in turns, with a clock of our own: order, budget, and variants that fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from saccade.models.contract.paired_speed import MIN_ROUNDS
from saccade.service.paired_timing import TimingLimits, pairs_of, timed_in_turns


class Machine:
    """Runs take the seconds that they are given, times the load of the moment."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.load = 1.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now_s

    def run(self, name: str, seconds: float) -> Callable[[], None]:
        def act() -> None:
            self.ran.append(name)
            self.now_s += seconds * self.load
            self.load *= 1.001

        return act


def limits(rounds: int = 20, budget_s: float = 1e9, block_s: float = 0.0) -> TimingLimits:
    return TimingLimits(rounds, budget_s, block_s)


def test_every_round_runs_every_variant_in_an_order_of_its_own() -> None:
    machine = Machine()
    timed_in_turns({name: [machine.run(name, 1.0)] for name in "abc"}, limits(), machine)

    rounds = ["".join(machine.ran[start : start + 3]) for start in range(6, len(machine.ran), 3)]
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    assert len(rounds) == 20
    assert len(set(rounds)) > 3


def test_a_machine_that_slows_down_does_not_change_the_ratio() -> None:
    machine = Machine()
    runs = {name: [machine.run(name, seconds), machine.run(name, 4 * seconds)] for name, seconds in SECONDS.items()}

    pairs = pairs_of(timed_in_turns(runs, limits(), machine), ("fp32", "int8-cpu", "pruned"), "cpu", (1, 8))

    assert [each.against for each in pairs["pruned"]] == ["fp32", "int8-cpu"]
    assert pairs["fp32"] == ()
    assert pairs["int8-cpu"][0].ratio == pytest.approx(1.6, rel=0.01)
    assert pairs["int8-cpu"][0].is_faster
    assert pairs["pruned"][1].ci_high < 1.0
    assert pairs["pruned"][1].rounds == 20


SECONDS = {"pruned": 0.012, "fp32": 0.016, "int8-cpu": 0.010}


def test_the_budget_ends_it_after_enough_rounds_for_an_interval() -> None:
    machine = Machine()

    short = timed_in_turns({"a": [machine.run("a", 10.0)]}, limits(rounds=100, budget_s=1.0), machine)
    longer = timed_in_turns({"a": [machine.run("a", 10.0)]}, limits(rounds=100, budget_s=200.0), machine)

    assert len(short.blocks["a"]) == MIN_ROUNDS
    assert MIN_ROUNDS < len(longer.blocks["a"]) < 25


def test_a_short_run_fills_its_block_and_the_first_does_not_count() -> None:
    machine = Machine()
    timings = timed_in_turns({"a": [machine.run("a", 0.001)]}, limits(rounds=1, block_s=0.005), machine)

    assert {len(round_[0]) for round_ in timings.blocks["a"]} == {4}


@pytest.mark.parametrize("good_runs", [0, 3])
def test_a_variant_that_fails_costs_the_others_nothing(good_runs: int) -> None:
    machine = Machine()
    calls: list[int] = []

    def breaks() -> None:
        calls.append(1)
        machine.now_s += 1.0
        if len(calls) > good_runs:
            raise ValueError("no kernel\nand a trace")

    runs = {"bad": [breaks], "fp32": [machine.run("fp32", 2.0)], "int8-cpu": [machine.run("int8-cpu", 1.0)]}
    timings = timed_in_turns(runs, limits(), machine)

    assert timings.failures == {"bad": "no kernel"}
    assert {name: len(rounds) for name, rounds in timings.blocks.items()} == {"fp32": 20, "int8-cpu": 20}
    assert pairs_of(timings, ("fp32", "bad", "int8-cpu"), "cpu", (1,))["int8-cpu"][0].is_faster
