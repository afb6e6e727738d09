"""Chooses the channels to remove for a budget of multiply-adds; a pure and deterministic function.

The choice is greedy: while the budget is exceeded, the `round_to` least important channels of one group are removed. It
is the group that loses the least importance per multiply-add that still had to be saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Axis = tuple[str, int]  # a weight's name and the number of one of its axes


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Work of one convolution or linear layer."""

    layer: str
    weight: str
    shape: tuple[int, ...]  # shape of the weight
    places: int  # how many positions of one image the layer is applied to


@dataclass(frozen=True, slots=True, eq=False)
class PruningCandidate:
    """One group of channels that may be removed: its bundles' importance, and the indices that a bundle occupies."""

    importances: NDArray[np.float64]  # (bundles,)
    lengths: Mapping[Axis, int]


@dataclass(frozen=True, slots=True)
class Bounds:
    multiply_adds: float  # the budget for one image
    round_to: int
    min_kept_share: float  # smallest share of a group's channels that stays


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    removed: tuple[IntArray, ...]  # bundle numbers per group, ascending
    multiply_adds: int
    is_within: bool  # False: no more channels may be removed, and the budget is still exceeded


def select(
    candidates: Sequence[PruningCandidate], costs: Sequence[LayerCost], fixed_multiply_adds: int, bounds: Bounds
) -> Selection:
    """Returns the bundles to remove; `fixed_multiply_adds` is the work that no layer of `costs` does."""
    order = [np.argsort(candidate.importances, kind="stable") for candidate in candidates]
    gone = [0] * len(candidates)
    removed: dict[Axis, int] = {}
    work = fixed_multiply_adds + multiply_adds(costs, removed)
    costs_by_weight: dict[str, list[LayerCost]] = {}
    for cost in costs:
        costs_by_weight.setdefault(cost.weight, []).append(cost)
    while work > bounds.multiply_adds:
        best: tuple[float, int, int, int] | None = None  # (loss per multiply-add saved, group, channels, saving)
        for number, candidate in enumerate(candidates):
            count = _next_step(len(order[number]), gone[number], bounds)
            saving = _saving(candidate, count, removed, costs_by_weight)
            if saving > 0:
                lost = float(candidate.importances[order[number][gone[number] : gone[number] + count]].sum())
                needed = min(saving, work - bounds.multiply_adds)  # savings beyond the budget do not count
                best = min(best or (np.inf, 0, 0, 0), (lost / needed, number, count, saving))
        if best is None:
            break
        _, number, count, saving = best
        _take(candidates[number], count, removed)
        gone[number] += count
        work -= saving
    chosen = tuple(np.sort(order[number][:count]) for number, count in enumerate(gone))
    return Selection(chosen, work, work <= bounds.multiply_adds)


def multiply_adds(costs: Sequence[LayerCost], removed: Mapping[Axis, int]) -> int:
    """Returns the multiply-adds of one image after `removed` indices have gone from each axis."""
    return sum(
        cost.places * prod(size - removed.get((cost.weight, axis), 0) for axis, size in enumerate(cost.shape))
        for cost in costs
    )


def _next_step(size: int, gone: int, bounds: Bounds) -> int:
    """Returns how many channels to remove next so that a multiple of `round_to` stays; 0 when no more may go."""
    kept = size - gone
    count = kept % bounds.round_to or bounds.round_to
    least = max(1, ceil(bounds.min_kept_share * size))
    return count if kept - count >= least else 0


def _saving(
    candidate: PruningCandidate,
    count: int,
    removed: Mapping[Axis, int],
    costs_by_weight: Mapping[str, Sequence[LayerCost]],
) -> int:
    if count == 0:
        return 0
    weights = {name for name, _ in candidate.lengths}
    touched = [cost for name in sorted(weights) for cost in costs_by_weight.get(name, ())]
    after = dict(removed)
    _take(candidate, count, after)
    return multiply_adds(touched, removed) - multiply_adds(touched, after)


def _take(candidate: PruningCandidate, count: int, removed: dict[Axis, int]) -> None:
    """Adds the indices of `count` bundles to `removed`."""
    for axis, length in candidate.lengths.items():
        removed[axis] = removed.get(axis, 0) + count * length
