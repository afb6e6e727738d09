"""Which channels leave is decided by numbers alone."""

from __future__ import annotations

import numpy as np

from saccade.export.compression.pruning.selection import Bounds, LayerCost, PruningCandidate, multiply_adds, select

# Two layers in a row: 4 -> 16 -> 12 channels, the second on a quarter of the places.
COSTS = (
    LayerCost("first", "first.weight", (16, 4, 3, 3), places=64),
    LayerCost("second", "second.weight", (12, 16, 1, 1), places=16),
)
DENSE = 64 * 16 * 4 * 9 + 16 * 12 * 16


def hidden(importances: list[float]) -> PruningCandidate:
    return PruningCandidate(np.array(importances), {("first.weight", 0): 1, ("second.weight", 1): 1})


def test_least_important_channels_leave_until_the_budget_is_met() -> None:
    values = [float(value) for value in (16, 1, 15, 2, 14, 3, 13, 4, 12, 5, 11, 6, 10, 7, 9, 8)]

    selection = select([hidden(values)], COSTS, 0, Bounds(0.75 * DENSE, round_to=4, min_kept_share=0.25))

    assert [values[bundle] for bundle in selection.removed[0]] == [1.0, 2.0, 3.0, 4.0]
    assert selection.multiply_adds == multiply_adds(COSTS, {("first.weight", 0): 4, ("second.weight", 1): 4})
    assert selection.is_within


def test_more_leaves_where_less_is_lost_per_saved_work() -> None:
    cheap = PruningCandidate(np.full(12, 0.01), {("second.weight", 0): 1})
    dear = hidden([10.0] * 16)

    selection = select([dear, cheap], COSTS, 0, Bounds(DENSE - 1, round_to=4, min_kept_share=0.25))

    assert [len(removed) for removed in selection.removed] == [0, 4]


def test_work_saved_beyond_the_budget_is_no_gain() -> None:
    # Given: channels of `first` save ten times as much and are worth twice as much.
    cheap = PruningCandidate(np.full(12, 1.0), {("second.weight", 0): 1})

    def removed_at(budget: float) -> list[int]:
        bounds = Bounds(budget, round_to=4, min_kept_share=0.25)
        return [len(gone) for gone in select([hidden([2.0] * 16), cheap], COSTS, 0, bounds).removed]

    assert removed_at(DENSE - 1024) == [0, 4]
    assert removed_at(DENSE - 4000) == [4, 0]


def test_uneven_width_becomes_a_multiple_first() -> None:
    costs = (LayerCost("layer", "layer.weight", (14, 4), places=1),)
    candidate = PruningCandidate(np.ones(14), {("layer.weight", 0): 1})

    selection = select([candidate], costs, 0, Bounds(14 * 4 - 1, round_to=8, min_kept_share=0.1))

    assert len(selection.removed[0]) == 6


def test_least_kept_share_and_fixed_work_bound_what_is_possible() -> None:
    selection = select([hidden([1.0] * 16)], COSTS, 1000, Bounds(0.0, round_to=4, min_kept_share=0.5))

    assert len(selection.removed[0]) == 8
    assert not selection.is_within
    assert selection.multiply_adds == 1000 + DENSE // 2


def test_budget_of_the_whole_network_removes_nothing() -> None:
    selection = select([hidden([1.0] * 16)], COSTS, 0, Bounds(float(DENSE), round_to=4, min_kept_share=0.25))

    assert selection.removed[0].size == 0
