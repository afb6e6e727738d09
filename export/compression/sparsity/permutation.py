"""Reorders channels so that a 2:4 mask keeps more of the weights' magnitude; no layer ends worse than it began.

2:4 keeps two of four neighbours, so the result depends on which channels are neighbours. The idea is that of Pool and
Yu, Channel Permutations for N:M Sparsity (NeurIPS 2021). The search differs: quads of channels are paired at random,
and each pair takes the best of its 35 divisions into two quads, many pairs at once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.export.compression.sparsity.channel_groups import ChannelGroup, IntArray, permuted
from saccade.export.compression.sparsity.masks import GROUP, kept_magnitude

_ELEMENTS = 1 << 18  # largest number of a group's magnitudes that a search reads; larger groups are sampled by rows
_CLOSER_LOOK = 8  # factor by which the sample grows when it misled the search
_CHUNK_ELEMENTS = 1 << 23  # floats per vectorised step, so that they stay near the caches
_PATIENCE = 10  # a search ends after so many rounds without gain
_URGENCY_SCALE = 0.003  # share of kept magnitude: a layer this far behind gets e times the weight
_SMALLEST_GAIN = 1e-6  # smaller gains are rounding noise
_PAIRS = tuple(itertools.combinations(range(2 * GROUP), 2))
# Each division appears once: the first channel is always in the first quad.
_DIVISIONS = tuple(
    ((0, *rest), tuple(set(range(2 * GROUP)) - {0, *rest})) for rest in itertools.combinations(range(1, 2 * GROUP), 3)
)
_QUADS = tuple(tuple(sorted(quad)) for division in _DIVISIONS for quad in division)
_PAIR_FIRST, _PAIR_SECOND = [first for first, _ in _PAIRS], [second for _, second in _PAIRS]
_QUAD_LEFT = [_PAIRS.index((quad[0], quad[1])) for quad in _QUADS]
_QUAD_RIGHT = [_PAIRS.index((quad[2], quad[3])) for quad in _QUADS]


@dataclass(frozen=True, slots=True)
class PermutationFigure:
    """Share of a layer's magnitude that a 2:4 mask keeps, before and after its channels were put in order."""

    weight: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, eq=False)
class Quads:
    """The slots of one group's search; four consecutive slots are a quad in every layer."""

    slots: IntArray  # (n,) bundle number in each slot; n is a multiple of four
    magnitudes: Tensor  # (rows, n) absolute weight per slot
    layers: Tensor  # (rows, layers) one-hot, divided by the layer's total magnitude


def permute_channels(
    state: Mapping[str, Tensor],
    groups: Sequence[ChannelGroup],
    weights: Sequence[str],
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, Tensor], tuple[PermutationFigure, ...]]:
    """Returns the parameters in a better order for the named 2:4 weights, and the gain of each weight.

    The budget is shared by size. A group whose order would keep less in any of its layers stays as it was.
    """
    changed = dict(state)
    wanted = set(weights)
    searches = [group for group in groups if quads_of(changed, group, wanted, 1) is not None]
    costs = [min(_cost(group, changed, wanted), _ELEMENTS) for group in searches]
    deadline = clock() + budget_s
    for group, cost, rest in zip(searches, costs, _remaining(costs), strict=True):
        until = clock() + max(deadline - clock(), 0.0) * cost / rest
        touched = [name for name, axis in group.positions if axis == 1 and name in wanted]
        for elements in (_ELEMENTS, _CLOSER_LOOK * _ELEMENTS):
            quads = quads_of(changed, group, wanted, elements)
            assert quads is not None
            order = best_order(quads, until, clock)
            candidate = permuted(changed, group, _full_order(group, quads, order))
            if all(kept_magnitude(candidate[name]) >= kept_magnitude(changed[name]) - 1e-9 for name in touched):
                changed.update(candidate)
                break
    figures = tuple(
        PermutationFigure(name, kept_magnitude(state[name]), kept_magnitude(changed[name])) for name in weights
    )
    return changed, figures


