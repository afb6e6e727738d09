"""Finds the most a server answers within an objective. Promises: the next step is a pure decision on what was tried.

A closed loop: N connections, each sends its next image when the answer is in. More connections mean more answers per
second and longer ones, until only longer ones; the figure is the highest rate whose p99 keeps the objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.load.closed_loop import LoadResult

_FIRST = 4
_MIN_GROWTH = 1.02  # doubling that gains less has reached the top
_FINE = 1.15  # between the last good and the first bad number of connections


@dataclass(frozen=True, slots=True)
class Trial:
    """One load."""

    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    not_200: int

    def keeps(self, objective_ms: float) -> bool:
        return self.per_second > 0 and self.not_200 == 0 and self.p99_ms <= objective_ms


def trial_of(connections: int, results: Sequence[LoadResult]) -> Trial:
    """One load that several client processes shared."""
    latencies = np.concatenate([np.asarray(each.latencies_s) for each in results])
    good = sum(each.statuses[200] for each in results)
    every = sum(sum(each.statuses.values()) for each in results)
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3 if len(latencies) else (0.0, 0.0)
    return Trial(connections, good / results[0].seconds, float(p50), float(p99), every - good)


def shares(connections: int, processes: int) -> list[int]:
    """Connections per client process; never more processes than connections."""
    used = min(connections, processes)
    return [connections // used + (index < connections % used) for index in range(used)]


def next_connections(tried: Sequence[Trial], objective_ms: float, most: int) -> int | None:
    """How many connections to try next; None when the search is over."""
    if not tried:
        return min(_FIRST, most)
    good = [trial for trial in tried if trial.keeps(objective_ms)]
    bad = [trial.connections for trial in tried if not trial.keeps(objective_ms)]
    if not good:
        return max(1, min(bad) // 2) if min(bad) > 1 else None
    largest = max(good, key=lambda trial: trial.connections)
    above = [count for count in bad if count > largest.connections]
    if above:
        middle = (largest.connections + min(above)) // 2
        return middle if middle > largest.connections and min(above) > largest.connections * _FINE else None
    *earlier, before, last = [0.0, 0.0, *(each.per_second for each in sorted(good, key=lambda each: each.connections))]
    has_grown = max(before, last) > max(earlier, default=0.0) * _MIN_GROWTH  # two in a row: one may be noise
    return min(2 * largest.connections, most) if has_grown and largest.connections < most else None


def next_of(connections: Sequence[int], tried: Sequence[Trial]) -> int | None:
    """The next of numbers that somebody named; None after the last."""
    return connections[len(tried)] if len(tried) < len(connections) else None


def best_trial(tried: Sequence[Trial], objective_ms: float) -> Trial | None:
    """Highest rate within the objective."""
    return max((each for each in tried if each.keeps(objective_ms)), key=lambda each: each.per_second, default=None)
