"""Times variants in turns, opened anew each round, so that all meet the same disturbances.

Where a session's memory happens to lie makes it faster or slower by some percent for as long as it is open: of two
sessions of one file one would win every turn. So a round opens every variant afresh, in a drawn order, and counts once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from saccade.models.contract.paired_speed import CONFIDENCE, MIN_ROUNDS, PairedSpeed, paired_speed

ROUNDS = 9  # at 95 % the interval leaves one round out at either end
Run = Callable[[], object]
Open = Callable[[], AbstractContextManager[Sequence[Run]]]  # a variant's runs, one per batch size


@dataclass(frozen=True, slots=True)
class TimingLimits:
    """How long to measure; at least MIN_ROUNDS rounds of one turn are made whatever they take."""

    turns: int  # in each round
    budget_s: float  # of all rounds together
    block_s: float  # of one variant at one batch size in one turn; a block has at least one run
    rounds: int = ROUNDS


@dataclass(slots=True)
class Timings:
    """Seconds of single runs, by variant: rounds of blocks, a block per batch size."""

    blocks: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # variants that could not be run, and why

    def medians(self, name: str) -> list[list[float]]:
        """The median second of each block, by round and batch size."""
        return [[median(block) for block in blocks] for blocks in self.blocks[name]]


def timed_in_turns(
    variants: Mapping[str, Open],
    limits: TimingLimits,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> Timings:
    """Times every variant's runs. A variant that fails to open or to run is left out from then on."""
    order, start_s = random.Random(seed), clock()
    rounds = max(limits.rounds, MIN_ROUNDS)
    left, timings = dict(variants), Timings({name: [] for name in variants})
    for number in range(rounds):
        if number >= MIN_ROUNDS and clock() >= start_s + limits.budget_s:
            break
        with ExitStack() as stack:
            deadline_s = start_s + limits.budget_s * (number + 1) / rounds
            current = _Round(stack, clock, order)
            current.open(left)
            current.take_turns(limits.turns, limits.block_s, deadline_s)
            for name, reason in current.failures.items():
                timings.failures[name] = reason
                timings.blocks.pop(name)
                left.pop(name)
            for name, blocks in current.blocks.items():
                timings.blocks[name].append(blocks)
    return timings


class _Round:
    """Variants opened side by side, and the seconds of their runs."""

    def __init__(self, stack: ExitStack, clock: Callable[[], float], order: random.Random) -> None:
        self.blocks: dict[str, list[list[float]]] = {}
        self.failures: dict[str, str] = {}
        self._runs: dict[str, Sequence[Run]] = {}
        self._stack = stack
        self._clock = clock
        self._order = order

    def open(self, variants: Mapping[str, Open]) -> None:
        """Opens the variants in a drawn order and runs each once, which is slower than any later run."""
        for name in self._order.sample(list(variants), len(variants)):
            try:
                self._runs[name] = self._stack.enter_context(variants[name]())
                for run in self._runs[name]:
                    run()
            except Exception as error:  # runtimes raise whatever they like; the other variants are still timed
                self._leave_out(name, error)
            else:
                self.blocks[name] = [[] for _ in self._runs[name]]

    def take_turns(self, turns: int, block_s: float, deadline_s: float) -> None:
        sizes = range(max(map(len, self._runs.values()), default=0))
        for number in range(max(1, turns)):
            if number and self._clock() >= deadline_s:
                return
            for size in sizes:
                for name in self._order.sample(list(self._runs), len(self._runs)):
                    self._take_turn(name, size, block_s)

    def _take_turn(self, name: str, size: int, block_s: float) -> None:
        """Runs until a block is full. Of several runs the first does not count: it meets another variant's caches."""
        seconds: list[float] = []
        start_s = last_s = self._clock()
        try:
            while not seconds or last_s - start_s < block_s:
                self._runs[name][size]()
                now_s = self._clock()
                seconds.append(now_s - last_s)
                last_s = now_s
        except Exception as error:  # as in `open`
            self._leave_out(name, error)
        else:
            self.blocks[name][size] += seconds[1:] or seconds

    def _leave_out(self, name: str, error: Exception) -> None:
        self.failures[name] = reason_of(error)
        self._runs.pop(name, None)
        self.blocks.pop(name, None)


def reason_of(error: Exception) -> str:
    """The first line of an error, or its kind where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def pairs_of(
    timings: Timings,
    by_exactness: Sequence[str],
    device_kind: Literal["cpu", "cuda"],
    batch_sizes: tuple[int, ...],
    confidence: float = CONFIDENCE,
) -> dict[str, tuple[PairedSpeed, ...]]:
    """Compares every timed variant with every more exact one; the names come most exact first."""
    seconds = {name: timings.medians(name) for name in by_exactness if name in timings.blocks}
    pairs: dict[str, tuple[PairedSpeed, ...]] = {}
    for name, mine in seconds.items():
        found = (
            paired_speed(
                mine,
                seconds[other],
                against=other,
                device_kind=device_kind,
                batch_sizes=batch_sizes,
                confidence=confidence,
            )
            for other in pairs
        )
        pairs[name] = tuple(each for each in found if each is not None)
    return pairs