def quads_of(state: Mapping[str, Tensor], group: ChannelGroup, weights: Set[str], elements: int) -> Quads | None:
    """The group's slots and about `elements` of its magnitudes; None when no 2:4 weight has whole quads in it."""
    columns = [
        (name, positions[:, place])
        for (name, axis), positions in group.positions.items()
        if axis == 1 and name in weights
        for place in range(positions.shape[1])
    ]
    slots = _whole_quads(columns)
    if slots is None:
        return None
    parts = [state[name].detach().abs().transpose(0, 1)[torch.from_numpy(places[slots])] for name, places in columns]
    rng = torch.Generator().manual_seed(0)
    share = max(1, elements // (len(slots) * len(parts)))
    rows = [part.reshape(len(slots), -1).T for part in parts]
    rows = [part[torch.randperm(len(part), generator=rng)[:share]] if len(part) > share else part for part in rows]
    layers = torch.zeros(sum(map(len, rows)), len(rows))
    start = 0
    for index, part in enumerate(rows):
        layers[start : start + len(part), index] = 1.0 / float(part.sum().clamp_min(1e-30))
        start += len(part)
    return Quads(slots, torch.cat(rows).float().contiguous(), layers)


def best_order(quads: Quads, until: float, clock: Callable[[], float] = time.perf_counter) -> IntArray:
    """Returns a permutation of range(n): the slot whose channel moves to each slot. Deterministic unless time runs out.

    Layers that share channels want different orders. Those that have gained least count most, so that in the end no
    layer is worse than it was; the best such order on the way is the answer.
    """
    rng = np.random.default_rng(0)
    order = best = np.arange(len(quads.slots))
    gained = np.zeros(quads.layers.shape[1])  # gain per layer, as a share of its magnitude
    best_gain, idle = 0.0, 0
    while len(order) >= 2 * GROUP and idle < _PATIENCE and clock() < until:
        numbers = rng.permutation(len(order) // GROUP)
        pairs = numbers[: len(numbers) // 2 * 2].reshape(-1, 2)
        places = (pairs[:, :, None] * GROUP + np.arange(GROUP)).reshape(len(pairs), 2 * GROUP)
        gains = _gains(quads, order[places])  # (pairs, divisions, layers)
        order = order.copy()
        idle += 1
        for place, gain in zip(places, gains, strict=True):
            urgency = np.exp((gained.min() - gained) / _URGENCY_SCALE)
            chosen = int((gain @ urgency).argmax())
            if gain[chosen] @ urgency > _SMALLEST_GAIN:
                first, second = _DIVISIONS[chosen]
                order[place] = order[place][[*first, *second]]
                gained += gain[chosen]
        if gained.min() >= 0.0 and gained.sum() > best_gain + _SMALLEST_GAIN:
            best, best_gain, idle = order, float(gained.sum()), 0
    return best


def _gains(quads: Quads, columns: IntArray) -> NDArray[np.float64]:
    """Returns per layer what each division of each pair of quads (pairs, 8) keeps more than the present one."""
    rows = len(quads.magnitudes)
    step = max(1, _CHUNK_ELEMENTS // (rows * len(_QUADS)))
    parts = [_chunk_gains(quads, columns[start : start + step]) for start in range(0, len(columns), step)]
    return np.concatenate(parts)


def _chunk_gains(quads: Quads, columns: IntArray) -> NDArray[np.float64]:
    values = quads.magnitudes.T[torch.from_numpy(columns)].transpose(0, 1)  # (8, pairs, rows)
    highs = torch.maximum(values[_PAIR_FIRST], values[_PAIR_SECOND])  # (28, pairs, rows)
    lows = torch.minimum(values[_PAIR_FIRST], values[_PAIR_SECOND])
    left, right = highs[_QUAD_LEFT], highs[_QUAD_RIGHT]  # (70, pairs, rows): a quad is two pairs
    kept = torch.maximum(left, right)
    kept += torch.maximum(torch.minimum(left, right), torch.maximum(lows[_QUAD_LEFT], lows[_QUAD_RIGHT]))
    per_quad = kept @ quads.layers  # (70, pairs, layers): the sum of the two largest of four
    totals = (per_quad[::2] + per_quad[1::2]).transpose(0, 1)
    gains: NDArray[np.float64] = (totals - totals[:, :1]).double().numpy()
    return gains


def _whole_quads(columns: Sequence[tuple[str, IntArray]]) -> IntArray | None:
    """Returns bundle numbers ordered so that four consecutive ones are an aligned quad in each of the columns."""
    if not columns:
        return None
    places = columns[0][1]
    order = np.argsort(places)
    numbers = places[order] // GROUP
    quads = [order[numbers == number] for number in np.unique(numbers)]
    whole = [quad for quad in quads if len(quad) == GROUP and all(_is_aligned(other[quad]) for _, other in columns)]
    return np.concatenate(whole) if whole else None


def _is_aligned(places: IntArray) -> bool:
    return len(np.unique(places // GROUP)) == 1


def _full_order(group: ChannelGroup, quads: Quads, order: IntArray) -> IntArray:
    """Extends an order to all bundles: those outside of whole quads stay in place."""
    full = np.arange(group.size)
    full[quads.slots] = quads.slots[order]
    return full


def _cost(group: ChannelGroup, state: Mapping[str, Tensor], weights: Set[str]) -> int:
    return sum(state[name].numel() for name, axis in group.positions if axis == 1 and name in weights)


def _remaining(costs: Sequence[int]) -> list[int]:
    return list(np.cumsum(costs[::-1])[::-1]) if costs else []
