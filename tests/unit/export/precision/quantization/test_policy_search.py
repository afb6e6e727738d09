"""Policy search. Promises: blocks follow the layers, predictions are the true front, and only measured gains win."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from saccade.export.precision.quantization.policy_search import (
    Block,
    PolicyFigure,
    blocks_of,
    predicted_policies,
    taken_out,
    winner_of,
)
from saccade.export.recipe import PolicySpec

NODES = (
    "Transpose_0",
    "net.stem/Conv",
    "net.stem.relu/Relu",
    "net.body.0.a/Conv",
    "net.body.0.b/Conv",
    "net.body.0/Add",
    "net.body.1.a/Conv",
    "net.body.1.relu/Relu",
    "net.head/Gemm",
)
WEIGHTED = {name for name in NODES if name.endswith(("Conv", "Gemm"))}
LATENCY, ACCURACY = PolicySpec(objective="latency"), PolicySpec(objective="accuracy", max_slowdown=0.05)


def figure(ratio: float, low: float, high: float, gain: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> PolicyFigure:
    """Speed ratio with its interval, and the gain in the metric with its own."""
    return PolicyFigure(
        float_blocks=("a",),
        predicted_ms=1.0,
        ms=1.0,
        speed_ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        tuning_metric=0.9 + gain[0],
        gain=gain[0],
        gain_low=gain[1],
        gain_high=gain[2],
    )


@pytest.mark.parametrize("most", [1, 2, 3, 4, 14])
def test_every_node_is_in_one_block_and_every_block_has_a_weighted_layer(most: int) -> None:
    blocks = blocks_of(NODES, WEIGHTED, most)

    assert len(blocks) <= most
    assert sorted(node for block in blocks for node in block.nodes) == sorted(NODES)
    assert all(WEIGHTED.intersection(block.nodes) for block in blocks)


def test_the_largest_block_is_split_first_along_layer_paths() -> None:
    assert [block.name for block in blocks_of(NODES, WEIGHTED, 4)] == [
        "net.stem",
        "net.body.0",
        "net.body.1",
        "net.head",
    ]


@pytest.mark.parametrize("slowest", [10.0, 10.5])
def test_predictions_are_the_front_of_all_subsets_that_are_fast_enough(slowest: float) -> None:
    rng = np.random.default_rng(0)
    saved, noise = rng.normal(0.0, 1.0, 6), rng.uniform(0.0, 1.0, 6)
    points = [
        (10.0 - saved[list(subset)].sum(), noise.sum() - noise[list(subset)].sum(), subset)
        for size in range(1, 6)
        for subset in itertools.combinations(range(6), size)
    ]
    front = {
        subset
        for seconds, error, subset in points
        if seconds <= slowest and not any(s <= seconds and e < error for s, e, _ in points)
    }

    found = predicted_policies(10.0, slowest, saved, noise, 1000)

    assert {each.float_blocks for each in found} == front
    assert len(predicted_policies(10.0, slowest, saved, noise, 2)) == 2


def test_nothing_is_predicted_where_int8_is_faster_everywhere() -> None:
    assert predicted_policies(10.0, 10.0, np.array([-1.0, -2.0]), np.array([0.1, 0.1]), 4) == []


def test_all_float_is_no_policy() -> None:
    saved, noise = np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.1, 0.1])

    assert all(0 < len(each.float_blocks) < 3 for each in predicted_policies(10.0, 10.0, saved, noise, 99))
    assert predicted_policies(10.0, 10.0, saved[:1], noise[:1], 99) == []


def test_latency_is_won_beyond_chance_and_without_losing_accuracy() -> None:
    by_chance, worse = figure(1.10, 0.98, 1.2), figure(1.5, 1.4, 1.6, (-0.01, -0.02, 0.0))
    faster, fastest = figure(1.05, 1.01, 1.1), figure(1.2, 1.1, 1.3)

    assert winner_of([by_chance, worse], LATENCY) is None
    assert winner_of([by_chance, faster, worse, fastest], LATENCY) == 3


def test_accuracy_is_won_beyond_chance_and_within_the_time_it_may_cost() -> None:
    one_image = figure(1.0, 0.99, 1.01, (0.001, 0.0, 0.003))
    slower = figure(0.96, 0.94, 0.98, (0.05, 0.02, 0.08))
    better, best = figure(1.0, 0.99, 1.01, (0.01, 0.002, 0.02)), figure(0.97, 0.96, 0.98, (0.02, 0.01, 0.03))

    assert winner_of([one_image, slower], ACCURACY) is None
    assert winner_of([one_image, better, best, slower], ACCURACY) == 2


def test_every_node_of_a_chosen_block_stays_float_and_says_whose_choice_it_was() -> None:
    blocks = (Block("net.stem", ("a", "b")), Block("net.head", ("c",)))

    assert taken_out(blocks, [0]) == dict.fromkeys("ab", "the measured policy leaves net.stem float")
