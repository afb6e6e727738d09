"""Times variants in turns: rounds of short blocks whose order is drawn anew, so that all meet the same disturbances."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from saccade.models.contract.paired_speed import CONFIDENCE, MIN_ROUNDS, PairedSpeed, paired_speed

Run = Callable[[], object]
_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class TimingLimits:
    """How long to measure; at least MIN_ROUNDS rounds are made whatever they take."""

    rounds: int
    budget_s: float  # of all rounds together
    block_s: float  # of one variant at one batch size in one round; a block has at least one run


@dataclass(slots=True)
class Timings:
    """Seconds of single runs, by variant: rounds of blocks, a block per batch size."""

    blocks: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # variants that could not be run, and why

    def medians(self, name: str) -> list[list[float]]:
        """The median second of each block, by round and batch size."""
        return [[median(block) for block in blocks] for blocks in self.blocks[name]]


def timed_in_turns(
    runs: Mapping[str, Sequence[Run]],
    limits: TimingLimits,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> Timings:
    """Times every variant's runs, one per batch size. A variant whose run raises is left out from then on."""
    turns = _Turns(runs, limits.block_s, clock)
    turns.warm_up()
    order, deadline_s = random.Random(seed), clock() + limits.budget_s
    for number in range(max(limits.rounds, MIN_ROUNDS)):
        if number >= MIN_ROUNDS and clock() >= deadline_s:
            break
        turns.round(order)
    return turns.timings


class _Turns:
    """The variants that are still timed."""

    def __init__(self, runs: Mapping[str, Sequence[Run]], block_s: float, clock: Callable[[], float]) -> None:
        self.timings = Timings({name: [] for name in runs})
        self._runs = dict(runs)
        self._sizes = range(max(map(len, runs.values()), default=0))
        self._block_s = block_s
        self._clock = clock

    def warm_up(self) -> None:
        for name in list(self._runs):
            for index in self._sizes:
                for _ in range(_WARM_UP):
                    self._block(name, index, 0.0)

    def round(self, order: random.Random) -> None:
        found: dict[str, list[list[float]]] = {name: [] for name in self._runs}
        for index in self._sizes:
            for name in order.sample(list(self._runs), len(self._runs)):
                found[name].append(self._block(name, index, self._block_s))
        for name in self._runs:
            self.timings.blocks[name].append(found[name])

    def _block(self, name: str, index: int, block_s: float) -> list[float]:
        """Seconds of runs that fill a block. Of several the first does not count: it meets another variant's caches."""
        if name not in self._runs:
            return []
        seconds: list[float] = []
        start_s = last_s = self._clock()
        try:
            while not seconds or last_s - start_s < block_s:
                self._runs[name][index]()
                now_s = self._clock()
                seconds.append(now_s - last_s)
                last_s = now_s
        except Exception as error:  # runtimes raise whatever they like; the other variants are still timed
            self.timings.failures[name] = str(error).partition("\n")[0] or type(error).__name__
            self.timings.blocks.pop(name)
            self._runs.pop(name)
        return seconds[1:] or seconds


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
